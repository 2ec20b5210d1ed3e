"""Build the C++ kernel driver (optionally with sanitizers) and run cases through it."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.spec import OpSpec
from deploydcn.testing import native
from deploydcn.testing.plugins import DTYPES, tensorrt_inputs
from tests.conformance.backends import numpy_dtype

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DriverCase:
    spec: OpSpec
    inputs: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]
    types: Mapping[str, str]
    constants: frozenset[str] = frozenset({"W"})
    claimed_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # planted bug: shapes that lie


def build_target(target: str, sanitizers: str = "") -> Path:
    """Build a CMake target of tests/cpp, incrementally; return the folder its file is in."""
    return native.build_target(target, f"driver-{variant(sanitizers)}", "DEPLOYDCN_CUDA=OFF", *options(sanitizers)) / "tests" / "cpp"


def variant(sanitizers: str) -> str:
    return sanitizers.replace(",", "-") or "plain"


def options(sanitizers: str) -> list[str]:
    kind = "RelWithDebInfo" if sanitizers else "Release"
    return ["DEPLOYDCN_TESTS=ON", f"DEPLOYDCN_SANITIZE={sanitizers}", f"CMAKE_BUILD_TYPE={kind}"]


def build_driver(sanitizers: str = "") -> Path:
    """The kernel driver's path."""
    return build_target("kernel_driver", sanitizers) / "kernel_driver"


def run_driver(
    cases: Sequence[DriverCase],
    *,
    sanitizers: str = "",
    threads: int = 1,
    callers: int = 1,
    isa: str = "",
    products: str = "",
    plant_shared_output: bool = False,
) -> list[list[np.ndarray] | str]:
    """Each case's outputs, or its error message; products: "bfloat16", "precise" or as usual. Fails when the driver crashes or a
    sanitizer reports."""
    environment = {"DEPLOYDCN_CPU_ISA": isa}
    command = [str(build_driver(sanitizers)), str(threads), str(callers), *(["share-output"] if plant_shared_output else [])]
    command += [products] if products else []
    return run_cases(command, cases, environment)


def run_plugin_driver(
    cases: Sequence[DriverCase], *, sanitizers: str = "", mode: str = "plugin", engine: str = "source", schedule: str = "seq", seed: int = 1
) -> list[list[np.ndarray] | str]:
    """The same on emulated GPU memory. mode: "plugin", "kernel" alone in linear layout, or the "naive" kernel."""
    ptx = "ON" if engine != "source" else "OFF"
    definitions = ("DEPLOYDCN_CUDA=ON", "DEPLOYDCN_EMULATION=ON", f"DEPLOYDCN_EMULATION_PTX={ptx}", *options(sanitizers))
    if mode == "plugin":
        cases = [replace(case, inputs=tensorrt_inputs(case.spec, case.inputs)) for case in cases]
    folder = native.build_target("plugin_driver", f"emulation-{variant(sanitizers)}", *definitions)
    command = [str(folder / "plugins" / "harness" / "plugin_driver"), mode, engine, schedule, str(seed)]
    return run_cases(command, cases, {})


def run_cases(command: Sequence[str], cases: Sequence[DriverCase], environment: Mapping[str, str]) -> list[list[np.ndarray] | str]:
    """Each case's outputs, or its error message. Fails when the driver crashes or a sanitizer reports."""
    data = struct.pack("<I", len(cases)) + b"".join(map(_encode, cases))
    sanitizers = {"ASAN_OPTIONS": "detect_leaks=1", "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run(command, input=data, capture_output=True, env={**os.environ, **sanitizers, **environment})
    assert done.returncode == 0, f"driver exit {done.returncode}: {done.stderr.decode()[-6000:]}"
    assert not done.stderr, done.stderr.decode()[-6000:]
    return _decode(cases, done.stdout)


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def _encode(case: DriverCase) -> bytes:
    parts = [_text(case.spec.name), struct.pack("<I", len(case.attributes))]
    for name, value in case.attributes.items():
        parts.append(_text(name))
        if isinstance(value, str):
            parts.append(b"s" + _text(value))
        elif isinstance(value, float):
            parts.append(b"f" + struct.pack("<d", value))
        else:
            items = [value] if isinstance(value, int) else list(value)
            parts.append(b"i" + struct.pack(f"<I{len(items)}q", len(items), *items))
    parts.append(struct.pack("<I", len(case.types)) + bytes(DTYPES[numpy_dtype(name)] for name in case.types.values()))
    parts.append(struct.pack("<I", len(case.spec.inputs)))
    for tensor in case.spec.inputs:
        array = case.inputs.get(tensor.name)
        parts.append(bytes([array is not None, tensor.name in case.constants]))
        if array is not None:
            array = np.asarray(array, numpy_dtype(case.types[tensor.type_param]), order="C")
            shape = case.claimed_shapes.get(tensor.name, array.shape)
            header = struct.pack(f"<BI{array.ndim}qQ", DTYPES[array.dtype], array.ndim, *shape, array.nbytes)
            parts += [header, array.tobytes()]
    return b"".join(parts)


def _decode(cases: Sequence[DriverCase], data: bytes) -> list[list[np.ndarray] | str]:
    results: list[list[np.ndarray] | str] = []
    at = 0
    for case in cases:
        status, count = struct.unpack_from("<BI", data, at)
        at += 5
        if status:
            results.append(data[at : at + count].decode())
            at += count
            continue
        assert count == len(case.spec.outputs)
        outputs = []
        for tensor in case.spec.outputs:
            (rank,) = struct.unpack_from("<I", data, at)
            shape = struct.unpack_from(f"<{rank}q", data, at + 4)
            at += 4 + 8 * rank
            dtype = numpy_dtype(case.types[tensor.type_param])
            elements = int(np.prod(shape))
            outputs.append(np.frombuffer(data, dtype, elements, at).reshape(shape))
            at += elements * dtype.itemsize
        results.append(outputs)
    assert at == len(data)
    return results
