"""Files: written whole or not at all, and arrays read."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deploydcn.errors import InvalidArgument


@contextlib.contextmanager
def replace_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path in a new folder beside `path`; when the block succeeds, move everything in it to `path`'s folder.

    Side files (ONNX external data) written next to the yielded path travel with it, `path` itself last, so that a
    reader never sees a model without its data. When the block raises, nothing is left behind.

    Raises:
        InvalidArgument: the folder of `path` does not exist or cannot be written.
    """
    target = Path(path)
    folder = target.parent
    if target.is_dir():
        raise InvalidArgument(f"{target} is a folder, wanted a file name; add one, as in {target / 'model.onnx'}")
    if not folder.is_dir():
        raise InvalidArgument(f"cannot write {target}: folder {folder} does not exist; create it first")
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
    except OSError as error:
        raise InvalidArgument(f"cannot write {target}: {error.strerror}; check the folder's permissions") from error
    try:
        yield scratch / target.name
        written = sorted(scratch.iterdir(), key=lambda file: file.name == target.name)
        for file in written:
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def folder_on_success(path: str | os.PathLike[str], marker: str, *, scratch: Path | None = None) -> Iterator[Path]:
    """Yield a new folder; when the block succeeds, give it the name `path`. When it raises, nothing is left behind.

    marker: a file that every such folder holds: an older one of that name is replaced, a folder without it is not.
    scratch: where the folder is while it is new, on the same file system; beside `path` by default.

    Raises:
        InvalidArgument: something else has that name, or the folder around it does not exist or cannot be written.
    """
    target = Path(path)
    if target.exists() and not (target / marker).is_file():
        raise InvalidArgument(f"{target} exists and holds no {marker}; wanted a new folder, or one written by an earlier run")
    if not target.parent.is_dir():
        raise InvalidArgument(f"cannot write {target}: folder {target.parent} does not exist; create it first")
    try:
        home = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=scratch or target.parent))
    except OSError as error:
        raise InvalidArgument(f"cannot write {target}: {error.strerror}; check the folder's permissions") from error
    new, old = home / "new", home / "old"
    try:
        new.mkdir()  # mkdtemp's folders are for their owner alone
        yield new
        if target.exists():
            target.replace(old)
        try:
            new.replace(target)
        except OSError:
            if old.exists():
                old.replace(target)
            raise
    finally:
        shutil.rmtree(home, ignore_errors=True)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file.

    Raises:
        InvalidArgument: it does not exist, or is no such file.
    """
    if not path.is_file():
        raise InvalidArgument(f"{path} does not exist; wanted an .npz file with one array per input")
    try:
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise InvalidArgument(f"{path} holds one unnamed array; wanted an .npz file, as numpy.savez(path, x=...) writes")
        with arrays:
            return {name: arrays[name] for name in arrays.files}
    except InvalidArgument:
        raise
    except Exception as error:  # NumPy lets zip, zlib, tokenizer and value errors through
        raise InvalidArgument(f"{path} is not a readable .npz file: {error}") from error
