"""The models of a server: found, loaded, replaced and let go."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploydcn.errors import InvalidArgument, InvalidModel, UserError
from deploydcn.serving.model import SUFFIXES, ServedModel, is_model_file
from deploydcn.serving.options import ModelOptions
from deploydcn.serving.refusal import Refusal

log = logging.getLogger("deploydcn.serving")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

_UNLOADED = "unloaded"

Stamps = dict[int, frozenset[tuple[str, int, int, int]]]


@dataclass
class _Entry:
    """A model by name: its loaded versions, and why the last attempt to load failed."""

    versions: dict[int, ServedModel] = field(default_factory=dict)
    stamps: Stamps = field(default_factory=dict)
    reason: str = ""


class Repository:
    """Models by name and version, from files and folders.

    Args:
        sources: each a model file (version 1 of a model named like it), `NAME=FILE`, or a folder: of versions (NAME/1/model.onnx), or of
            such folders and files.
        options: how all of them are run.

    Clients name models that were found there; no path is ever made of what a client sends.

    Raises:
        InvalidArgument: a source that does not exist or holds no model, a name that is no plain word, or one given twice.
    """

    def __init__(self, sources: Sequence[str | Path], options: ModelOptions) -> None:
        self._sources, self._options = list(sources), options
        self._entries: dict[str, _Entry] = {}
        self._changing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        if not self._find_all():
            given = ", ".join(map(str, sources)) or "nothing"
            raise InvalidArgument(f"no models in {given}; wanted files or folders of {', '.join(SUFFIXES)}")

    async def load_all(self) -> None:
        """Load everything that was found.

        Raises:
            UserError: one of them cannot be loaded: a server does not start with half of its models.
        """
        async with self._changing:
            for name, files in self._find_all().items():
                await self._load(name, files)

    async def load(self, name: str) -> None:
        """Load a model, or load it anew; what was loaded before answers until the new one can, and stays if it cannot.

        Raises:
            Refusal: no such model (404), or it cannot be loaded (400).
        """
        async with self._changing:
            found, problems = self._find()
            try:
                if name not in found:
                    raise problems[0] if problems and name in self._entries else _unknown(name)
                await self._load(name, found[name])
            except UserError as error:
                raise Refusal(f"model {name!r} is not loaded: {error}") from error

    async def unload(self, name: str) -> None:
        """Let a model go when its queue is empty.

        Raises:
            Refusal: no such model is loaded.
        """
        async with self._changing:
            entry = self._entries.get(name)
            if entry is None or not entry.versions:
                raise _unknown(name)
            gone = list(entry.versions.values())
            self._entries[name] = _Entry(stamps=entry.stamps, reason=_UNLOADED)
            self._close(gone)

    async def reload_changed(self) -> None:
        """Load those models anew whose files are others than when they were loaded; a failure is kept for the index and the log.

        Those that clients unloaded stay so.
        """
        async with self._changing:
            found, problems = self._find()
            for problem in problems:
                log.warning("the models' files: %s", problem)
            for name, files in found.items():
                entry = self._entries.get(name)
                if entry is not None and (entry.stamps == _stamps(files) or entry.reason == _UNLOADED):
                    continue
                try:
                    await self._load(name, files)
                except UserError as error:
                    log.error("%s is not loaded, what was there stays: %s", name, error)

    async def close(self) -> None:
        """Answer what is queued everywhere, then let everything go."""
        self._close([model for entry in self._entries.values() for model in entry.versions.values()])
        await asyncio.gather(*self._closing)

    def get(self, name: str, version: str = "") -> ServedModel:
        """A loaded model; its highest version where none is named.

        Raises:
            Refusal: there is none (404).
        """
        entry = self._entries.get(name)
        if entry is None or not entry.versions:
            raise _unknown(name)
        if not version:
            return entry.versions[max(entry.versions)]
        model = entry.versions.get(int(version)) if version.isascii() and version.isdecimal() and len(version) < 10 else None
        if model is None:
            raise Refusal(f"model {name!r} has no version {version!r}; it has {', '.join(map(str, sorted(entry.versions)))}", 404)
        return model

    def versions(self, name: str) -> list[str]:
        """The loaded versions of a model, in order."""
        return [str(version) for version in sorted(self._entries[name].versions)]

    def loaded(self) -> Iterator[ServedModel]:
        """Every loaded version of every model, by name."""
        for _, entry in sorted(self._entries.items()):
            for _, model in sorted(entry.versions.items()):
                yield model

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """The protocol's repository index. ready: loaded models only."""
        found, _ = self._find()
        rows = []
        for name in sorted(found.keys() | self._entries.keys()):
            entry = self._entries.get(name, _Entry())
            rows += [
                {"name": name, "version": str(version), "state": "READY", "reason": entry.reason} for version in sorted(entry.versions)
            ]
            if not entry.versions and not ready:
                rows.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": entry.reason})
        return rows

    async def _load(self, name: str, files: dict[int, Path]) -> None:
        """Every version of a model that was found, or none of them."""
        entry = self._entries.setdefault(name, _Entry())
        stamps = _stamps(files)
        try:
            fresh = {version: await asyncio.to_thread(ServedModel, name, version, path, self._options) for version, path in files.items()}
        except UserError as error:
            entry.reason, entry.stamps = str(error), stamps
            raise
        gone = list(entry.versions.values())
        self._entries[name] = _Entry(fresh, stamps)
        self._close(gone)
        log.info("loaded %s, version %s", name, ", ".join(map(str, fresh)))

    def _close(self, models: list[ServedModel]) -> None:
        for model in models:
            task = asyncio.get_running_loop().create_task(model.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _find_all(self) -> dict[str, dict[int, Path]]:
        """As `_find`, where nothing may be wrong."""
        found, problems = self._find()
        if problems:
            raise problems[0]
        return found

    def _find(self) -> tuple[dict[str, dict[int, Path]], list[UserError]]:
        """The files that are there now, by model and version; and what cannot be served of them, which is no concern of the others."""
        found: dict[str, dict[int, Path]] = {}
        problems: list[UserError] = []
        for source in self._sources:
            for name, files in _models_in(source):
                if isinstance(files, UserError):
                    problems.append(files)
                elif not _NAME.fullmatch(name):
                    wanted = "letters, digits, '_', '-', '.'; give NAME=FILE"
                    problems.append(InvalidArgument(f"{source}: {name!r} is no model name; wanted {wanted}"))
                elif name in found:
                    problems.append(InvalidArgument(f"two models are named {name!r}; give one as NAME=FILE"))
                else:
                    found[name] = files
        return found, problems


def _models_in(source: str | Path) -> Iterator[tuple[str, dict[int, Path] | UserError]]:
    """The models of one source by name, with a file per version, or what is wrong with it."""
    text = str(source)
    name, equals, file = text.partition("=")
    path = Path(file if equals and not Path(text).exists() else text)
    try:
        if path.is_dir():
            if versions := _versions(path):
                yield path.name, versions
            else:
                for child in sorted(path.iterdir()):
                    yield from _model_in(child)
        elif not path.is_file():
            raise InvalidArgument(f"{path} does not exist; wanted a model file, NAME=FILE, or a folder of models")
        elif not is_model_file(path):
            raise InvalidModel(f"{path} has no name that can be served; wanted one that ends with {', '.join(SUFFIXES)}")
        else:
            yield (name if path == Path(file) and equals else path.stem), {1: path}
    except OSError as error:
        yield path.stem, InvalidArgument(f"{path} cannot be read: {error}")
    except UserError as error:
        yield path.stem, error


def _model_in(child: Path) -> Iterator[tuple[str, dict[int, Path] | UserError]]:
    """The model that a file or folder of a folder is, if it is one."""
    try:
        if child.is_dir() and (versions := _versions(child)):
            yield child.name, versions
        elif child.is_file() and is_model_file(child):
            yield child.stem, {1: child}
    except OSError as error:
        yield child.name, InvalidArgument(f"{child} cannot be read: {error}")
    except UserError as error:
        yield child.name, error


def _versions(folder: Path) -> dict[int, Path]:
    """FOLDER/NUMBER/FILE, where NUMBER holds one model file, or one named model.*."""
    versions = {}
    for child in folder.iterdir():
        if child.is_dir() and child.name.isascii() and child.name.isdecimal() and int(child.name) > 0:
            files = [file for file in sorted(child.iterdir()) if file.is_file() and is_model_file(file)]
            chosen = [file for file in files if file.stem == "model"] or files
            if len(chosen) > 1:
                raise InvalidArgument(f"{child} holds {', '.join(file.name for file in chosen)}; wanted one model file")
            if chosen:
                versions[int(child.name)] = chosen[0]
    return dict(sorted(versions.items()))


def _stamps(files: dict[int, Path]) -> Stamps:
    """What tells that a version is another one: path, inode, time and size of its file and of those named after it, weights and golden.

    Time and size alone may be those of the file before: in images of containers, and where links are exchanged.
    """
    stamps = {}
    for version, path in files.items():
        own = set()
        for file in path.parent.iterdir() if path.parent.is_dir() else ():
            if file.name.startswith(f"{path.stem}."):
                try:
                    status = file.stat()
                except OSError:  # gone meanwhile
                    continue
                own.add((str(file), status.st_ino, status.st_mtime_ns, status.st_size))
        stamps[version] = frozenset(own)
    return stamps


def _unknown(name: str) -> Refusal:
    return Refusal(f"no model is named {name[:128]!r}", 404)
