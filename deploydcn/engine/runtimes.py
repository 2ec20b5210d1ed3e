"""What differs between building for TensorRT and for TensorRT-RTX, and between their versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploydcn.errors import InvalidArgument, MissingDependency
from deploydcn.tensorrt_runtimes import OLDEST_TENSORRT, RUNTIMES, Runtime, installed_module, library_folders


def runtime_named(name: str) -> Runtime:
    """The runtime of this name.

    Raises:
        InvalidArgument: there is none.
    """
    if not isinstance(name, str) or name not in RUNTIMES:
        raise InvalidArgument(f"runtime is {name!r}; wanted one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]


def find_module(runtime: Runtime) -> str:
    """The Python module to import for a runtime, without importing it.

    Raises:
        MissingDependency: none is installed.
    """
    if module := installed_module(runtime):
        return module
    other = next(candidate for candidate in RUNTIMES.values() if candidate is not runtime)
    raise MissingDependency(
        f"{runtime.title} is not installed (no Python module {' or '.join(runtime.modules)}); "
        f"pip install 'deploydcn[{runtime.extra}]', or build for runtime {other.name!r}"
    )


def link_missing_sonames(runtime: Runtime, folder: Path) -> None:
    """Put links `libX.so` -> `.../libX.so.1` into `folder` for libraries that a wheel has with a version number only.

    TensorRT-RTX's ONNX parser opens `libtensorrt_rtx.so` by that name when it meets a plugin, and ends the process when
    there is none; its wheels have `libtensorrt_rtx.so.1` only. With `folder` on LD_LIBRARY_PATH the parser finds the
    library that is loaded already.
    """
    for libraries in library_folders(runtime):
        for library in sorted(libraries.glob("lib*.so.*")):
            plain = f"{library.name.partition('.so.')[0]}.so"
            if not (libraries / plain).exists() and not (folder / plain).is_symlink():
                (folder / plain).symlink_to(library)


def capability_names(runtime: Runtime, capabilities: Sequence[int | str]) -> tuple[str, ...]:
    """["80", 8.6, "sm_89"] -> ("SM80", "SM86", "SM89").

    Raises:
        InvalidArgument: not a compute capability, given twice, or a runtime that builds for the present GPU only.
    """
    if isinstance(capabilities, str | int | float):
        raise InvalidArgument(f"compute_capabilities is {capabilities!r}; wanted a list, as in [{str(capabilities)!r}]")
    if capabilities and not runtime.compute_capabilities:
        raise InvalidArgument(
            f"{runtime.title} builds for the GPU it runs on; leave compute capabilities out, or build for runtime 'tensorrt-rtx'"
        )
    names = []
    for capability in capabilities:
        digits = str(capability).lower().removeprefix("sm").removeprefix("_").replace(".", "")
        if not (digits.isdecimal() and digits.isascii() and 2 <= len(digits) <= 3):
            raise InvalidArgument(f"compute capability {capability!r}; wanted a number, as in 86 or 8.6")
        names.append(f"SM{digits}")
    if len(set(names)) != len(names):
        raise InvalidArgument(f"compute capabilities {', '.join(map(str, capabilities))} name one twice")
    return tuple(names)


# ------------------------------------------------------------------------------------------------ in the worker process
def major_version(trt: Any) -> int:
    """10 for TensorRT 10.14."""
    return int(str(trt.__version__).split(".")[0])


def network_flags(runtime: Runtime, trt: Any) -> int:
    """Flags for a strongly typed network: TensorRT 10 has to be asked for one; later versions and TensorRT-RTX have no other."""
    if runtime.name == "tensorrt" and major_version(trt) == OLDEST_TENSORRT:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    return 0


def set_tf32(trt: Any, config: Any, allowed: bool) -> None:
    """Whether float32 layers of TensorRT's own may round products to TF32, as they do by default."""
    (config.set_flag if allowed else config.clear_flag)(trt.BuilderFlag.TF32)


def supported_capabilities(trt: Any) -> list[str]:
    """Names of the compute capabilities that this version can build for."""
    return [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]


def set_capabilities(trt: Any, config: Any, names: Sequence[str]) -> None:
    """Build for these GPUs. Without names TensorRT-RTX builds for all from 8.0 (Ampere) on; CURRENT needs a GPU."""
    if names:
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
