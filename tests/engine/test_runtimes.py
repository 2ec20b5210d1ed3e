"""What differs between TensorRT, its versions and TensorRT-RTX; a stand-in module plays TensorRT, which needs a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import deploydcn
from deploydcn.engine.runtimes import capability_names, link_missing_sonames, runtime_named
from deploydcn.errors import InvalidArgument, InvalidModel, MissingDependency, RuntimeFailure, UserError
from deploydcn.tensorrt_runtimes import RUNTIMES
from tests.engine.models import DYNAMIC, deformable, plain, written

RTX, TENSORRT = RUNTIMES["tensorrt-rtx"], RUNTIMES["tensorrt"]
SPAN = {"x": ((1, 3, 8, 8), (2, 3, 16, 16), (4, 3, 32, 32))}


# ------------------------------------------------------------------------------------------------------------- options
def test_compute_capabilities_are_read_in_every_spelling() -> None:
    assert capability_names(RTX, ["75", 80, "8.6", "sm_89", "SM120", 12.1]) == ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["ampere"], "compute capability 'ampere'; wanted a number"),
        (["8"], "wanted a number, as in 86 or 8.6"),
        (["80", "8.0"], "name one twice"),
        ("86", "wanted a list, as in ['86']"),
        (86, "wanted a list"),
    ],
)
def test_other_compute_capabilities_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        capability_names(RTX, given)
    assert message in str(raised.value)


def test_tensorrt_builds_for_the_present_gpu_only() -> None:
    with pytest.raises(InvalidArgument, match="TensorRT builds for the GPU it runs on"):
        capability_names(TENSORRT, ["86"])


def test_unknown_runtimes_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="runtime is 'trt'; wanted one of tensorrt, tensorrt-rtx"):
        runtime_named("trt")


def test_libraries_without_a_plain_name_get_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, links = tmp_path / "wheel", tmp_path / "links"
    wheel.mkdir()
    links.mkdir()
    for name in ("libtensorrt_rtx.so.1", "libother.so.2", "libother.so", "libplain.so"):
        (wheel / name).write_bytes(b"")
    monkeypatch.setattr("deploydcn.engine.runtimes.library_folders", lambda runtime: [wheel])
    link_missing_sonames(RTX, links)
    assert {link.name: link.resolve().name for link in links.iterdir()} == {"libtensorrt_rtx.so": "libtensorrt_rtx.so.1"}


# ----------------------------------------------------------------------------------------------------------- TensorRT
STAND_IN = '''
"""TensorRT's Python interface as far as the builder uses it; every call is written down."""
import enum, json, os, time
__version__ = os.environ["FAKE_VERSION"]
CALLS = []
def note(name, *values):
    CALLS.append([name, *values])
    open(os.environ["FAKE_CALLS"], "w").write(json.dumps(CALLS))
class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1
class BuilderFlag(enum.IntEnum):
    TF32 = 7
class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0
class TensorFormat(enum.IntEnum):
    LINEAR = 0
    HWC8 = 2
class DataType(enum.IntEnum):
    FLOAT = 0
class LayerType(enum.Enum):
    CONVOLUTION = 0
    PLUGIN_V3 = 1
class ILogger: pass
class IProgressMonitor: pass
class Tensor:
    def __init__(self, name): self.name, self.dtype, self.shape, self.is_shape_tensor = name, DataType.FLOAT, (-1, 3, -1, -1), False
class Layer:
    num_inputs, num_outputs = 3, 1
    def __init__(self, name, type): self.name, self.type = name, type
    def get_input(self, index): return Tensor("i")
    def get_output(self, index): return Tensor("o")
class Network:
    num_inputs = num_outputs = 1
    num_layers = 2
    def get_input(self, index): return Tensor("x")
    def get_output(self, index): return Tensor("y")
    def get_layer(self, index): return (Layer("conv", LayerType.CONVOLUTION), Layer("neck.dcn", LayerType.PLUGIN_V3))[index]
class Profile:
    def set_shape(self, name, *shapes): note("set_shape", name, *shapes)
class Cache:
    def serialize(self): return b"measured"
class Config:
    def add_optimization_profile(self, profile): return 0
    def set_memory_pool_limit(self, pool, size): note("workspace", size)
    def set_flag(self, flag): note("set_flag", flag.name)
    def clear_flag(self, flag): note("clear_flag", flag.name)
    def create_timing_cache(self, data): note("timing_cache", data.decode()); return Cache()
    def set_timing_cache(self, cache, ignore): return os.environ.get("FAKE_FAILS") != "cache"
    def get_timing_cache(self): return Cache()
class Builder:
    def __init__(self, logger): self.logger = logger
    def create_network(self, flags): note("network", flags); return Network()
    def create_builder_config(self): return Config()
    def create_optimization_profile(self): return Profile()
    def build_serialized_network(self, network, config):
        monitor = config.progress_monitor
        monitor.phase_start("Building", None, 2)
        monitor.step_complete("Building", 0)
        monitor.phase_finish("Building")
        self.logger.log(2, "a warning")
        fails = os.environ.get("FAKE_FAILS")
        if fails == "build":
            self.logger.log(1, "Error Code 10: no tactic")
            return None
        if fails == "plugin":
            self.logger.log(1, "deploydcn: node 'neck.dcn': DeformConv2d: OH is 0; wanted at least 1")
            self.logger.log(1, "Error Code 9: plugin returned -1")
            return None
        if fails == "hang":
            self.logger.log(1, "Error Code 1: a loop")
            while True: time.sleep(1)
        if fails == "abort":
            os.abort()
        if fails == "python":
            raise TypeError("a binding that changed")
        if fails == "exit":
            os._exit(7)
        return b"plan"
class OnnxParser:
    def __init__(self, network, logger): self.num_errors = 0
    def parse(self, data, path):
        note("parse", len(data) > 100)
        return True
class Registry:
    def load_library(self, path):
        note("library", os.path.basename(path))
        return None if os.environ.get("FAKE_FAILS") == "library" else object()
def get_plugin_registry(): return Registry()
def init_libnvinfer_plugins(logger, namespace): note("standard plugins")
'''


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `tensorrt`; what it was asked is in its calls.json."""
    folder = tmp_path / "stand_in"
    (folder / "tensorrt").mkdir(parents=True)
    (folder / "tensorrt" / "__init__.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("FAKE_VERSION", "10.14.1")
    monkeypatch.setenv("FAKE_CALLS", str(folder / "calls.json"))
    library = tmp_path / "libplugins.so"
    library.write_bytes(b"")
    monkeypatch.setattr("deploydcn.engine.build.plugin_library_path", lambda: library)
    return folder


def processes_of(stand_in: Path) -> list[str]:
    """Workers that still hold the stand-in: their import path names it."""
    return [file.parent.name for file in Path("/proc").glob("[0-9]*/environ") if _names(file, stand_in)]


def _names(environ: Path, folder: Path) -> bool:
    try:
        return str(folder) in environ.read_text(errors="replace")
    except OSError:  # of another user, or gone
        return False


def calls(stand_in: Path) -> dict[str, list[Any]]:
    return {name: values for name, *values in json.loads((stand_in / "calls.json").read_text())}


@pytest.mark.parametrize(
    ("version", "flags"),
    [("10.14.1", 2), pytest.param("10.0.1", 2, marks=pytest.mark.slow), pytest.param("11.4.0", 0, marks=pytest.mark.slow)],
)
def test_networks_are_strongly_typed_in_every_version(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, flags: int
) -> None:
    monkeypatch.setenv("FAKE_VERSION", version)
    seen: list[deploydcn.engine.BuildProgress] = []
    path = written(deformable(), tmp_path)
    report = deploydcn.build_engine(path, tmp_path / "m.engine", profiles=[SPAN], workspace=1 << 20, progress=seen.append)
    asked = calls(stand_in)
    assert asked["network"] == [flags]
    assert asked["workspace"] == [1 << 20]
    assert asked["clear_flag"] == ["TF32"]
    assert asked["library"] == ["libplugins.so"]
    assert asked["set_shape"] == ["x", *map(list, SPAN["x"])]
    assert (tmp_path / "m.engine").read_bytes() == b"plan"
    assert (report.version, report.runtime, report.warnings) == (version, "tensorrt", ("a warning",))
    assert [(layer.name, layer.operator) for layer in report.plugins] == [("neck.dcn", "deploydcn::DeformConv2d")]
    assert report.plugins[0].inputs[0].format == ""  # this plan does not tell
    assert seen[0].phase == "Parsing"


@pytest.mark.slow
def test_older_tensorrt_is_refused(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_VERSION", "8.6.1")
    with pytest.raises(MissingDependency, match=r"TensorRT 8.6.1 is too old; wanted 10 or newer"):
        deploydcn.build_engine(written(plain((1, 3, 8, 8)), tmp_path), tmp_path / "m.engine")


@pytest.mark.slow
def test_the_timing_cache_is_read_and_written(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = written(plain((1, 3, 8, 8)), tmp_path), tmp_path / "kernels.cache"
    for before in ("", "measured"):
        deploydcn.build_engine(path, tmp_path / "m.engine", timing_cache=cache)
        assert calls(stand_in)["timing_cache"] == [before]
        assert cache.read_bytes() == b"measured"
    monkeypatch.setenv("FAKE_FAILS", "cache")
    with pytest.raises(InvalidArgument, match=r"timing cache .*kernels.cache was not made by this version on this GPU"):
        deploydcn.build_engine(path, tmp_path / "m.engine", timing_cache=cache)


@pytest.mark.slow
def test_tf32_is_on_in_converted_models_only(stand_in: Path, tmp_path: Path) -> None:
    path = written(plain((1, 3, 8, 8)), tmp_path)
    for options, expected in (({}, "clear_flag"), ({"fp16": True}, "set_flag"), ({"tf32": True}, "set_flag")):
        deploydcn.build_engine(path, tmp_path / "m.engine", **options)
        assert calls(stand_in)[expected] == ["TF32"]
    deploydcn.build_engine(path, tmp_path / "m.engine", fp16=True, tf32=False)
    assert calls(stand_in)["clear_flag"] == ["TF32"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fails", "error", "message"),
    [
        ("build", RuntimeFailure, "TensorRT cannot build an engine from this model: Error Code 10: no tactic"),
        ("plugin", RuntimeFailure, "this model: node 'neck.dcn': DeformConv2d: OH is 0; wanted at least 1"),
        ("abort", RuntimeFailure, "TensorRT was ended by SIGABRT while building (Building)"),
        ("exit", RuntimeFailure, "TensorRT ended with exit code 7 while building (Building); its last lines: [warning] a warning"),
        ("library", RuntimeFailure, "TensorRT cannot load the plugin library"),
        ("python", deploydcn.DeployDcnError, "TypeError: a binding that changed"),
    ],
)
def test_failures_say_what_and_leave_nothing(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setenv("FAKE_FAILS", fails)
    target = tmp_path / "out" / "m.engine"
    target.parent.mkdir()
    with pytest.raises(error) as raised:
        deploydcn.build_engine(written(deformable(), tmp_path), target, profiles=[SPAN])
    assert message in str(raised.value)
    assert "Traceback" not in str(raised.value)
    assert not list(target.parent.iterdir())


@pytest.mark.slow
def test_a_build_that_never_returns_is_ended(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAILS", "hang")
    path = written(plain((1, 3, 8, 8)), tmp_path)
    with pytest.raises(RuntimeFailure) as raised:
        deploydcn.build_engine(path, tmp_path / "m.engine", timeout=20)  # long enough to reach the loop on a busy machine
    assert "TensorRT was still building (Building) after 20 s and was ended; allow more time" in str(raised.value)
    assert "it had said: Error Code 1: a loop" in str(raised.value)
    assert not (tmp_path / "m.engine").exists()
    assert not processes_of(stand_in)


@pytest.mark.slow
def test_interruption_ends_the_worker(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives as KeyboardInterrupt wherever the parent is; here in a progress callback."""
    monkeypatch.setenv("FAKE_FAILS", "hang")  # or the worker has ended by itself when a busy machine comes to the callback

    seen = []

    def interrupt(_: object) -> None:
        seen.extend(processes_of(stand_in))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploydcn.build_engine(written(plain((1, 3, 8, 8)), tmp_path), tmp_path / "m.engine", progress=interrupt)
    assert seen
    assert not processes_of(stand_in)
    assert not (tmp_path / "m.engine").exists()


# ---------------------------------------------------------------------------------- before any process is started
def test_missing_runtimes_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploydcn.tensorrt_runtimes._spec", lambda module: None)
    for name, extra in (("tensorrt", "gpu"), ("tensorrt-rtx", "rtx")):
        with pytest.raises(MissingDependency, match=rf"is not installed .* pip install 'deploydcn\[{extra}\]'"):
            deploydcn.build_engine(written(plain(), tmp_path), tmp_path / "m.engine", runtime=name)


@pytest.mark.slow
def test_a_missing_plugin_library_matters_to_models_that_need_it(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploydcn.libraries.PLUGIN_LIBRARY", "libnone.so")
    monkeypatch.setattr("deploydcn.engine.build.plugin_library_path", deploydcn.plugin_library_path)
    deploydcn.build_engine(written(plain((1, 3, 8, 8)), tmp_path), tmp_path / "m.engine")
    with pytest.raises(UserError, match=r"has no libnone.so: it was built without a CUDA compiler; put nvcc on PATH"):
        deploydcn.build_engine(written(deformable(), tmp_path), tmp_path / "m.engine", profiles=[SPAN])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fp16": True, "dtype": "bf16"}, "fp16 and dtype='bf16' were both given"),
        ({"dtype": "int8"}, "dtype is 'int8'; wanted fp16 or bf16"),
        ({"workspace": -1}, "workspace is -1; wanted a number of bytes"),
        ({"timeout": 0}, "timeout is 0; wanted a number of seconds above 0"),
        ({"verbosity": "loud"}, "verbosity is 'loud'; wanted one of warning, info, verbose"),
        ({"plugins": ["none.so"]}, "none.so does not exist"),
        ({"runtime": "tensorrt-rtx", "timing_cache": "c"}, "TensorRT-RTX has no timing cache"),
        ({"compute_capabilities": ["86"]}, "TensorRT builds for the GPU it runs on"),
        ({"profiles": [{"y": ((1,),) * 3}]}, "profile 1 names 'y'; the model takes x: float32[nx3xhxw]"),
        ({}, 'as in --profile "x:1x3x320x320,4x3x640x640,8x3x1280x1280"'),
    ],
)
def test_options_are_checked_first(stand_in: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        deploydcn.build_engine(written(plain(DYNAMIC), tmp_path), tmp_path / "m.engine", **options)
    assert message in str(raised.value)
    assert not (stand_in / "calls.json").exists()


def test_the_output_must_be_writable(stand_in: Path, tmp_path: Path) -> None:
    path = written(plain((1, 3, 8, 8)), tmp_path)
    with pytest.raises(InvalidArgument, match=r"folder .*no does not exist; create it first"):
        deploydcn.build_engine(path, tmp_path / "no" / "m.engine")
    with pytest.raises(InvalidArgument, match="is a folder, wanted a file name"):
        deploydcn.build_engine(path, tmp_path)
    with pytest.raises(InvalidModel, match="does not exist; wanted an ONNX file"):
        deploydcn.build_engine(tmp_path / "none.onnx", tmp_path / "m.engine")


def test_the_command_line_passes_mistakes_on(tmp_path: Path) -> None:
    """What main() turns into one sentence and exit code 2; real processes: test_rtx.py."""
    from typer.testing import CliRunner

    from deploydcn.cli import app

    path = str(written(plain(), tmp_path))
    for options, message in (
        (["--profile", "x=1x3x8x8"], "wanted INPUT:SMALLEST,OPTIMAL,LARGEST"),
        (["--runtime", "tpu"], "runtime is 'tpu'; wanted one of tensorrt, tensorrt-rtx"),
        (["--dtype", "int4"], "dtype is 'int4'; wanted fp16 or bf16"),
        (["--fp16", "--dtype", "bf16"], "fp16 and dtype='bf16' were both given"),
        (["--compute-capability", "86"], "TensorRT builds for the GPU it runs on"),
    ):
        result = CliRunner().invoke(app, ["build", path, "-o", str(tmp_path / "m.engine"), *options])
        assert isinstance(result.exception, InvalidArgument)
        assert message in str(result.exception)
