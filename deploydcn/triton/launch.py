"""How a server is started on a repository: the commands, and the README in it that has them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from deploydcn.libraries import PLUGIN_LIBRARY

README = "README.md"
TITLE = "Models for Triton Inference Server, written by deploydcn"
PORTS = (8000, 8001, 8002)


@dataclass(frozen=True)
class Launch:
    """repository: the folder here; served: where the server sees it. libraries: the folder of deploydcn's libraries here; ops: where the
    server sees that."""

    repository: Path
    served: Path
    libraries: Path
    ops: Path

    def command(self) -> str:
        """For a machine that has a tritonserver."""
        plugins = [f"--backend-config=tensorrt,plugins={self.ops / PLUGIN_LIBRARY}"] if self._engines() else []
        return shlex.join(["tritonserver", f"--model-repository={self.served}", *plugins])

    def container(self) -> str:
        """The same in a container, which sees folders under the names that configurations and command have for them."""
        mounts = {self.served: self.repository}
        if self.ops != self.served and (self._engines() or "op_library_filename" in self._configs()):
            mounts[self.ops] = self.libraries
        options = [part for inside, here in mounts.items() for part in ("-v", f"{here}:{inside}:ro")]
        gpus = ["--gpus=all"] if "KIND_GPU" in self._configs() else []
        ports = [part for port in PORTS for part in ("-p", f"127.0.0.1:{port}:{port}")]
        return f'{shlex.join(["docker", "run", "--rm", *gpus, *ports, *options])} "$TRITON_IMAGE" {self.command()}'

    def write_readme(self) -> None:
        """README.md in the repository, unless it has one of somebody else."""
        path = self.repository / README
        if path.exists() and not path.read_text(errors="replace").startswith(TITLE):
            return
        names = ", ".join(sorted(config.parent.name for config in self.repository.glob("*/config.pbtxt")))
        lines = [f"{TITLE}: {names}.", f"Start: `{self.command()}`", f"In a container, TRITON_IMAGE being Triton's: `{self.container()}`"]
        fresh = path.with_name(f".{README}")  # a folder, even for a moment, would be a model to a server that polls
        fresh.write_text("\n\n".join(lines) + "\n")
        fresh.replace(path)

    def _engines(self) -> bool:
        return any(self.repository.glob("*/*/model.plan"))

    def _configs(self) -> str:
        """All configurations, without comments."""
        texts = (path.read_text(errors="replace") for path in self.repository.glob("*/config.pbtxt"))
        return re.sub(r"#.*", "", "\n".join(texts))
