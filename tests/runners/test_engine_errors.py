"""Whatever is wrong with an engine, a machine or an input ends in one sentence with the fix."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import deploydcn
from deploydcn.errors import InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.runners.device_arrays import numpy_dtype, stream_handle
from tests.runners.engine_checks import MIXED
from tests.runners.fake_cuda import FakeCuda, Status
from tests.runners.fake_tensorrt import FakeTensorRT, engine_file
from tests.runners.machine import DlpackArray, InterfaceArray, Machine, doubled, images, install


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return install(monkeypatch, tmp_path)


# ------------------------------------------------------------------------------------------------------------------ files
@pytest.mark.parametrize(
    ("content", "cause", "message"),
    [
        (engine_file(version="10.8.0"), InvalidModel, r"TensorRT 10\.16\.1 refuses m\.engine: .*library version .*; build it again"),
        (engine_file()[:100], InvalidModel, r"refuses m\.engine: .*; the file may be damaged: build it again"),
        (engine_file(tag=b"vtrt"), InvalidModel, r"an engine for TensorRT-RTX, not for TensorRT; load it with backend='tensorrt-rtx'"),
        (engine_file(tag=b"qtrt"), InvalidModel, r"refuses .*incompatible serialization version.; build it again with this version"),
        (b"", InvalidModel, r"m\.engine is not an engine, or is truncated"),
        (b"\x08\x0a" * 400, InvalidModel, r"m\.engine is not an engine, or is truncated; build it again"),
        (engine_file(plugins=["EfficientNMS"]), RuntimeFailure, r"find plugin: EfficientNMS.*; pass the library it comes from"),
        (engine_file(x_format="CHW4"), RuntimeFailure, r"tensor 'x' has format CHW4; wanted LINEAR; build the engine without"),
        (engine_file(y_location="HOST"), RuntimeFailure, r"tensor 'y' holds shapes and lives in host memory.*; make it a constant"),
        (engine_file(inputs={"x": ("INT4", (1, 8))}, profiles=[]), RuntimeFailure, r"tensor 'x' is INT4, which arrays cannot hold"),
    ],
)  # fmt: skip
def test_bad_engines(machine: Machine, content: bytes, cause: type[UserError], message: str) -> None:
    path = machine.folder / "m.engine"
    path.write_bytes(content)
    with pytest.raises(cause, match=message) as raised:
        deploydcn.load(path, "tensorrt")
    assert "\n" not in str(raised.value)
    assert "cpp" not in str(raised.value)


def test_no_file_a_folder_an_onnx_file(machine: Machine) -> None:
    with pytest.raises(InvalidModel, match=r"none\.engine does not exist"):
        deploydcn.load(machine.folder / "none.engine", "tensorrt")
    with pytest.raises(InvalidModel, match="is a folder; wanted an engine file"):
        deploydcn.load(machine.folder, "tensorrt")
    onnx = machine.folder / "m.onnx"
    onnx.write_bytes(b"\x08\x0a" * 100)
    with pytest.raises(InvalidModel, match=r"m\.onnx is not an engine, but an ONNX file; deploydcn\.build_engine\('.*m\.onnx', \.\.\.\)"):
        deploydcn.load(onnx, "tensorrt")
    with pytest.raises(InvalidArgument, match="got a bytes; wanted the path of an engine file"):
        deploydcn.load(engine_file(), "tensorrt")


@pytest.mark.parametrize("contexts", [0, -1, 1.5, "2", True])
def test_contexts_are_counted(machine: Machine, contexts: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"contexts is .*; wanted a whole number, 1 or more"):
        machine.load(contexts=contexts)


# ---------------------------------------------------------------------------------------------------------------- plugins
def test_a_plugin_of_ours_without_our_library(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Path:
        raise UserError("this installation has no libdeploydcn_trt.so: do this and that")

    path = machine.engine(plugins=["DeformConv2d"])
    assert deploydcn.load(path, "tensorrt").outputs
    machine.trt.registry.loaded.clear()
    monkeypatch.setattr("deploydcn.runners.tensorrt_api.plugin_library_path", absent)
    with pytest.raises(RuntimeFailure, match=r"Cannot find plugin: DeformConv2d.*our plugin library is missing: .*do this and that"):
        deploydcn.load(path, "tensorrt")


def test_plugin_libraries_are_loaded_once_and_by_anybody(machine: Machine) -> None:
    other = machine.folder / "libother.so"
    other.write_text("plugins: EfficientNMS")
    path = machine.engine(plugins=["EfficientNMS", "DeformConv2d"])
    for _ in range(3):
        deploydcn.load(path, "tensorrt", plugins=[other])
    twin = machine.folder / "twin.so"
    twin.write_text("plugins: EfficientNMS")
    deploydcn.load(path, "tensorrt", plugins=[twin])  # loaded before, from elsewhere
    assert machine.trt.registry.loaded.count("EfficientNMS") == 1


def test_plugin_libraries_that_are_none(machine: Machine) -> None:
    with pytest.raises(InvalidArgument, match=r"plugin library none\.so does not exist"):
        machine.load(plugins=["none.so"])
    broken = machine.folder / "broken.so"
    broken.write_text("no library")
    with pytest.raises(RuntimeFailure, match=r"broken\.so does not load: .*invalid ELF header.*; rebuild it"):
        machine.load(plugins=[broken])


def test_a_registry_with_another_logger_tells_nothing(machine: Machine) -> None:
    """A program that used TensorRT before us has given it its own logger."""
    machine.trt.registry.logger = type("Other", (), {"log": lambda *_: None})()
    broken = machine.folder / "broken.so"
    broken.write_text("no library")
    with pytest.raises(RuntimeFailure, match=r"broken\.so does not load: .*(too short|invalid ELF header)"):
        machine.load(plugins=[broken])


def test_code_in_engines_is_run_on_request_only(machine: Machine) -> None:
    machine.load()
    machine.load(allow_code=True)
    assert machine.trt.code_allowed == [False, True]


# --------------------------------------------------------------------------------------------------------------- machines
@pytest.mark.parametrize(
    ("cuda", "message"),
    [
        (
            {"broken": Status.cudaErrorInsufficientDriver},
            r"driver version is insufficient .* error 35\); install or update the NVIDIA driver",
        ),
        ({"broken": Status.cudaErrorNoDevice}, r"error 100\); check that nvidia-smi lists a GPU"),
        ({"devices": 0}, "there is no NVIDIA GPU; engines run on one"),
    ],
)
def test_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: dict[str, Any], message: str) -> None:
    """TensorRT's Runtime would end the process here; the fake one raises Crash."""
    machine = install(monkeypatch, tmp_path, **cuda)
    with pytest.raises(RuntimeFailure, match=message):
        machine.load()


def test_a_wrong_file_is_named_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, devices=0)
    (tmp_path / "m.engine").write_bytes(b"hello" * 100)
    with pytest.raises(InvalidModel, match="is not an engine"):
        deploydcn.load(tmp_path / "m.engine", "tensorrt")


def test_a_driver_too_old_for_tensorrt_only(machine: Machine) -> None:
    """cuda-bindings of CUDA 12 work, TensorRT for CUDA 13 does not: its Runtime is null although there is a GPU."""
    machine.trt.cuda = FakeCuda(broken=Status.cudaErrorInsufficientDriver)
    with pytest.raises(RuntimeFailure, match=r"TensorRT 10\.16\.1 does not start: .*error: 35.*; install or update the NVIDIA driver"):
        machine.load()


def test_unknown_gpu(machine: Machine) -> None:
    with pytest.raises(InvalidArgument, match="device is 3; wanted 0 to 0: this process sees 1 GPU"):
        machine.load(device=3)


@pytest.mark.parametrize(
    ("module", "backend", "message"),
    [
        ("tensorrt", "tensorrt", r"TensorRT is not installed; this needs it: pip install 'deploydcn\[gpu\]'"),
        ("cuda.bindings.runtime", "tensorrt", r"cuda-bindings is .*; this needs it: pip install 'deploydcn\[gpu\]'"),
    ],
)
def test_missing_packages(machine: Machine, monkeypatch: pytest.MonkeyPatch, module: str, backend: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    real = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == module else real(name, *rest))
    with pytest.raises(MissingDependency, match=message):
        machine.load()


def test_rtx_engines_need_rtx(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", FakeTensorRT(machine.cuda, "tensorrt_rtx", "1.7.1", b"vtrt"))
    path = machine.engine(tag=b"vtrt", version="1.7.1")
    runner = deploydcn.load(path, "tensorrt-rtx")
    assert runner.name == "tensorrt-rtx 1.7.1 (m.engine)"
    (x,) = images((1, 3, 4, 4))
    np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))


def test_no_memory_for_a_context(machine: Machine) -> None:
    machine.trt.contexts_left = 1
    runner = machine.load(contexts=2)
    (x,) = images((1, 3, 4, 4))
    with runner._slots.borrow(None), pytest.raises(RuntimeFailure, match=r"no execution context: OutOfMemory .*; free GPU memory"):
        runner.run([x])
    np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))


def test_an_error_on_the_gpu(machine: Machine) -> None:
    runner = machine.load()
    machine.cuda.fault = Status.cudaErrorIllegalAddress
    with pytest.raises(RuntimeFailure, match=r"error 700\); the process can use this GPU no more: restart it"):
        runner.run(list(images((1, 3, 4, 4))))


# ----------------------------------------------------------------------------------------------------------------- inputs
X = np.zeros((1, 3, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": X}, r"no input named 'z'; the model takes x: float32\[\?x3x\?x\?\]"),
        ({}, "input 'x' is missing"),
        ([X, X], "got 2 inputs; wanted 1"),
        (X, "put it in a list"),
        (None, "wanted a dict of arrays by name"),
        ([X.astype(np.float64)], r"input 'x' is float64; wanted float32; convert it with .astype\('float32'\)"),
        ([X[0]], r"input 'x' has shape \[3, 4, 4\]; wanted x"),
        ([X[:, :2]], r"input 'x' has shape \[1, 2, 4, 4\]; wanted x"),
        (
            [np.zeros((5, 3, 4, 4), np.float32)],
            "input 'x' has shape 5x3x4x4; this engine was built for 1x3x2x2 to 4x3x16x16; .* with a profile",
        ),
        ([X[:0]], "input 'x' has shape 0x3x4x4; this engine was built for"),
        (["text"], "got 'text'; wanted an array of numbers|input 'x' is str"),
        ([[[1.0], [2.0, 3.0]]], "no dense array"),
    ],
)
def test_bad_inputs(machine: Machine, inputs: Any, message: str) -> None:
    runner = machine.load()
    for run in (runner.run, runner.run_on_device):
        with pytest.raises(InvalidArgument, match=message):
            run(inputs)
    assert not machine.trt.configs  # no context is made for nothing
    np.testing.assert_array_equal(runner.run([X])["y"], doubled(X))


def test_shapes_that_fit_no_single_profile(machine: Machine) -> None:
    spans = {"a": [(1, 2), (2, 2), (4, 2)], "b": [(1, 2), (2, 2), (4, 2)]}
    other = {"a": [(5, 2), (6, 2), (8, 2)], "b": [(5, 2), (6, 2), (8, 2)]}
    runner = machine.load("mixed", content={**MIXED, "profiles": [spans, other]})
    with pytest.raises(
        InvalidArgument, match="input 'b' has shape 6x2; this engine was built for 1x2 to 4x2 or 5x2 to 8x2, all inputs in one profile"
    ):
        runner.run({"a": np.zeros((2, 2), np.float32), "b": np.zeros((6, 2), np.float16)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, x: InterfaceArray(m, x.astype(np.float16)), "input 'x' is float16; wanted float32"),
        (lambda m, x: InterfaceArray(m, x[:, :2].copy()), r"input 'x' has shape \[2, 2, 4, 4\]; wanted"),
        (lambda m, x: InterfaceArray(m, np.zeros((9, 3, 4, 4), np.float32)), "input 'x' has shape 9x3x4x4; this engine was built for"),
        (lambda m, x: _strided(InterfaceArray(m, x)), r"input 'x' is not contiguous \(strides \(4, 16, 64, 192\)\); wanted C order"),
        (lambda m, x: InterfaceArray(m, x.astype(">f4")), "byte-swapped"),
        (lambda m, x: DlpackArray(m, x, device=1), "input 'x' is on GPU 1, the engine on GPU 0; move it, or load with device=1"),
        (lambda m, x: DlpackArray(m, x, strides=(1, 2, 6, 24)), r"input 'x' is not contiguous \(strides \(1, 2, 6, 24\)\); wanted C order"),
        (lambda m, x: _of_gpu_1(m, x), "input 'x' is on GPU 1, the engine on GPU 0"),
        (lambda m, x: _elsewhere(InterfaceArray(m, x)), "says it is in GPU memory, but points elsewhere; .* pycuda.autoprimaryctx"),
    ],
)
def test_bad_device_arrays(machine: Machine, change: Callable[[Machine, np.ndarray], Any], message: str) -> None:
    (x,) = images((2, 3, 4, 4))
    with pytest.raises(InvalidArgument, match=message):
        machine.load().run([change(machine, x)])


def _strided(array: InterfaceArray) -> InterfaceArray:
    array.strides = (4, 16, 64, 192)
    return array


def _of_gpu_1(machine: Machine, x: np.ndarray) -> InterfaceArray:
    machine.cuda.devices = 2
    machine.cuda.cudaSetDevice(1)
    array = InterfaceArray(machine, x)
    machine.cuda.cudaSetDevice(0)
    return array


def _elsewhere(array: InterfaceArray) -> InterfaceArray:
    array.address = 0x1234500
    return array


def test_unknown_element_types() -> None:
    assert numpy_dtype("bfloat16").itemsize == 2
    with pytest.raises(InvalidArgument, match="there is no element type 'float7'"):
        numpy_dtype("float7")


@pytest.mark.parametrize("options", [{}, {"cuda_graph": True}], ids=["plain", "graph"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, x: {"z": InterfaceArray(m, x)}, r"no output named 'z'; the engine gives y: float32"),
        (lambda m, x: {"y": x}, r"the array in `out` for 'y' is a ndarray in host memory; wanted one in GPU memory"),
        (lambda m, x: {"y": InterfaceArray(m, x.astype(np.float16))}, "output 'y' is float16; wanted float32"),
        (lambda m, x: {"y": InterfaceArray(m, x[:1])}, r"output 'y' has shape \[2, 3, 4, 4\] .* got \[1, 3, 4, 4\]"),
        (lambda m, x: {"y": InterfaceArray(m, x, offset=64)}, "begins at address .*; wanted a multiple of 256"),
    ],
)
def test_bad_targets(machine: Machine, options: dict[str, Any], change: Callable[[Machine, np.ndarray], Any], message: str) -> None:
    (x,) = images((2, 3, 4, 4))
    runner = machine.load(**options)
    for _ in range(3):
        with pytest.raises(InvalidArgument, match=message):
            runner.run_on_device([InterfaceArray(machine, x)], out=change(machine, x))
        np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))
    machine.check_clean()


def test_data_dependent_outputs_have_no_graph(machine: Machine) -> None:
    content = {"inputs": {"x": ("FLOAT", (-1, 4))}, "outputs": {"y": ("INT64", (2, -1))}, "profiles": [{"x": [(1, 4), (2, 4), (8, 4)]}]}
    x = np.ones((2, 4), np.float32)
    with pytest.raises(
        InvalidArgument, match="the shape of output 'y' depends on the data, which cuda_graph does not allow; leave that out"
    ):
        machine.load("positive", content=content, cuda_graph=True).run([x])
    with pytest.raises(InvalidArgument, match="which an array in `out` does not allow"):
        machine.load("positive", content=content).run_on_device([x], out={"y": InterfaceArray(machine, np.zeros((2, 8), np.int64))})


def test_no_memory_for_a_data_dependent_output(machine: Machine) -> None:
    content = {"inputs": {"x": ("FLOAT", (-1, 4))}, "outputs": {"y": ("INT64", (2, -1))}, "profiles": [{"x": [(1, 4), (2, 4), (8, 4)]}]}
    runner = machine.load("positive", content=content)
    machine.cuda.memory_limit = 100
    with pytest.raises(RuntimeFailure, match=r"no memory for output 'y': .*out of memory"):
        runner.run([np.ones((5, 4), np.float32)])


def test_graphs_that_cannot_be_recorded(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = machine.load(cuda_graph=True)
    (x,) = images((2, 3, 4, 4))
    runner.run([x])
    monkeypatch.setattr(machine.cuda, "cudaStreamBeginCapture", lambda *_: (Status.cudaErrorStreamCaptureUnsupported,), raising=False)
    with pytest.raises(RuntimeFailure, match=r"cannot be recorded as a CUDA graph: .*; load it without cuda_graph"):
        runner.run([x])


def test_a_recording_that_fails_half_way_is_ended(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.runners.fake_tensorrt import IExecutionContext

    runner = machine.load(cuda_graph=True)
    (x,) = images((2, 3, 4, 4))
    runner.run([x])
    with monkeypatch.context() as patch:
        patch.setattr(IExecutionContext, "execute_async_v3", lambda *_: False)
        with pytest.raises(RuntimeFailure, match=r"cannot be recorded as a CUDA graph: .* refuses the run"):
            runner.run([x])
    assert all(stream.recording is None for stream in machine.cuda.all_streams())
    for _ in range(3):
        np.testing.assert_array_equal(runner.run([x])["y"], doubled(x))
    machine.check_clean()


class _Named:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@pytest.mark.parametrize(
    "stream",
    [7, _Named(cuda_stream=7), _Named(handle=7), _Named(ptr=7), _Named(__cuda_stream__=lambda: (0, 7))],
    ids=["handle", "torch", "pycuda", "cupy", "cuda.core"],
)
def test_streams_of_other_libraries(stream: Any) -> None:
    assert stream_handle(stream) == 7


@pytest.mark.parametrize("stream", ["7", -1, True, object()])
def test_streams_that_are_none(stream: Any) -> None:
    with pytest.raises(InvalidArgument, match="wanted a CUDA stream of torch, CuPy, pycuda"):
        stream_handle(stream)
