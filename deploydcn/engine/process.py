"""Running the worker: its environment, its messages, and what its failures mean."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploydcn.engine.node_checks import OWN, STANDARD
from deploydcn.engine.report import BuildProgress
from deploydcn.engine.runtimes import link_missing_sonames
from deploydcn.errors import InternalError, InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.onnx_schema import DOMAIN
from deploydcn.tensorrt_runtimes import OLDEST_TENSORRT, Runtime, library_folders

LAST_LINES = 8
"""Lines of a crashed worker's output that its error message quotes."""

EXIT_SECONDS = 20
"""How long a worker that has said its last word may take to end."""

NOISE = ("cudaError 35", "CUDA driver version is insufficient")
"""TensorRT-RTX complains of the missing GPU behind every other error; that is never the cause."""


@dataclass
class Worker:
    """One worker process. folder: an empty scratch folder. log: called with (severity, text) of TensorRT's messages.
    timeout: seconds until it is ended."""

    runtime: Runtime
    folder: Path
    progress: Callable[[BuildProgress], None] | None = None
    log: Callable[[str, str], None] | None = None
    timeout: float | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)
    phase: str = "starting"

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Build; the worker's result. The worker is ended whatever happens here, Ctrl-C included.

        Raises:
            UserError: TensorRT refused, crashed or took too long.
        """
        path = self.folder / "request.json"
        path.write_text(json.dumps(request))
        read, write = os.pipe()
        output = self.folder / "output.txt"
        try:
            with output.open("wb") as file:
                child = subprocess.Popen(
                    [sys.executable, "-W", "ignore", "-m", "deploydcn.engine.worker", str(path), str(write)],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env=self._environment(),
                    pass_fds=(write,),
                    start_new_session=True,  # Ctrl-C reaches this process only, which then ends the child
                )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            child.kill()  # which ends its messages too

        clock = threading.Timer(threading.TIMEOUT_MAX if self.timeout is None else self.timeout, expire)
        clock.daemon = True
        clock.start()
        try:
            with os.fdopen(read) as pipe:
                answer = self._listen(pipe)
            clock.cancel()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(EXIT_SECONDS)
        finally:
            clock.cancel()
            if child.poll() is None:
                child.kill()
                child.wait()
        if "result" in answer:
            result: dict[str, Any] = answer["result"]
            return result
        if "failure" in answer:
            raise self._explain(answer["failure"])
        if expired.is_set():
            said = "; ".join(self.errors()[:2])
            raise RuntimeFailure(
                f"{self.runtime.title} was still {self._doing()} after {self.timeout:g} s and was ended; allow more time, give it fewer or "
                f"narrower profiles, or build part of the model{f'; it had said: {said}' if said else ''}"
            )
        raise self._crashed(child.returncode, output)

    def _environment(self) -> dict[str, str]:
        """This process's import path, and library names that the wheels lack."""
        links = self.folder / "lib"
        links.mkdir()
        link_missing_sonames(self.runtime, links)
        libraries = [str(links), *map(str, library_folders(self.runtime)), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(folder for folder in libraries if folder),
            "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path),
        }

    def _listen(self, pipe: Iterator[str]) -> dict[str, Any]:
        """Handle the worker's messages; its last one, or nothing when it ended without."""
        for line in pipe:
            try:
                event = json.loads(line)
            except ValueError:  # cut off by a crash
                break
            if "log" in event:
                severity, text = event["log"]
                self.messages.append((severity, text))
                if self.log is not None:
                    self.log(severity, text)
            elif "progress" in event:
                self.phase, fraction = event["progress"]
                if self.progress is not None:
                    self.progress(BuildProgress(self.phase, fraction))
            else:
                answer: dict[str, Any] = event
                return answer
        return {}

    # ------------------------------------------------------------------------------------------------------- failures
    def errors(self) -> list[str]:
        """TensorRT's error messages, without repeats and noise."""
        texts = [text.strip() for severity, text in self.messages if severity in ("error", "internal")]
        telling = [text for text in texts if not any(noise in text for noise in NOISE)]
        return list(dict.fromkeys(telling or texts))

    def warnings(self) -> list[str]:
        """TensorRT's warnings, without repeats."""
        return list(dict.fromkeys(text.strip() for severity, text in self.messages if severity == "warning"))

    def _explain(self, failure: Mapping[str, Any]) -> UserError:
        title, kind = self.runtime.title, failure["kind"]
        if kind == "parse":
            return self._explain_parse(failure["errors"])
        if kind == "build":
            reason = self._own_words() or "; ".join(self.errors()[:4]) or "it gave no reason; try --verbosity verbose"
            if any("workspace limit" in text for _, text in self.messages):
                layer = ", ".join(self._beyond_workspace()) or "a layer"
                reason += f"; {layer} needs more scratch memory than the workspace limit allows: raise it, or leave it out"
            return RuntimeFailure(f"{title} cannot build an engine from this model: {reason}")
        if kind == "library":
            reason = failure["reason"] or "; ".join(self.errors()[:2]) or "it holds no TensorRT plugins, or such as are registered already"
            return RuntimeFailure(f"{title} cannot load the plugin library {failure['path']}: {reason}")
        if kind == "import":
            return MissingDependency(f"{title} is installed but does not import: {failure['message']}")
        if kind == "version":
            return MissingDependency(
                f"TensorRT {failure['version']} is too old; wanted {OLDEST_TENSORRT} or newer: pip install -U tensorrt"
            )
        if kind == "capability":
            digits = ", ".join(name.removeprefix("SM") for name in failure["known"])
            got = ", ".join(name.removeprefix("SM") for name in failure["names"])
            advice = "leave it out to build for all from 8.0 on"
            return InvalidArgument(f"compute capability {got}: {title} {failure['version']} builds for {digits}; {advice}")
        if kind == "timing_cache":
            return InvalidArgument(
                f"timing cache {failure['path']} was not made by this version on this GPU; delete it, or name another file"
            )
        if kind == "shape_input":
            return InvalidModel(
                f"input {', '.join(map(repr, failure['names']))} holds sizes that other tensors' shapes depend on; engines here are built "
                "for ranges of shapes, not of values; make it a constant of the model, or derive the sizes from another input's shape"
            )
        if kind == "file":
            return RuntimeFailure(f"the build process cannot read or write a file: {failure['message']}")
        raise InternalError(f"the build process failed unexpectedly: {failure.get('message', failure)}")

    def _beyond_workspace(self) -> list[str]:
        """Nodes whose plugin needs more than the workspace, where TensorRT names them; of its own layers it names none."""
        found = [re.match(r"(.*): Skip format combination, exceeding workspace limit", text.strip()) for _, text in self.messages]
        return list(dict.fromkeys(f"node {match.group(1)!r}" for match in found if match))

    def _own_words(self) -> str:
        """What our plugins said: the cause, where TensorRT only passes a return code on."""
        return "; ".join(text.partition("deploydcn: ")[2] for text in self.errors() if "deploydcn: " in text)

    def _explain_parse(self, errors: list[Mapping[str, str]]) -> UserError:
        title = self.runtime.title
        own = self._own_words()
        if own:
            return InvalidModel(own)
        sentences = []
        for error in errors[:4]:
            where = f"node {error['node']!r} ({error['operator']})" if error["operator"] else "the model"
            if re.search("plugin (registry|creator version)", error["text"]):
                sentences.append(
                    f"{where}: {title} has no implementation of this operator; export the model without it, and run it afterwards"
                )
            elif "Plugin not found" in error["text"] or "No importer" in error["text"]:
                ours = ", ".join([*(f"{DOMAIN}::{name}" for name, spec in OWN.items() if spec.gpu), *STANDARD])
                sentences.append(
                    f"{where}: neither {title} nor a loaded plugin has this operator; deploydcn brings {ours}; name the library that has "
                    "it (--plugin), or export the model without it"
                )
            else:
                lines = [line.strip() for line in error["text"].splitlines() if line.strip() and not any(noise in line for noise in NOISE)]
                sentences.append(f"{where}: {' '.join(lines[-2:]) or 'no reason given'}")
        reason = "; ".join(dict.fromkeys(sentences)) or "; ".join(self.errors()[:4]) or "it gave no reason"
        return InvalidModel(f"{title} cannot read this model: {reason}")

    def _crashed(self, code: int, output: Path) -> UserError:
        printed = [line.strip() for line in output.read_text(errors="replace").splitlines() if line.strip()]
        said = [f"[{severity}] {text.strip()}" for severity, text in self.messages]
        last = deque([*said, *printed], maxlen=LAST_LINES)
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        advice = " (out of memory, most likely)" if code == -signal.SIGKILL else ""
        words = " | ".join(last) or "it said nothing"
        return RuntimeFailure(f"{self.runtime.title} {how} while {self._doing()}{advice}; its last lines: {words}")

    def _doing(self) -> str:
        return {"starting": "starting", "Parsing": "parsing the model"}.get(self.phase, f"building ({self.phase})")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
