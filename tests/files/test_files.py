"""Files written by earlier versions still load and give the numbers they gave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import deploydcn
from deploydcn.onnx_schema import register_schemas

FILES = sorted(Path(__file__).parent.glob("v*/*.onnx"))


def test_there_are_files() -> None:
    assert len(FILES) >= 4


@pytest.mark.backend("ort")
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_file_still_gives_its_numbers(path: Path) -> None:
    register_schemas()
    onnx.checker.check_model(str(path), full_check=True)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    inputs = {name.removeprefix("in_"): value for name, value in arrays.items() if name.startswith("in_")}
    wanted = {name.removeprefix("out_"): value for name, value in arrays.items() if name.startswith("out_")}
    native = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 25)
    got = deploydcn.load(path, replace_standard=not native).run(inputs)
    assert list(got) == list(wanted)
    for name, value in wanted.items():
        assert np.abs(got[name] - value).max() <= 2e-6 * np.abs(value).max(), name
