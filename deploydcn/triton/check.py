"""Checking a repository: every configuration against its model, without stopping at the first mistake."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from deploydcn.errors import InvalidArgument, UserError
from deploydcn.runners.tensorrt_api import read_engine
from deploydcn.tensorrt_runtimes import RUNTIMES
from deploydcn.triton import layout, tensors
from deploydcn.triton.config_file import ConfigFile, parse
from deploydcn.triton.report import Problem, TritonCheck
from deploydcn.triton.repository import CONFIG, FILES
from deploydcn.triton.server import load_on_server
from deploydcn.triton.signature import ONNX, TENSORRT, Signature, engine_signature, onnx_signature

PLATFORMS = {"onnxruntime_onnx": ONNX, "tensorrt_plan": TENSORRT}
"""The older way to name a backend."""


def check_triton_repository(repository: str | os.PathLike[str], *, tritonserver: str | os.PathLike[str] | None = None) -> TritonCheck:
    """Check every model of a repository for Triton Inference Server; report all that is wrong.

    A configuration is parsed, its structure checked, and its inputs, outputs and batches compared with the model file as Triton's backend
    does. An ONNX file is opened with the libraries that the configuration names, and run at batches of 1 and max_batch_size. Engines are
    read where there is a GPU. Models of other backends are checked for their structure.

    Args:
        repository: the folder that Triton's --model-repository names.
        tritonserver: the server's program, to load the repository with; the one on PATH by default, if there is one.

    Raises:
        InvalidArgument: no such folder, or no such program.
        MissingDependency: tritonclient or onnxruntime is not installed.
    """
    path = Path(repository)
    if not path.is_dir():
        raise InvalidArgument(f"{path} {'is a file' if path.exists() else 'does not exist'}; wanted the folder of a model repository")
    program = str(tritonserver) if tritonserver is not None else "tritonserver"
    server = shutil.which(program)
    if server is None and tritonserver is not None:
        raise InvalidArgument(f"{program} is no program that can be run; wanted the path of tritonserver")
    parse("")  # without its packages a check would find nothing
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    problems, notes = [], []
    if not folders:
        problems.append(Problem(path, None, "holds no model; wanted a folder per model with a config.pbtxt in it"))
    for folder in folders:
        model = ModelFolder(folder)
        model.check()
        problems += model.problems
        notes += model.notes
    said = ""
    if server is None:
        notes.append("no tritonserver on PATH: the repository was not loaded by a server")
    elif folders:
        said, refused = load_on_server(Path(server), path, [folder.name for folder in folders])
        problems += refused
    return TritonCheck(path, tuple(folder.name for folder in folders), tuple(problems), tuple(notes), said)


@dataclass
class ModelFolder:
    """A model's folder while it is checked."""

    path: Path
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    config: ConfigFile = field(init=False)

    def check(self) -> None:
        """Fill `problems` and `notes`."""
        file = self.path / CONFIG
        if not file.is_file():
            self.report(self.path, f"holds no {CONFIG}; Triton makes one up for some backends; write one, to know what it says")
            return
        try:
            self.config = parse(file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            self.report(file, f"is not UTF-8 text: {error}")
            return
        for line, mistake in self.config.mistakes:
            self.problems.append(Problem(file, line, mistake))
        if not self.config.whole:
            return
        layout.check(self)
        versions = layout.versions(self)
        backend = self.backend()
        if backend not in FILES:
            self.notes.append(f"{self.path.name}: models of backend {backend!r} are not opened, only their structure is checked")
            return
        libraries = layout.libraries(self)
        for version in versions:
            model = version / (self.config.message.default_model_filename or FILES[backend])
            if not model.is_file():
                self.report(model, "does not exist" if not model.exists() else "is a folder; wanted a file")
                continue
            signature = self._signature(model, backend, libraries)
            if signature is not None:
                tensors.check(self, signature, model)

    def backend(self) -> str:
        """ONNX, TENSORRT, or the name of another."""
        message = self.config.message
        return str(message.backend or PLATFORMS.get(message.platform, message.platform))

    def report(self, path: Path, message: str, *, warning: bool = False) -> None:
        self.problems.append(Problem(path, None, message, warning))

    def report_field(self, message: str, *field: str | int, warning: bool = False) -> None:
        """A problem at a field of the configuration, as in report_field("...", "input", 0, "dims")."""
        self.problems.append(Problem(self.path / CONFIG, self.config.line(*field), message, warning))

    def _signature(self, model: Path, backend: str, libraries: list[Path] | None) -> Signature | None:
        """What the model says of itself; None, with a problem or a note, when it cannot be asked."""
        if backend == TENSORRT:
            try:
                read_engine(RUNTIMES["tensorrt"], model)
            except UserError as error:
                self.report(model, str(error))
                return None
            try:
                return engine_signature(model)
            except UserError as error:
                self.notes.append(f"{model}: not read: {error.__cause__ or error}")
                return None
        if libraries is None:  # said already
            return None
        batch = self.config.message.max_batch_size
        try:
            return onnx_signature(
                model, libraries, batches=sorted({1, batch}) if batch > 0 else [1], sizes=tensors.sizes(self.config.message)
            )
        except UserError as error:
            self.report(model, str(error))
            return None
