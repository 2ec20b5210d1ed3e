"""What of deploydcn works in this environment, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from deploydcn.errors import DeployDcnError

PACKAGES = {
    "numpy": "",
    "onnx": "",
    "torch": "export",
    "torchvision": "export",
    "onnxscript": "export",
    "onnxruntime": "cpu",
}


@dataclass(frozen=True)
class Finding:
    """One line of the examination. state: "ok", "missing" (an optional part) or "broken"."""

    subject: str
    state: str
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at the environment; imports nothing that is not needed."""
    system = Finding("system", "ok", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    return [system, *_packages(), *_onnxruntime(), *_library()]


def _packages() -> Iterator[Finding]:
    for package, extra in PACKAGES.items():
        version = _version(package) or (_version("onnxruntime-gpu") if package == "onnxruntime" else None)
        if version is not None:
            yield Finding(package, "ok", version)
        else:
            yield Finding(package, "missing", "not installed", f"pip install 'deploydcn[{extra}]'")


def _onnxruntime() -> Iterator[Finding]:
    """The CPU and GPU wheels share one folder: whichever was installed last has overwritten the other."""
    cpu, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    if cpu and gpu:
        fix = "pip uninstall -y onnxruntime onnxruntime-gpu, then install one of the extras cpu and gpu"
        yield Finding("onnxruntime", "broken", f"onnxruntime {cpu} and onnxruntime-gpu {gpu} are installed over each other", fix)
    elif (cpu or gpu) and importlib.util.find_spec("onnxruntime") is None:
        fix = f"pip install --force-reinstall onnxruntime{'-gpu' if gpu else ''}"
        yield Finding("onnxruntime", "broken", "its files are gone, as after uninstalling the other wheel", fix)


def _library() -> Iterator[Finding]:
    from deploydcn.libraries import ort_library_path, register_ort_ops

    try:
        path = ort_library_path()
    except DeployDcnError as error:
        yield Finding("ONNX Runtime operators", "broken", str(error), "pip install -e . in the checkout")
        return
    if importlib.util.find_spec("onnxruntime") is None:
        yield Finding(
            "ONNX Runtime operators", "missing", f"{path.name} is built; no onnxruntime to load it", "pip install 'deploydcn[cpu]'"
        )
        return
    try:
        import onnxruntime

        register_ort_ops(onnxruntime.SessionOptions())
        yield Finding("ONNX Runtime operators", "ok", f"{path.name} loads into onnxruntime {onnxruntime.__version__}")
    except Exception as error:
        yield Finding("ONNX Runtime operators", "broken", f"{path.name} does not load: {error}", "pip install -U onnxruntime")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
