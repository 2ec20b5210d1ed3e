"""What of deploydcn works in this environment, and what to do about the rest."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from deploydcn import nvidia
from deploydcn.errors import DeployDcnError
from deploydcn.tensorrt_runtimes import OLDEST_TENSORRT, RUNTIMES, installed_module

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
    """Look at the environment; never raises, and imports nothing that is not needed."""
    system = Finding("system", "ok", f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    parts: tuple[Callable[[], Iterator[Finding]], ...] = (_packages, _onnxruntime, _library, _gpu, _tensorrt, _plugins, _providers)
    return [system, *(finding for part in parts for finding in _guarded(part))]


def _guarded(part: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """An examination that fails is a finding too."""
    try:
        yield from part()
    except Exception as error:
        yield Finding(part.__name__.strip("_"), "broken", f"cannot be examined: {type(error).__name__}: {error}", "report it")


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
    from deploydcn.libraries import cpu_isa, ort_library_path, register_ort_ops

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
        yield Finding("ONNX Runtime operators", "ok", f"{path.name} loads into onnxruntime {onnxruntime.__version__}; {cpu_isa()} kernels")
    except Exception as error:
        yield Finding("ONNX Runtime operators", "broken", f"{path.name} does not load: {error}", "pip install -U onnxruntime")


def _gpu() -> Iterator[Finding]:
    """Engines need all of it; everything else here works without."""
    driver = nvidia.driver()
    if driver is None:
        fix = "to run engines: a machine with an NVIDIA GPU and its driver; in containers, docker run --gpus all"
        yield Finding("NVIDIA driver", "missing", "libcuda.so.1 is not found", fix)
    else:
        cuda = ".".join(map(str, driver.cuda))
        yield Finding("NVIDIA driver", "ok", f"{driver.release or 'release unknown'}, for CUDA up to {cuda}")
    found, why = nvidia.gpus()
    for gpu in found:
        old = gpu.capability < nvidia.OLDEST_CAPABILITY
        fix = "use a GPU of compute capability 7.5 (Turing) or newer" if old else ""
        yield Finding("GPU", "broken" if old else "ok", f"{gpu}{'; our kernels need 7.5' if old else ''}", fix)
    if not found:
        yield Finding("GPU", "missing", why, "nvidia-smi tells what the driver sees" if driver else "")
    bindings = _version("cuda-bindings")
    if bindings is None:
        yield Finding("cuda-bindings", "missing", "not installed", "pip install 'deploydcn[gpu]'")
    elif driver is not None and int(bindings.split(".")[0]) > driver.cuda[0]:
        fix = f"update the NVIDIA driver, or pip install 'cuda-bindings<{driver.cuda[0] + 1}'"
        yield Finding("cuda-bindings", "broken", f"{bindings}; the driver runs CUDA up to {'.'.join(map(str, driver.cuda))}", fix)
    else:
        yield Finding("cuda-bindings", "ok", f"CUDA runtime {bindings}")


def _tensorrt() -> Iterator[Finding]:
    for runtime in RUNTIMES.values():
        title, module = runtime.title, installed_module(runtime)
        version = next(filter(None, map(_version, runtime.distributions)), None)
        if module is None:
            yield Finding(title, "missing", "not installed", f"pip install 'deploydcn[{runtime.extra}]'")
        elif runtime.name == "tensorrt" and version is not None and int(version.split(".")[0]) < OLDEST_TENSORRT:
            fix = f"pip install -U 'tensorrt>={OLDEST_TENSORRT}'"
            yield Finding(title, "broken", f"{version}; our plugins need {OLDEST_TENSORRT} or newer", fix)
        else:
            yield Finding(title, "ok", f"{version or 'version unknown'} (module {module})")


def _plugins() -> Iterator[Finding]:
    """The library loads by itself, without TensorRT, and lists its plugins."""
    from deploydcn.libraries import plugin_library_path

    subject = "TensorRT plugins"
    try:
        path = plugin_library_path()
    except DeployDcnError as error:
        what, _, fix = str(error).partition("; ")
        yield Finding(subject, "missing", what, fix)
        return
    try:
        library = ctypes.CDLL(str(path))
        absent = [name for name in ("getCreators", "setLoggerFinder") if not hasattr(library, name)]
    except OSError as error:
        yield Finding(subject, "broken", f"{path.name} does not load: {error}", "pip install -e . in the checkout")
        return
    if absent:
        yield Finding(subject, "broken", f"{path.name} lacks {', '.join(absent)}", "pip install -e . in the checkout")
        return
    count = ctypes.c_int32()
    library.getCreators.restype = ctypes.c_void_p
    library.getCreators(ctypes.byref(count))
    yield Finding(subject, "ok", f"{path.name} loads and has {count.value} plugins")


def _providers() -> Iterator[Finding]:
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    lacks_cuda = "CUDA" not in providers and bool(nvidia.gpus()[0])
    fix = "pip uninstall -y onnxruntime, then pip install 'deploydcn[gpu]'" if lacks_cuda else ""
    detail = f"{', '.join(providers)}{'; there is a GPU it does not use' if lacks_cuda else ''}"
    yield Finding("onnxruntime providers", "missing" if lacks_cuda else "ok", detail, fix)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
