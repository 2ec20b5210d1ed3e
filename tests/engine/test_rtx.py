"""Real engines, built by TensorRT-RTX without a GPU; what cannot be run here is read off the plan."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import deploydcn
from deploydcn.errors import DeployDcnError, InvalidArgument, InvalidModel, RuntimeFailure
from deploydcn.ops import GPU_OPS
from tests.engine.models import ATTRIBUTES, FLOAT, HALF, constant, deformable, model_of, plain, written

pytestmark = [pytest.mark.backend("rtx"), pytest.mark.slow]

SPAN = {"x": ((1, 3, 8, 8), (2, 3, 16, 16), (4, 3, 32, 32))}
HALF_FORMATS = "X float16 HWC8, W float16 LINEAR, offset float32 LINEAR, B float16 LINEAR, mask float16 LINEAR -> Y float16 HWC8"
FLOAT_FORMATS = "X float32 LINEAR, W float32 LINEAR, offset float32 LINEAR, B float32 LINEAR, mask float32 LINEAR -> Y float32 LINEAR"


def build(model: onnx.ModelProto | Path, folder: Path, **options: Any) -> deploydcn.EngineReport:
    path = model if isinstance(model, Path) else written(model, folder)
    return deploydcn.build_engine(path, folder / "m.engine", runtime="tensorrt-rtx", **{"profiles": [SPAN], **options})


def plan(folder: Path) -> bytes:
    return (folder / "m.engine").read_bytes()


# ------------------------------------------------------------------------------------------------------- small models
@pytest.mark.parametrize("form", [{}, {"operator": "DeformConv", "domain": ""}], ids=["ours", "standard"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("mask", [True, False], ids=["mask", "no_mask"])
@pytest.mark.parametrize("dtype", [None, "fp16", "bf16"])
def test_every_form_of_a_deformable_convolution(tmp_path: Path, form: dict[str, str], bias: bool, mask: bool, dtype: str | None) -> None:
    report = build(deformable(bias=bias, mask=mask, **form), tmp_path, dtype=dtype)
    (layer,) = report.plugins
    element = {None: "float32", "fp16": "float16", "bf16": "bfloat16"}[dtype]
    assert layer.name == "neck.dcn"
    assert layer.operator == ("DeformConv" if form and dtype is None else "deploydcn::DeformConv2d")
    assert [tensor.name for tensor in layer.inputs] == ["X", "W", "offset", *["B"] * (bias or mask), *["mask"] * mask]
    assert [tensor.dtype for tensor in layer.inputs] == [element, element, "float32", *[element] * ((bias or mask) + mask)]
    assert (layer.inputs[0].format, layer.outputs[0].format) == (("LINEAR",) * 2 if dtype is None else ("HWC8",) * 2)
    assert b"neck.dcn" in plan(tmp_path)
    assert layer.operator.rpartition("::")[2].encode() in plan(tmp_path)
    assert report.size == len(plan(tmp_path))
    assert report.inputs[0].dtype == report.outputs[0].dtype == "float32"
    assert report.warnings == ()


def test_several_profiles_and_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("DeformConv2d", ["x", "w", "offset"], ["y"], name="dcn", domain="deploydcn", **ATTRIBUTES)]
    inputs = {"x": (FLOAT, ("n", 4, "h", "w")), "offset": (FLOAT, ("n", 18, "h", "w"))}
    model = model_of(nodes, inputs, {"y": (FLOAT, [None] * 4)}, [constant("w", 8, 4, 3, 3)])
    profiles = [
        {name: tuple((batch, channels, size, size) for size in sizes) for name, channels in (("x", 4), ("offset", 18))}
        for batch, sizes in ((1, (8, 16, 32)), (2, (16, 16, 16)), (4, (8, 8, 64)))
    ]
    report = build(model, tmp_path, profiles=profiles)
    assert report.profiles == tuple(profiles)
    assert "3 profiles" in report.summary()


def test_grouped_convolutions_run_in_our_plugin(tmp_path: Path) -> None:
    given = {key: value for key, value in ATTRIBUTES.items() if key != "offset_group"} | {"group": 4, "activation": "silu"}
    nodes = [helper.make_node("GroupedConv2d", ["x", "w"], ["y"], name="grouped", domain="deploydcn", **given)]
    model = model_of(nodes, {"x": (FLOAT, ("n", 8, "h", "w"))}, {"y": (FLOAT, [None] * 4)}, [constant("w", 8, 2, 3, 3)])
    report = build(model, tmp_path, profiles=[{"x": ((1, 8, 8, 8),) * 3}], fp16=True)
    assert [(layer.operator, len(layer.inputs)) for layer in report.plugins] == [("deploydcn::GroupedConv2d", 2)]


def test_external_data_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploydcn.engine.source.SMALL_TENSOR", 100)
    (tmp_path / "source").mkdir()
    path = written(deformable(), tmp_path / "source", external=True)
    sizes = [build(model, tmp_path, **options).size for options in ({}, {"fp16": True}) for model in (deformable(), path)]
    assert abs(sizes[0] - sizes[1]) < 2000
    assert abs(sizes[2] - sizes[3]) < 2000
    monkeypatch.setattr("deploydcn.export.graph.EXTERNAL_DATA_THRESHOLD", 100)
    assert abs(build(path, tmp_path, fp16=True).size - sizes[3]) < 2000


def test_embedded_plugins_are_in_the_engine(tmp_path: Path) -> None:
    library = deploydcn.plugin_library_path().read_bytes()
    without = build(deformable(), tmp_path)
    assert library[:4096] not in plan(tmp_path)
    report = build(deformable(), tmp_path, embed_plugins=True)
    assert library in plan(tmp_path)
    assert 0 <= report.size - without.size - len(library) < 4096
    assert report.embedded_plugins == (deploydcn.plugin_library_path().resolve(),)
    assert any("engine_host_code_allowed" in note for note in report.notes)
    assert "no plugin is needed" in build(plain(), tmp_path, embed_plugins=True).notes[-1]


def test_compute_capabilities(tmp_path: Path) -> None:
    assert build(plain(), tmp_path).compute_capabilities == ("8.0+",)
    assert build(plain(), tmp_path, compute_capabilities=["75", "8.6", "120"]).compute_capabilities == ("7.5", "8.6", "12.0")
    with pytest.raises(InvalidArgument, match=r"compute capability 90: TensorRT-RTX .* builds for 75, 80, 86, 89, 120"):
        build(plain(), tmp_path, compute_capabilities=["90"])


def test_tf32_reaches_our_nodes(tmp_path: Path) -> None:
    for tf32, value in ((True, 1), (False, 0)):
        build(deformable(), tmp_path, tf32=tf32)
        field = plan(tmp_path).index(b"allow_tf32")
        assert value.to_bytes(4, "little") in plan(tmp_path)[field : field + 80]


# ------------------------------------------------------------------------------------------------------- whole models
@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Samples 01 and 02, static and dynamic, exported without checks (other tests check them)."""
    pytest.importorskip("ultralytics")
    folder = tmp_path_factory.mktemp("samples")
    root = Path(__file__).resolve().parents[2] / "samples"
    sys.path.insert(0, str(root))
    try:
        import s01_resnet50_dcn
        import s02_yolov8n_dcn
    finally:
        sys.path.remove(str(root))
    paths = {}
    for name, module in (("s01", s01_resnet50_dcn), ("s02", s02_yolov8n_dcn)):
        model, example = module.build()
        for kind, shapes in (("static", None), ("dynamic", {"x": {0: "n", 2: "h", 3: "w"}})):
            paths[f"{name}_{kind}"] = path = folder / f"{name}_{kind}.onnx"
            tensor = example["x"] if isinstance(example, dict) else example
            deploydcn.export_onnx(model, None, path, kwargs={"x": tensor}, dynamic_shapes=shapes, target="tensorrt", check=False)
    return paths


@pytest.mark.parametrize("dtype", [None, "fp16"])
@pytest.mark.parametrize(("name", "plugins"), [("s01_static", 13), ("s01_dynamic", 13), ("s02_static", 3), ("s02_dynamic", 3)])
def test_samples(samples: dict[str, Path], tmp_path: Path, name: str, plugins: int, dtype: str | None) -> None:
    span = ((1, 3, 320, 320), (4, 3, 640, 640), (8, 3, 1280, 1280))
    profiles = None
    if name.endswith("dynamic"):
        profiles = [{"x": span}, {"x": (span[0], span[0], span[1])}, {"x": (span[1],) * 3}] if name == "s02_dynamic" else [{"x": span}]
    report = build(samples[name], tmp_path, profiles=profiles, dtype=dtype)
    assert len(report.plugins) == plugins
    assert len(report.profiles) == len(profiles or [])
    assert {layer.formats() for layer in report.plugins} == {FLOAT_FORMATS if dtype is None else HALF_FORMATS}
    data = plan(tmp_path)
    assert all(layer.name.encode() in data for layer in report.plugins)
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(samples[name]).graph.initializer)
    assert 0.95 < report.size / (weights if dtype is None else weights / 2) < (1.4 if name.startswith("s01") else 6)


class TorchDeform:
    """What PyTorch's own exporter makes of torchvision's layer, nothing of ours in between."""

    @staticmethod
    def export(path: Path, *, bias: bool, mask: bool, opset: int = 19) -> None:
        import torch
        import torchvision

        class Net(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.offset = torch.nn.Conv2d(8, 18, 3, padding=1)
                self.mask = torch.nn.Conv2d(8, 9, 3, padding=1)
                self.conv = torchvision.ops.DeformConv2d(8, 16, 3, padding=1, bias=bias)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.conv(x, self.offset(x), self.mask(x).sigmoid() if mask else None).relu()

        torch.manual_seed(0)
        sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
        x = torch.randn(2, 8, 12, 14)
        torch.onnx.export(Net().eval(), (x,), path, dynamo=True, opset_version=opset, verbose=False, dynamic_shapes=(sizes,))


@pytest.mark.parametrize(("bias", "mask"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
def test_pytorchs_own_export_builds_unmodified(tmp_path: Path, bias: bool, mask: bool, fp16: bool) -> None:
    path = tmp_path / "torch.onnx"
    TorchDeform.export(path, bias=bias, mask=mask)
    assert [node.domain for node in onnx.load(path).graph.node if node.op_type == "DeformConv"] == [""]
    report = build(path, tmp_path, profiles=[{"x": ((1, 8, 8, 8), (2, 8, 16, 16), (4, 8, 32, 32))}], fp16=fp16)
    assert len(report.plugins) == 1
    assert report.warnings == ()
    assert (report.plugins[0].inputs[0].format, report.plugins[0].inputs[2].dtype) == ("HWC8" if fp16 else "LINEAR", "float32")


def test_an_empty_bias_before_a_mask_as_other_exporters_write_it(tmp_path: Path) -> None:
    path = tmp_path / "torch.onnx"
    TorchDeform.export(path, bias=False, mask=True)
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "DeformConv").input[3] = ""
    report = build(model, tmp_path, profiles=[{"x": ((1, 8, 8, 8),) * 3}])
    assert [tensor.name for tensor in report.plugins[0].inputs] == ["X", "W", "offset", "B", "mask"]


# --------------------------------------------------------------------------------------------------- what must not go
def test_without_the_link_the_parser_ends_its_process_and_we_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real abort of TensorRT-RTX's wheels (see `link_missing_sonames`)."""
    monkeypatch.setattr("deploydcn.engine.process.link_missing_sonames", lambda *arguments: None)
    with pytest.raises(
        RuntimeFailure, match=r"TensorRT-RTX was ended by SIGABRT while parsing the model; its last lines: .*terminate called"
    ):
        build(deformable(), tmp_path)
    assert not (tmp_path / "m.engine").exists()


def test_an_operator_nobody_has_is_named_with_our_domain(tmp_path: Path) -> None:
    model = plain()
    model.graph.node[1].CopyFrom(helper.make_node("FancyPool", ["c"], ["y"], name="pool", domain="my.ops"))
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    with pytest.raises(InvalidModel) as raised:
        build(model, tmp_path)
    message = str(raised.value)
    assert "node 'pool' (FancyPool): neither TensorRT-RTX nor a loaded plugin has this operator" in message
    ours = ", ".join(f"deploydcn::{op.spec.name}" for op in GPU_OPS)
    assert f"deploydcn brings {ours}, DeformConv" in message


def test_an_operator_that_only_needs_a_library_is_told_apart(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["i"], name="where"), helper.make_node("Cast", ["i"], ["y"], to=FLOAT)]
    model = model_of(nodes, {"x": (FLOAT, (4, 4))}, {"y": (FLOAT, (2, None))})
    with pytest.raises(InvalidModel, match=r"node 'where' \(NonZero\): TensorRT-RTX has no implementation of this operator"):
        build(model, tmp_path, profiles=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.graph.node.insert(0, helper.make_node("Cast", ["x"], ["h"], to=HALF)) or m.graph.node[1].input.__setitem__(0, "h"),
            "conv",
        ),
        (lambda m: m.graph.input[0].type.tensor_type.__setattr__("elem_type", onnx.TensorProto.STRING), "cannot read this model"),
    ],
    ids=["mixed types", "strings"],
)
def test_what_the_parser_refuses_names_the_node(tmp_path: Path, change: Any, message: str) -> None:
    model = plain()
    change(model)
    with pytest.raises(DeployDcnError) as raised:
        build(model, tmp_path)
    assert message in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_inputs_that_hold_sizes_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "sizes"], ["y"], name="reshape")]
    model = model_of(nodes, {"x": (FLOAT, (4, 4)), "sizes": (onnx.TensorProto.INT64, (2,))}, {"y": (FLOAT, (None, None))})
    with pytest.raises(InvalidModel, match="input 'sizes' holds sizes that other tensors' shapes depend on"):
        build(model, tmp_path, profiles=None)


@pytest.mark.parametrize(("outputs", "layer"), [(16, r"node 'neck\.dcn'"), (8, "a layer")], ids=["plugin", "tensorrts_own"])
def test_a_workspace_too_small_says_so(tmp_path: Path, outputs: int, layer: str) -> None:
    """Our kernels need none for 8 outputs; then a convolution of TensorRT's own, whose name it does not tell, is the first to fail."""
    with pytest.raises(RuntimeFailure, match=f"; {layer} needs more scratch memory than the workspace limit allows: raise it"):
        build(deformable(weight=(outputs, 6, 3, 3)), tmp_path, fp16=outputs == 8, workspace=64)


def test_channels_may_not_vary_within_a_profile(tmp_path: Path) -> None:
    """Fewer channels can take another kernel, with a larger workspace: one for 8 channels, none for 16."""
    node = helper.make_node("GroupedConv2d", ["x", "w"], ["y"], name="conv", domain="deploydcn", pads=[1] * 4)
    model = model_of([node], {"x": (FLOAT, (1, "c", 9, 9)), "w": (FLOAT, (8, "c", 3, 3))}, {"y": (FLOAT, (1, 8, 9, 9))})
    span = {"x": ((1, 8, 9, 9), (1, 8, 9, 9), (1, 16, 9, 9)), "w": ((8, 8, 3, 3), (8, 8, 3, 3), (8, 16, 3, 3))}
    with pytest.raises(RuntimeFailure, match="node 'conv': GroupedConv2d input X has 8 to 16 channels; wanted a fixed number"):
        build(model, tmp_path, profiles=[span])


def test_a_plugin_library_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(RuntimeFailure, match=r"cannot load the plugin library .*text.so: .*(too short|invalid ELF header)"):
        build(plain(), tmp_path, plugins=[tmp_path / "text.so"])


def test_our_library_named_again_is_loaded_once(tmp_path: Path) -> None:
    assert len(build(deformable(), tmp_path, plugins=[deploydcn.plugin_library_path()]).plugins) == 1


# -------------------------------------------------------------------------------------------------------- command line
def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from deploydcn.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, "build", *arguments], cwd=cwd, capture_output=True, text=True)


def test_the_command_line_reports(tmp_path: Path) -> None:
    written(deformable(), tmp_path)
    options = ["model.onnx", "-o", "m.engine", "--runtime", "tensorrt-rtx", "--fp16", "--compute-capability", "86"]
    profiles = ["--profile", "x:1x3x8x8,2x3x16x16,4x3x32x32", "--profile", "x:1x3x64x64"]
    done = command(*options, *profiles, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["size"] == (tmp_path / "m.engine").stat().st_size
    assert report["plugins"][0]["inputs"][0] == {"name": "X", "dtype": "float16", "format": "HWC8"}
    assert report["profiles"][1] == {"x": [[1, 3, 64, 64]] * 3}
    assert report["compute_capabilities"] == ["8.6"]
    done = command(*options, *profiles, "--verbosity", "info", cwd=tmp_path)
    assert f"1 layers in plugins, deploydcn::DeformConv2d: {HALF_FORMATS}: neck.dcn" in done.stdout
    assert "TensorRT INFO: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "input x: float32[nx3xhxw] has dynamic sizes and no profile"),
        (("--profile", "x=1x3x8x8"), "--profile 'x=1x3x8x8'; wanted INPUT:SMALLEST,OPTIMAL,LARGEST"),
        (("--profile", "y:1x3x8x8"), "profile 1 names 'y'; the model takes x: float32[nx3xhxw]"),
        (("--profile", "x:4x3x8x8,1x3x8x8,1x3x8x8"), "wanted smallest <= optimal <= largest"),
        (("--profile", "x:1x3x8"), "has 3 dimensions; wanted 4"),
        (("--profile", "x:1x4x8x8"), "the model has 3 fixed there"),
        (("--profile", "x:1x3x8x8", "--timing-cache", "t"), "TensorRT-RTX has no timing cache"),
        (("--profile", "x:1x3x8x8", "--dtype", "int8"), "dtype is 'int8'; wanted fp16 or bf16"),
        (("--profile", "x:1x3x8x8", "--compute-capability", "90"), "compute capability 90: TensorRT-RTX"),
        (("--profile", "x:1x3x8x8", "-o", "no/m.engine"), "folder no does not exist; create it first"),
    ],
)
def test_mistakes_end_in_one_sentence_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    written(plain(), tmp_path)
    done = command("model.onnx", "-o", "m.engine", "--runtime", "tensorrt-rtx", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_ctrl_c_ends_the_builder(tmp_path: Path) -> None:
    """The signal goes to the parent alone; nothing of the build outlives it."""
    rng = np.random.default_rng(0)
    nodes, constants = [], []
    for index in range(150):  # long enough to be caught at it
        constants.append(numpy_helper.from_array(rng.standard_normal((32, 32, 3, 3)).astype(np.float32), f"w{index}"))
        nodes.append(helper.make_node("Conv", [f"t{index}", f"w{index}"], [f"t{index + 1}"], pads=[1] * 4))
        nodes[-1].input[0] = f"t{index}"
    model = model_of(nodes, {"t0": (FLOAT, (1, 32, "h", "w"))}, {"t150": (FLOAT, [None] * 4)}, constants)
    written(model, tmp_path)
    code = "from deploydcn.cli import main; main()"
    options = ["model.onnx", "-o", "m.engine", "--runtime", "tensorrt-rtx", "--profile", "t0:1x32x8x8,1x32x16x16,1x32x32x32"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code, "build", *options], cwd=tmp_path, env=environment) as parent:
        deadline = time.monotonic() + 60
        while not _workers(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert _workers(tmp_path)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(20) != 0
    assert not _workers(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def _workers(folder: Path) -> list[str]:
    listing = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listing.splitlines() if "deploydcn.engine.worker" in line and str(folder) in line]
