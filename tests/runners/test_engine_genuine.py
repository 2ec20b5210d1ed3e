"""The stand-ins against the genuine libraries, as far as those go without a GPU: names, arguments, and what they do where there is none."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import deploydcn
from deploydcn.ops import GPU_OPS
from deploydcn.runners.cuda_memory import FIXES
from tests.runners.fake_cuda import FakeCuda, Status, cudaMemcpyKind, cudaStreamCaptureMode
from tests.runners.fake_tensorrt import ICudaEngine, IExecutionContext, IPluginRegistry, Runtime
from tests.tensorrt.runtimes import RUNTIMES, runtime_environment

OPTIONAL_IN_LEAN = {"get_tensor_format"}  # the lean runtime's bindings have no TensorFormat


def public(kind: type) -> dict[str, int]:
    """Method -> number of arguments; -1 for an attribute."""
    return {
        name: len(inspect.signature(member).parameters) - 1 if inspect.isfunction(member) else -1
        for name, member in vars(kind).items()
        if not name.startswith("_")
    }


# --------------------------------------------------------------------------------------------------------------- cuda
def cudart() -> Any:
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings are not installed")
    from cuda.bindings import runtime

    if runtime.cudaGetDeviceCount()[1]:
        pytest.skip("there is a GPU: calls with made-up addresses are for machines without one")
    return runtime


def test_cuda_bindings_take_what_we_pass() -> None:
    """Arguments are converted before the driver is missed: a wrong number or type of them is a TypeError."""
    genuine = cudart()
    kind, mode = genuine.cudaMemcpyKind, genuine.cudaStreamCaptureMode
    stream, event = genuine.cudaStream_t(0x1230), genuine.cudaEvent_t(0x1230)
    graph, executable = genuine.cudaGraph_t(0x1230), genuine.cudaGraphExec_t(0x1230)
    assert int(stream) == 0x1230
    calls: dict[str, tuple[Any, ...]] = {
        "cudaGetDevice": (),
        "cudaSetDevice": (0,),
        "cudaPointerGetAttributes": (0x1000,),
        "cudaMalloc": (16,),
        "cudaHostAlloc": (16, 0),
        "cudaFree": (0x1000,),
        "cudaFreeHost": (0x1000,),
        "cudaMemcpyAsync": (0x1000, 0x2000, 16, kind.cudaMemcpyHostToDevice, 0x1230),
        "cudaStreamCreateWithFlags": (1,),
        "cudaStreamDestroy": (stream,),
        "cudaStreamSynchronize": (0x1230,),
        "cudaStreamWaitEvent": (0x1230, event, 0),
        "cudaEventCreateWithFlags": (2,),
        "cudaEventDestroy": (event,),
        "cudaEventRecord": (event, 0x1230),
        "cudaEventSynchronize": (event,),
        "cudaEventElapsedTime": (event, event),
        "cudaStreamBeginCapture": (0x1230, mode.cudaStreamCaptureModeThreadLocal),
        "cudaStreamEndCapture": (0x1230,),
        "cudaGraphInstantiate": (graph, 0),
        "cudaGraphLaunch": (executable, 0x1230),
        "cudaGraphDestroy": (graph,),
        "cudaGraphExecDestroy": (executable,),
    }
    for name, arguments in calls.items():
        assert int(getattr(genuine, name)(*arguments)[0]) == 35, name
        assert len(arguments) == public(FakeCuda)[name], name
    functions = {name for name, count in public(FakeCuda).items() if name.startswith("cuda") and count >= 0}
    assert functions == {*calls, "cudaGetDeviceCount", "cudaGetErrorString"}
    assert genuine.cudaGetErrorString(genuine.cudaError_t(35))[1] == FakeCuda().cudaGetErrorString(Status(35))[1]
    for fake, real in ((cudaMemcpyKind, kind), (cudaStreamCaptureMode, mode)):
        assert all(int(getattr(real, member.name)) == member for member in fake)


def test_errors_with_a_fix_exist() -> None:
    genuine = cudart()
    assert all(genuine.cudaGetErrorName(genuine.cudaError_t(code))[1].startswith(b"cudaError") for code in FIXES)


@pytest.mark.backend("rtx")
def test_an_engine_of_rtx_without_a_gpu(tmp_path: Path) -> None:
    """The whole way, with nothing faked."""
    cudart()
    (tmp_path / "m.engine").write_bytes(b"vtrt" + bytes(1000))
    with pytest.raises(deploydcn.RuntimeFailure, match=r"^CUDA: .*error 35\); install or update the NVIDIA driver"):
        deploydcn.load(tmp_path / "m.engine", "tensorrt-rtx")


# ----------------------------------------------------------------------------------------------------------- tensorrt
PROGRAM = """
import importlib, json, re, sys, pathlib
module, folder, backend = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
trt = importlib.import_module(module)
sys.modules["tensorrt" if backend == "tensorrt" else "tensorrt_rtx"] = trt

def arguments(kind, name):
    member = getattr(getattr(trt, kind), name, None)
    if member is None:
        return None
    signatures = re.findall(rf"{name}\\(self: [^,)]*((?:, [^()]*(?:\\([^()]*\\))?[^()]*)*)\\) ->", member.__doc__ or "")
    return [len(re.findall(r", \\w+:", text)) for text in signatures]

facts = {"version": trt.__version__}
facts["arguments"] = {kind: {name: arguments(kind, name) for name in names} for kind, names in json.loads(sys.argv[4]).items()}
facts["names"] = [name for name in ("ILogger", "IOutputAllocator", "TensorIOMode", "TensorLocation", "DataType") if not hasattr(trt, name)]
facts["dtypes"] = list(trt.DataType.__members__)
facts["severities"] = {name: int(value) for name, value in trt.ILogger.Severity.__members__.items()}

from deploydcn.runners import tensorrt_api
from tests.runners.fake_cuda import FakeCuda
cuda = FakeCuda()  # the driver seems to work; TensorRT finds none
for name in ("cuda", "cuda.bindings"):
    sys.modules[name] = type(sys)(name)
sys.modules["cuda.bindings.runtime"] = cuda
runtime = tensorrt_api.RUNTIMES[backend]
broken = folder / "broken.so"
broken.write_text("no library")
def attempt(call):
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
facts["load"] = attempt(lambda: tensorrt_api.load_engine(runtime, folder / "m.engine"))
facts["broken"] = attempt(lambda: tensorrt_api.load_plugins(trt, [broken]))
facts["plugins"] = [attempt(lambda: tensorrt_api.load_plugins(trt, [])) for _ in range(2)]
tensorrt_api._loaded.clear()  # as if somebody else had loaded it
facts["again"] = attempt(lambda: tensorrt_api.load_plugins(trt, []))
loaded = tensorrt_api.LoadedEngine(trt, None, None, tensorrt_api.Cuda(), "label")
allocator = tensorrt_api.output_allocator(loaded)
facts["allocator"] = [isinstance(allocator, trt.IOutputAllocator), allocator.reallocate_output_async("y", 0, 16, 256, 0) > 0]
facts["creators"] = sorted(creator.name for creator in trt.get_plugin_registry().all_creators if creator.plugin_namespace == "deploydcn")
print(json.dumps(facts))
"""


@pytest.mark.slow
@pytest.mark.backend("rtx")
@pytest.mark.parametrize("name", RUNTIMES)
def test_genuine_runtimes_have_what_we_use_and_fail_in_a_sentence(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec("cuda.bindings") is not None:
        cudart()
    backend = "tensorrt-rtx" if "rtx" in name else "tensorrt"
    (tmp_path / "m.engine").write_bytes((b"vtrt" if "rtx" in name else b"ftrt") + bytes(1000))
    kinds = (Runtime, ICudaEngine, IExecutionContext, IPluginRegistry)
    wanted = {kind.__name__: {name: count for name, count in public(kind).items() if count >= 0} for kind in kinds}
    attributes = {
        "Runtime": ["engine_host_code_allowed"],
        "ICudaEngine": ["num_io_tensors", "num_optimization_profiles"],
        "IExecutionContext": ["active_optimization_profile"],
        "IPluginRegistry": ["all_creators"],
    }
    names = {kind: [*methods, *attributes[kind]] for kind, methods in wanted.items()}
    command = [sys.executable, "-c", PROGRAM, RUNTIMES[name].module, str(tmp_path), backend, json.dumps(names)]
    done = subprocess.run(command, env=runtime_environment(name), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]  # a segmentation fault is -11
    facts = json.loads(done.stdout.splitlines()[-1])
    for kind, methods in facts["arguments"].items():
        for method, counts in methods.items():
            assert counts is not None, f"{kind}.{method} is not in {name}"
            if method in wanted[kind]:
                assert wanted[kind][method] in counts or wanted[kind][method] - 1 in counts, (kind, method, counts)
    assert facts["names"] == []
    assert {"FLOAT", "HALF", "BF16", "INT8", "INT32", "INT64", "UINT8", "BOOL", "FP8"} <= set(facts["dtypes"])
    assert facts["severities"]["ERROR"] == 1
    kind = "refuses m\\.engine" if "rtx" in name else "does not start"
    load = rf"RuntimeFailure: TensorRT(-RTX)? \S+ {kind}: .*[eE]rror:? 35.*; install or update the NVIDIA driver"
    assert re.match(load, facts["load"]), facts["load"]
    assert "::" not in facts["load"].partition(";")[0]
    assert re.match(r"RuntimeFailure: plugin library \S+ does not load: .*(too short|invalid ELF header)", facts["broken"]), facts["broken"]
    assert facts["plugins"] == ["''", "''"]
    assert facts["again"] == "''"
    assert facts["allocator"] == [True, True]
    assert facts["creators"] == sorted(op.spec.name for op in GPU_OPS)


def test_messages_lose_their_places_in_sources() -> None:
    """Texts as TensorRT 10.16 and TensorRT-RTX 1.7 wrote them."""
    from deploydcn.runners.tensorrt_api import _readable

    texts = (
        (
            "[runtime.cpp::readHeader::765] Error Code 2: Internal Error (Assertion bufferSize >= minBufferSize failed.  In readHeader at "
            "/_src/runtime/dispatch/runtime.cpp:765)",
            "Internal Error (Assertion bufferSize >= minBufferSize failed)",
        ),
        (
            "IPluginRegistry::loadLibrary: Error Code 4: API Usage Error (Cannot register the library as plugin creator of DeformConv2d "
            "exists already. In loadLibraryCommon at /_src/runtime/dispatch/pluginRegistry.cpp:573)",
            "API Usage Error (Cannot register the library as plugin creator of DeformConv2d exists already)",
        ),
        (
            "createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: 35 In checkCudaInstallation at "
            "/_src/runtime/dispatch/runtime.cpp:811)",
            "API Usage Error (CUDA initialization failure with error: 35)",
        ),
        (
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at /_src/common/dispatch/"
            "checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient for CUDA runtime version))",
            "Cuda Runtime ((cudaError 35: CUDA driver version is insufficient for CUDA runtime version))",
        ),
        ("deploydcn: node 'a': offset has 16 channels; wanted 18", "deploydcn: node 'a': offset has 16 channels; wanted 18"),
    )
    for text, wanted in texts:
        assert _readable(text) == wanted
