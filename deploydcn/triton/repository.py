"""Writing a repository: a folder per model, and how to start a server on them."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from deploydcn.errors import InvalidArgument, InvalidModel
from deploydcn.files import folder_on_success
from deploydcn.libraries import ORT_LIBRARY, PLUGIN_LIBRARY, ort_library_path
from deploydcn.runners import TensorInfo
from deploydcn.triton.config import LABELS, TYPES, Config
from deploydcn.triton.launch import Launch
from deploydcn.triton.report import TritonRepository, WrittenModel
from deploydcn.triton.signature import (
    ONNX,
    TENSORRT,
    Signature,
    backend_of,
    engine_signature,
    external_files,
    libraries_of,
    onnx_signature,
    read_onnx,
)

FILES = {ONNX: "model.onnx", TENSORRT: "model.plan"}
"""The names under which Triton's backends look for a model."""

CONFIG = "config.pbtxt"


def write_triton_repository(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    repository: str | os.PathLike[str],
    *,
    name: str | None = None,
    version: int = 1,
    batch: int = 0,
    instances: int = 1,
    gpu: bool | None = None,
    dynamic_batching: bool | None = None,
    delay: int = 0,
    warmup: bool = False,
    like: str | os.PathLike[str] | None = None,
    ops_dir: str | os.PathLike[str] | None = None,
    copy_ops: bool = False,
) -> TritonRepository:
    """Write models into a repository for Triton Inference Server: NAME/config.pbtxt, NAME/VERSION/model.onnx or model.plan, a README.md.

    Other models in the repository, and other versions of these, stay. A model's folder appears complete or not at all.

    Args:
        models: ONNX files and TensorRT engines. External data is copied too.
        repository: the folder; made if it does not exist.
        name: of the model; by default its file name without the suffix.
        version: 1 or more. Triton serves the highest unless told otherwise.
        batch: max_batch_size. The first axis of every input and output must be dynamic then; ONNX files are run at batches of 1 and of this
            size to see that they compute as many results. 0: requests have the model's own shapes, and are not put together.
        instances: copies of the model that run at once.
        gpu: run on GPUs; by default engines do, ONNX files do not.
        dynamic_batching: let Triton put waiting requests together; by default where batch is above 1.
        delay: microseconds that a request may wait for others.
        warmup: run once on zeros before requests are let in; sizes must be fixed, the batch aside.
        like: for an engine on a machine without a GPU: the ONNX file it was built from, or the JSON that `deploydcn build --json` printed.
        ops_dir: the folder that deploydcn's libraries have where the server runs; by default where they are here.
        copy_ops: put the library that the models need into `repository`, beside them. `ops_dir` is then the repository's folder there.

    Raises:
        InvalidModel: a file is no model, or one that Triton cannot serve.
        InvalidArgument: options do not fit the model, or a folder is in the way.
        MissingDependency: onnxruntime is not installed.
    """
    files = [Path(models)] if isinstance(models, str | os.PathLike) else [Path(model) for model in models]
    options = _Options(name, version, batch, instances, gpu, dynamic_batching, delay, warmup, None if like is None else Path(like))
    options.check(files)
    target = Path(repository)
    if not target.absolute().parent.is_dir():
        raise InvalidArgument(f"cannot write {target}: folder {target.absolute().parent} does not exist; create it first")
    here = target.resolve()
    launch = _launch(here, ops_dir, copy_ops)
    names = [_model_name(file, options) for file in files]
    if len(set(names)) < len(names):
        raise InvalidArgument(f"models would have the names {', '.join(names)}; wanted each once; write them one by one, with --name")
    prepared = [_prepare(file, options, launch.ops) for file in files]
    with _folder(target), contextlib.ExitStack() as stack:
        for model in prepared:
            folder = stack.enter_context(folder_on_success(target / model.config.name, CONFIG, scratch=_scratch(here)))
            model.write(folder, version)
            _keep_versions(target / model.config.name, folder, version)
        for library in {
            ORT_LIBRARY if model.config.libraries else PLUGIN_LIBRARY for model in prepared if copy_ops and model.needs_library
        }:
            _copy(launch.libraries / library, target / library)
    launch.write_readme()
    written = [
        WrittenModel(model.config.name, version, target / model.config.name, model.config.backend, batch, tuple(model.notes))
        for model in prepared
    ]
    return TritonRepository(target, tuple(written), launch.command(), launch.container())


@dataclass(frozen=True)
class _Options:
    name: str | None
    version: int
    batch: int
    instances: int
    gpu: bool | None
    dynamic_batching: bool | None
    delay: int
    warmup: bool
    like: Path | None

    def check(self, files: Sequence[Path]) -> None:
        if not files:
            raise InvalidArgument("no models were given; wanted ONNX files or TensorRT engines")
        for what, value, least in (
            ("version", self.version, 1),
            ("instances", self.instances, 1),
            ("batch", self.batch, 0),
            ("delay", self.delay, 0),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 31:
                raise InvalidArgument(f"{what} is {value!r}; wanted a whole number, {least} or more")
        if len(files) > 1 and (self.name is not None or self.like is not None):
            raise InvalidArgument(f"name and like are for one model, and {len(files)} were given; write them one by one")
        batching = self.dynamic_batching if self.dynamic_batching is not None else self.batch > 1
        if batching and self.batch == 0:
            raise InvalidArgument("dynamic batching needs batches: give batch too, or leave dynamic_batching out")
        if self.delay and not batching:
            raise InvalidArgument(f"delay is {self.delay}, and requests are not put together; give a batch above 1, or leave delay out")


@dataclass(frozen=True)
class _Prepared:
    """A model that can be written. external: its files of weights, beside it. names: of classes, for `config.labels`."""

    source: Path
    config: Config
    external: Sequence[str]
    names: Sequence[str]
    notes: Sequence[str]

    @property
    def needs_library(self) -> bool:
        return bool(self.config.libraries) or self.config.backend == TENSORRT

    def write(self, folder: Path, version: int) -> None:
        (folder / CONFIG).write_text(self.config.text(), encoding="utf-8")
        if self.config.labels:
            (folder / LABELS).write_text("".join(f"{name}\n" for name in self.names), encoding="utf-8")
        home = folder / str(version)
        home.mkdir()
        shutil.copyfile(self.source, home / FILES[self.config.backend])
        for file in self.external:
            (home / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.source.parent / file, home / file)


def _prepare(source: Path, options: _Options, ops: Path) -> _Prepared:
    backend = backend_of(source)
    if backend == TENSORRT:
        if options.gpu is False:
            raise InvalidArgument(f"{source} is a TensorRT engine, which runs on GPUs only; leave --cpu out")
        model, libraries = onnx.ModelProto(), []
        signature = engine_signature(source, options.like)
    else:
        if options.like is not None:
            raise InvalidArgument(f"{source} is no TensorRT engine; like is for those; leave it out")
        model, libraries = read_onnx(source), libraries_of(source)
        signature = onnx_signature(source, libraries, batches=sorted({1, options.batch}) if options.batch else ())
    inputs, outputs, notes = _carried(source, signature)
    if options.batch:
        notes += _proven_batches(source, signature, inputs + outputs, options.batch)
    names = _class_names(model)
    config = Config(
        name=_model_name(source, options),
        backend=backend,
        batch=options.batch,
        inputs=inputs,
        outputs=outputs,
        instances=options.instances,
        gpu=backend == TENSORRT if options.gpu is None else options.gpu,
        dynamic_batching=options.batch > 1 if options.dynamic_batching is None else options.dynamic_batching,
        delay=options.delay,
        libraries=[ops / library.name for library in libraries],
        warmup=options.warmup,
    )
    config = _labelled(config, names)
    if options.warmup:
        _check_warmup(config)
    return _Prepared(source, config, _external(source, model), names, notes)


def _model_name(source: Path, options: _Options) -> str:
    name = source.stem if options.name is None else options.name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InvalidArgument(f"{source} would get the name {name!r}; wanted letters, digits, _, - and . only; give another with --name")
    return name


def _carried(source: Path, signature: Signature) -> tuple[list[TensorInfo], list[TensorInfo], list[str]]:
    """The inputs, the outputs that Triton can carry, and what is said about the others."""
    for info in signature.inputs:
        if reason := _obstacle(info):
            raise InvalidModel(f"{source}: input {info.name!r} {reason}; Triton cannot feed it; export the model with another input")
    outputs, notes = [], []
    for info in signature.outputs:
        if reason := _obstacle(info):
            notes.append(f"output {info.name!r} {reason}, and is left out of the configuration")
        else:
            outputs.append(info)
    if not outputs:
        raise InvalidModel(f"{source}: Triton can carry none of its outputs: {'; '.join(notes)}")
    return list(signature.inputs), outputs, notes


def _obstacle(info: TensorInfo) -> str:
    if info.dtype not in TYPES:
        return f"is {info.dtype}, a type that Triton does not have"
    return "has an unknown rank" if info.shape is None else ""


def _proven_batches(source: Path, signature: Signature, infos: Sequence[TensorInfo], batch: int) -> list[str]:
    """See that a model takes batches from 1 to `batch`. What is said about it.

    Raises:
        InvalidArgument: it does not.
    """
    fix = "export it with a dynamic first axis of every input (--dynamic x:0=n), or leave --batch out"
    for info in infos:
        if not info.shape or isinstance(info.shape[0], int):
            raise InvalidArgument(
                f"{source}: {info} has a fixed first axis; --batch {batch} needs a dynamic one of every input and output; {fix}"
            )
    if backend_of(source) == TENSORRT:
        if signature.largest is None:
            return [f"whether the engine was built for batches up to {batch} is not known here"]
        if signature.largest < batch:
            raise InvalidArgument(
                f"{source} was built for batches up to {signature.largest}; got --batch {batch}; build it with a larger profile"
            )
        return []
    one, most = signature.runs[0], signature.runs[-1]
    if one.error:
        if len({info.shape[0] for info in infos if info.shape}) == 1 and infos[0].shape and infos[0].shape[0] is not None:
            return [f"its batches were not tried: it does not run on random numbers: {_first_line(one.error)}"]
        raise InvalidArgument(
            f"{source}: the first axes are called {', '.join(map(str, infos))}, and it does not run on random numbers "
            f"({_first_line(one.error)}), so that nothing shows that they are one batch; {fix}"
        )
    if most.error:
        raise InvalidArgument(f"{source} runs at a batch of 1 and fails at {batch}: {_first_line(most.error)}; {fix}")
    for run in signature.runs:
        for info in infos:
            shape = run.shapes.get(info.name)
            if shape is not None and shape[:1] != [run.batch]:
                raise InvalidArgument(f"{source}: output {info.name!r} is {'x'.join(map(str, shape))} for a batch of {run.batch}; {fix}")
    return []


def _class_names(model: onnx.ModelProto) -> list[str]:
    """Names of classes in a file's metadata, as ultralytics writes them: "{0: 'person', ...}"."""
    text = next((entry.value for entry in model.metadata_props if entry.key == "names"), "")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    if isinstance(value, dict) and set(value) == set(range(len(value))):
        value = [value[index] for index in range(len(value))]
    return [" ".join(name.split()) for name in value] if isinstance(value, list) and all(isinstance(name, str) for name in value) else []


def _labelled(config: Config, names: Sequence[str]) -> Config:
    """With labels for outputs of one score per class: Triton's classification extension numbers the values of an output."""
    labels = [info.name for info in config.outputs if names and config.dims(info) in ([len(names)], [1, len(names)])]
    return Config(**{**vars(config), "labels": labels})


def _check_warmup(config: Config) -> None:
    for info in config.inputs:
        if -1 in config.dims(info) or info.dtype == "string":
            raise InvalidArgument(
                f"input {info} has no fixed size; --warmup needs one, the batch aside; leave it out, or export the model so"
            )


def _external(source: Path, model: onnx.ModelProto) -> list[str]:
    files = sorted(external_files(model))
    for file in files:
        inside = not os.path.isabs(file) and ".." not in Path(file).parts
        if not inside or not (source.parent / file).is_file():
            raise InvalidModel(f"{source} keeps weights in {file!r}; wanted a file beside the model, in {source.parent}")
        if Path(file) == Path(FILES[ONNX]):
            raise InvalidModel(f"{source} keeps weights in {file!r}, the name that Triton gives the model; save it with another")
    return files


def _launch(here: Path, ops_dir: str | os.PathLike[str] | None, copy_ops: bool) -> Launch:
    if ops_dir is not None and not os.path.isabs(ops_dir):
        raise InvalidArgument(f"ops_dir is {str(ops_dir)!r}; wanted an absolute path: Triton looks nowhere else")
    libraries = ort_library_path().resolve().parent
    ops = Path(ops_dir) if ops_dir is not None else here if copy_ops else libraries
    return Launch(here, ops if copy_ops else here, libraries, ops)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder; take it back when the block raises and it is still empty."""
    made = not path.exists()
    if path.exists() and not path.is_dir():
        raise InvalidArgument(f"{path} is a file; wanted the folder of a repository")
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidArgument(f"cannot write {path}: {error.strerror}; check the folder's permissions") from error
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _scratch(repository: Path) -> Path:
    """Where folders grow until they are complete: not in the repository, where a server that polls takes every folder for a model."""
    parent = repository.parent
    return parent if parent.stat().st_dev == repository.stat().st_dev and os.access(parent, os.W_OK) else repository


def _keep_versions(old: Path, new: Path, version: int) -> None:
    """Bring other versions along; they share their bytes with the old folder where the file system can do that."""
    for folder in old.iterdir() if old.is_dir() else ():
        if folder.is_dir() and folder.name.isdigit() and folder.name != str(version):
            shutil.copytree(folder, new / folder.name, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _copy(source: Path, target: Path) -> None:
    """A library, replaced in one step: a running server may have the old one mapped."""
    fresh = target.with_name(f".{target.name}")
    shutil.copyfile(source, fresh)
    fresh.replace(target)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
