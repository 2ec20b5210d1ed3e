"""Published implementations' own outputs (goldens/README.md) against the reference and every backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploydcn.ops import op_named
from deploydcn.testing import run_plugin
from tests.conformance.backends import BACKENDS
from tests.conformance.golden_readers import READERS
from tests.conformance.tolerances import relative_error

GOLDENS = sorted(Path(__file__).with_name("goldens").glob("*.npz"))
OPERATORS = [path for path in GOLDENS if path.stem.partition("__")[0] in READERS]
MODULES = {path.stem: path for path in GOLDENS if path not in OPERATORS}

EMULATED = [
    pytest.param(f"plugin_{engine}", marks=[pytest.mark.backend("emulation"), pytest.mark.slow]) for engine in ("source", "ptx75", "ptx80")
]


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file, and the published attributes."""
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    return arrays, json.loads(str(arrays.pop("attrs")))


def compute(backend: str, name: str, inputs: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> list[np.ndarray]:
    """All outputs of one operator on one backend."""
    op = op_named(name)
    if backend == "reference":
        return op.reference(inputs, attributes)
    if backend.startswith("plugin_"):
        return run_plugin(name, inputs, attributes, engine=backend.removeprefix("plugin_"))  # type: ignore[arg-type]
    types = next(row for row in op.spec.type_rows if set(row.values()) <= {"float32", "int64"})
    return BACKENDS[backend](op, inputs, attributes, types)


def test_all_goldens_are_here() -> None:
    families = [path.stem.partition("__")[0] for path in GOLDENS]
    assert {family: families.count(family) for family in families} == {
        "deform_conv2d": 30,
        "dcnv3": 26,
        "dcnv4": 19,
        "flash_deform_attn": 3,
        "ms_deform_attn": 7,
        "mmcv_deform_roi_pool": 17,
        "deform_psroi_pool": 14,
        "mmcv_roi_modules": 2,
        "charlesshang_dcnpooling_module": 1,
    }


@pytest.mark.parametrize("path", OPERATORS, ids=lambda path: path.stem)
@pytest.mark.parametrize("backend", ["reference", *BACKENDS, *EMULATED])
def test_equals_published_output(path: Path, backend: str) -> None:
    family, _, case = path.stem.partition("__")
    golden = READERS[family](case, *load(path))
    got = compute(backend, golden.op, golden.inputs, golden.attributes)
    assert golden.wanted
    for output, wanted in golden.wanted:
        assert relative_error(np.asarray(got[output]), wanted) <= golden.tolerance
    for output, wrong in golden.wrong:
        assert relative_error(np.asarray(got[output]), wrong) > 0.1


@pytest.mark.parametrize("path", [path for path in GOLDENS if path.stem.startswith("flash_")], ids=lambda path: path.stem)
def test_flash_deform_attn_equals_published_output(path: Path) -> None:
    import torch

    from deploydcn.nn import flash_deform_attn

    arrays, published = load(path)
    tensors = [torch.from_numpy(arrays[f"in_{name}"]) for name in ("value", "spatial_shapes", "level_start_index", "sampling_loc_attn")]
    got = flash_deform_attn(*tensors, points=published["K"])
    assert relative_error(got.numpy(), arrays["out_output"].reshape(got.shape)) <= 5e-6


# A module pools twice: fully connected layers predict the second pass' offsets (and mask) from the first's result.
MODULE_TOLERANCE = 1e-5  # the float32 sums of its layers too


def fully_connected(arrays: Mapping[str, np.ndarray], prefix: str, x: np.ndarray) -> np.ndarray:
    """nn.Linear layers with ReLU between, by the numbers of nn.Sequential."""
    y = x.reshape(x.shape[0], -1).astype(np.float64)
    layers = sorted(int(name.split("_")[-2]) for name in arrays if name.startswith(prefix) and name.endswith("_weight"))
    for layer in layers:
        y = np.maximum(y, 0) if layer else y
        y = y @ arrays[f"{prefix}_{layer}_weight"].T + arrays[f"{prefix}_{layer}_bias"]
    return np.asarray(y, np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x.astype(np.float64))))


@pytest.mark.parametrize("kind", ["DeformRoIPoolPack", "ModulatedDeformRoIPoolPack"])
@pytest.mark.parametrize("backend", ["reference", *BACKENDS, *EMULATED])
def test_equals_mmcvs_modules(kind: str, backend: str) -> None:
    arrays, published = load(MODULES[f"mmcv_roi_modules__{kind}"])
    height, width = published.pop("output_size")
    attributes = {"output_height": height, "output_width": width, **published}
    inputs = {"input": arrays["in_x"], "rois": arrays["in_rois"]}
    first = np.asarray(compute(backend, "DeformRoIPool", inputs, attributes)[0])
    assert relative_error(first, arrays["out_first_pass"]) <= MODULE_TOLERANCE
    count = len(arrays["in_rois"])
    offset = fully_connected(arrays, "in_offset_fc", first).reshape(count, 2, height, width)
    second = np.asarray(compute(backend, "DeformRoIPool", {**inputs, "offset": offset}, attributes)[0])
    if kind.startswith("Modulated"):
        second = second * sigmoid(fully_connected(arrays, "in_mask_fc", first)).reshape(count, 1, height, width)
    assert relative_error(second, arrays["out_output"]) <= MODULE_TOLERANCE


@pytest.mark.parametrize("backend", ["reference", *BACKENDS, *EMULATED])
def test_equals_charlesshangs_module(backend: str) -> None:
    arrays, attributes = load(MODULES["charlesshang_dcnpooling_module__basic"])
    inputs = {"input": arrays["in_x"], "rois": arrays["in_rois"]}
    first = np.asarray(compute(backend, "DeformPSRoIPool", inputs, attributes)[0])
    assert relative_error(first, arrays["out_first_pass"]) <= MODULE_TOLERANCE
    size = attributes["pooled_size"]
    prediction = fully_connected(arrays, "in_offset_mask_fc", first).reshape(-1, 3, size, size)
    second = np.asarray(compute(backend, "DeformPSRoIPool", {**inputs, "offset": prediction[:, :2]}, attributes)[0])
    assert relative_error(second * sigmoid(prediction[:, 2:]), arrays["out_output"]) <= MODULE_TOLERANCE
