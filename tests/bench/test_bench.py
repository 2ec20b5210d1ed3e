"""The benchmark measures what it says: candidates compute the same, and times come from shuffled rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from deploydcn.bench import DENSE, FAMILY, LAYERS, OURS, PLAIN, PRODUCT, ConvLayer, bench_layers, bench_model, measure, parse_layer
from deploydcn.cli import app
from deploydcn.errors import InvalidArgument

SMALL = {
    "all options": ConvLayer(12, 9, 7, 10, kernel=3, stride=2, dilation=2, offset_groups=3, batch=2),
    "version 1": ConvLayer(8, 6, 6, 8, mask=False),
    "even kernel": ConvLayer(6, 8, 9, 4, kernel=4),
    "grouped": ConvLayer(8, 7, 7, 16, groups=4),
    "depthwise": ConvLayer(8, 7, 7, 8, groups=8),
    "plain grouped": ConvLayer(8, 7, 7, 16, kernel=5, groups=4, deformable=False),
    "plain depthwise": ConvLayer(8, 7, 7, 8, groups=8, deformable=False),
}


@pytest.mark.backend("ort")
@pytest.mark.parametrize("name", SMALL)
def test_contenders_compute_the_same(name: str) -> None:
    from deploydcn.bench.contenders import INT8_OUTPUT_SCALE, OURS_BFLOAT16, OURS_INT8, contenders

    layer = SMALL[name]
    results = {}
    for label, make in contenders(layer, layer.arrays(offset_scale=1.0)).items():
        if label == PRODUCT or (label == DENSE and layer.deformable):
            continue
        result: Any = make(1)()
        results[label] = np.asarray(result[0] if isinstance(result, list) else result)
    assert len(results) >= 2
    if OURS_INT8 in results:
        results[OURS_INT8] = (results[OURS_INT8].astype(np.float32) - 128) * INT8_OUTPUT_SCALE
    # Positions round differently; products of bfloat16 have 8 bits; of int8 the output has no more.
    tolerances = {OURS_BFLOAT16: 0.02, OURS_INT8: 4 * INT8_OUTPUT_SCALE}
    for label, result in results.items():
        np.testing.assert_allclose(result, results[OURS], atol=tolerances.get(label, 2e-5), err_msg=label)


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("torch")
@pytest.mark.parametrize("name", FAMILY)
def test_standard_graphs_compute_the_same(name: str) -> None:
    from deploydcn.bench.family import contenders

    arrays = FAMILY[name].arrays(offset_scale=1.0)
    results: dict[str, Any] = {label: make(1)() for label, make in contenders(FAMILY[name], arrays).items()}
    assert len(results) >= 2
    for label, result in results.items():
        np.testing.assert_allclose(result[0], results[OURS][0], atol=1e-4, err_msg=label)  # GridSample rounds positions


@pytest.mark.backend("torch")
@pytest.mark.parametrize("name", [*LAYERS, *SMALL])
def test_output_size_is_that_of_torch(name: str) -> None:
    import torch

    layer = {**LAYERS, **SMALL}[name]
    with torch.device("meta"):
        convolution = torch.nn.Conv2d(1, 1, layer.kernel, layer.stride, layer.padding, layer.dilation)
        assert tuple(convolution(torch.empty(1, 1, layer.height, layer.width)).shape[2:]) == layer.out_size


def test_flops_of_a_known_layer() -> None:
    assert ConvLayer(128, 56, 56, 128).flops == 2 * 128 * 128 * 9 * 56 * 56
    assert ConvLayer(64, 8, 8, 64, groups=64, batch=2).flops == 2 * 2 * 64 * 9 * 64


def test_every_round_runs_every_candidate_in_a_new_order() -> None:
    calls: list[str] = []
    timings = measure({name: lambda name=name: calls.append(name) for name in "abc"}, seconds=0.0)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert {tuple(sorted(each)) for each in rounds} == {("a", "b", "c")}
    assert len(set(rounds)) > 2
    assert {timing.rounds for timing in timings.values()} == {len(rounds) - 2}
    assert all(timing.low <= timing.median <= timing.high for timing in timings.values())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("c=128,h=56,w=40,m=64", ConvLayer(128, 56, 40, 64)),
        ("n=2, c=8, h=9, w=9, m=8, k=5, s=2, d=3, g=4, og=2, nomask", ConvLayer(8, 9, 9, 8, 5, 2, 3, 4, 2, False, 2)),
        ("c=8,h=9,w=9,m=8,g=8,plain", ConvLayer(8, 9, 9, 8, groups=8, deformable=False)),
    ],
)
def test_layers_are_read(text: str, wanted: ConvLayer) -> None:
    assert parse_layer(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c=128,h=56,w=56", "has no m"),
        ("c=128,h=56,w=56,m=-1", "'m=-1' is not understood"),
        ("conv3", "'conv3' is not understood"),
        ("c=128,h=56,w=56,m=0", "outputs is 0"),
        ("c=9,h=56,w=56,m=8,g=2", "channels is 9; wanted a multiple of 2"),
        ("c=8,h=1,w=2,m=8,k=2", "does not fit"),
    ],
)
def test_wrong_layers_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_layer(text)


@pytest.mark.parametrize("options", [{"threads": (0,)}, {"threads": ()}, {"seconds": 0}])
def test_wrong_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="wanted"):
        bench_layers(SMALL, **options)


@pytest.mark.slow
@pytest.mark.backend("ort")
def test_command_writes_json_and_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = [tmp_path / "bench.json", tmp_path / "bench.png", tmp_path / "bench.md"]
    arguments = ["--layer", "c=8,h=9,w=9,m=8", "--layer", "c=8,h=9,w=9,m=8,g=8,plain", "--threads", "1,2", "--seconds", "0.01"]
    result = CliRunner().invoke(
        app, ["bench", *arguments, "-o", str(files[0]), "--plot", str(files[1]), "--markdown", str(files[2]), "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [(row["shape"], row["threads"]) for row in report["rows"]] == [
        (shape, threads) for shape in ("8x9x9 to 8, 3x3", "8x9x9 to 8, 3x3, groups 8") for threads in (1, 2)
    ]
    assert all({OURS, DENSE} <= set(row["seconds"]) for row in report["rows"])
    assert report["machine"]["kernels"] in ("amx", "avx512bf16", "avx512vnni", "avx512", "avx2", "baseline")
    assert json.loads(files[0].read_text())["rows"] == report["rows"]
    assert files[1].stat().st_size > 1000
    ratio = report["rows"][2]["seconds"][OURS]["median"] / report["rows"][2]["seconds"][DENSE]["median"]
    line = next(line for line in files[2].read_text().splitlines() if line.startswith("| c=8,h=9,w=9,m=8,g=8,plain"))
    assert f"{ratio:.2f}" in line.split(" | ")


# ------------------------------------------------------------------------------------------------------------- models
def offsets_and_deformable(*, standard: bool = False) -> onnx.ModelProto:
    """A convolution gives the offsets of a deformable one."""
    rng = np.random.default_rng(0)
    weights = {"Wo": rng.normal(size=(18, 4, 3, 3)), "W": rng.normal(size=(6, 4, 3, 3)), "B": rng.normal(size=6)}
    operator = "DeformConv" if standard else "DeformConv2d"
    attributes = {} if standard else {"domain": "deploydcn", "activation": "relu"}
    nodes = [
        onnx.helper.make_node("Conv", ["X", "Wo"], ["offset"], kernel_shape=[3, 3], pads=[1] * 4),
        onnx.helper.make_node(operator, ["X", "W", "offset", "B"], ["Y"], kernel_shape=[3, 3], pads=[1] * 4, **attributes),
    ]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, size, 8, 8]) for name, size in (("X", 4), ("Y", 6))]
    constants = [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(nodes, "model", values[:1], values[1:], constants)
    imports = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("deploydcn", 1)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.mark.backend("ort")
def test_model_is_compared_with_plain_convolutions(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    path = tmp_path / "model.onnx"
    onnx.save(offsets_and_deformable(), path)
    report, operators = bench_model(path, {"X": np.zeros((1, 4, 8, 8), np.float32)}, seconds=0.01)
    assert {OURS, PLAIN} <= set(report.rows[0].timings)
    assert "DeformConv2d" in operators[1]
    result = CliRunner().invoke(app, ["bench", str(path), "--seconds", "0.01"])
    assert result.exit_code == 0, result.output
    assert "operators of" in result.output


@pytest.mark.backend("ort")
@pytest.mark.backend("torch")
def test_plain_convolutions_compute_what_a_plain_network_would() -> None:
    """The deformable convolution with offsets 0 is that network; the offsets stay outputs."""
    import onnxruntime as ort
    import torch

    from deploydcn.bench.models import with_plain_convolutions

    plain = with_plain_convolutions(offsets_and_deformable(standard=True))
    assert [node.op_type for node in plain.graph.node] == ["Conv", "Conv"]
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    y, offset = ort.InferenceSession(plain.SerializeToString()).run(None, {"X": x})
    weights = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor)) for tensor in plain.graph.initializer}
    wanted = torch.nn.functional.conv2d(torch.from_numpy(x), weights["W"], weights["B"], padding=1)
    np.testing.assert_allclose(y, wanted.numpy(), atol=1e-5)
    assert offset.shape == (1, 18, 8, 8)
