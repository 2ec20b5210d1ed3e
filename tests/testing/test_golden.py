"""Goldens: what a reference computed once, in a file beside the test; recorded, compared with, and refused when they do not fit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploydcn.errors import InvalidArgument
from deploydcn.parity import Tolerance
from deploydcn.parity.golden import Golden, GoldenCase, GoldenRunner, read_golden, same_bytes, write_golden
from tests.parity.graphs import CHANNELS

pytest_plugins = "pytester"

PROVENANCE = {"command": "pytest", "date": "2026-11-22T12:00:00+00:00", "versions": {}, "reference": "torch 2.14 (Net)", "model": ""}

BFLOAT16 = np.array([1.5, -2.0], "bfloat16")  # ml_dtypes, which onnx brings, registers the name
ARRAYS = {
    "bfloat16": BFLOAT16,
    "float16_nan": np.array([[np.nan, np.inf]], np.float16),
    "scalar": np.array(3.0),
    "empty/with a path": np.zeros((0, 4), np.int64),
    "bool": np.array([True, False]),
}


def golden_of(arrays: dict[str, np.ndarray], label: str = "seed 0") -> Golden:
    return Golden((GoldenCase(label, {"x": BFLOAT16}, arrays),), Tolerance(0.5, "half of everything"), PROVENANCE)


def test_every_type_and_name_comes_back_bit_for_bit(tmp_path: Path) -> None:
    write_golden(tmp_path / "new" / "g.npz", golden_of(ARRAYS))
    back = read_golden(tmp_path / "new" / "g.npz")
    assert (back.tolerance, back.provenance) == (Tolerance(0.5, "half of everything"), PROVENANCE)
    (case,) = back.cases
    assert list(case.outputs) == list(ARRAYS)
    assert all(same_bytes(case.outputs[name], array) for name, array in ARRAYS.items())
    assert same_bytes(GoldenRunner(back, "g.npz").run([BFLOAT16])["scalar"], ARRAYS["scalar"])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["g.npz"]


def edited(path: Path, **changes: object) -> None:
    """The file with other metadata; None removes an entry."""
    arrays = dict(np.load(path))
    metadata = {**json.loads(str(arrays["metadata"])), **changes}
    arrays["metadata"] = np.array(json.dumps({key: value for key, value in metadata.items() if value is not None}))
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "is 'deploydcn golden' version 2; wanted 'deploydcn golden' version 1; record it again"),
        ({"format": "other"}, "is 'other' version 1"),
        ({"version": None}, "has no readable metadata"),
        ({"cases": []}, "no cases"),
        ({"provenance": {"command": "pytest"}}, "a part of its provenance is missing"),
        ({"tolerance": {"relative": 1}}, "damaged golden"),
        ({"cases": [{"label": "a", "inputs": [], "outputs": [{"name": "y", "key": "gone", "dtype": "float32"}]}]}, "damaged golden .*gone"),
    ],
    ids=["newer", "foreign", "no_version", "no_cases", "no_provenance", "no_reason", "no_array"],
)
def test_other_formats_and_damage_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "g.npz"
    write_golden(path, golden_of({"y": np.zeros(2, np.float32)}))
    edited(path, **changes)
    with pytest.raises(InvalidArgument, match=message):
        read_golden(path)


def test_a_file_that_is_no_golden_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.zeros(2))
    with pytest.raises(InvalidArgument, match=r"is no golden: .*wanted a file that --parity-record wrote"):
        read_golden(tmp_path / "inputs.npz")
    whole = tmp_path / "g.npz"
    write_golden(whole, golden_of(ARRAYS))
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(InvalidArgument, match=r"is not a readable \.npz file"):
        read_golden(whole)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the system call, since an administrator may write everywhere; and by a file in the folder's place."""
    (tmp_path / "goldens").write_text("a file")
    with pytest.raises(InvalidArgument, match=r"cannot write .*g.npz: File exists; goldens need the folder"):
        write_golden(tmp_path / "goldens" / "g.npz", golden_of(ARRAYS))
    path = tmp_path / "g.npz"
    write_golden(path, golden_of(ARRAYS))
    before = path.read_bytes()

    def refused(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("deploydcn.parity.golden.np.savez_compressed", full)
        with pytest.raises(OSError, match="no space left"):
            write_golden(path, replace(golden_of(ARRAYS), provenance={**PROVENANCE, "command": "another"}))
    monkeypatch.setattr("deploydcn.files.tempfile.mkdtemp", refused)
    with pytest.raises(InvalidArgument, match=r"cannot write .*g.npz: Permission denied; check the folder's permissions"):
        write_golden(path, golden_of(ARRAYS))
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["g.npz", "goldens"]


RECORDED = """
def test_release(parity):
    parity("good.onnx", "same.onnx", golden="network")
"""
GOLDEN = Path("goldens/network.npz")


@pytest.fixture
def recorded(project: pytest.Pytester) -> pytest.Pytester:
    project.makepyfile(test_release=RECORDED)
    result = project.runpytest("--parity-record")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["recorded goldens/network.npz"])
    return project


@pytest.mark.backend("ort")
def test_recording_says_where_the_numbers_come_from(recorded: pytest.Pytester) -> None:
    golden = read_golden(GOLDEN)
    assert [case.label for case in golden.cases] == ["seed 0", "seed 1"]
    assert golden.cases[0].outputs["y"].shape == (1, CHANNELS, 8, 8)
    assert golden.tolerance.relative == 1e-4
    assert golden.provenance["command"] == "pytest --parity-record test_release.py::test_release"
    assert golden.provenance["model"] == hashlib.sha256(Path("good.onnx").read_bytes()).hexdigest()
    assert golden.provenance["versions"]["onnxruntime"]
    assert "good.onnx" in golden.provenance["reference"]


@pytest.mark.backend("ort")
def test_the_reference_is_not_needed_afterwards(recorded: pytest.Pytester) -> None:
    Path("good.onnx").unlink()
    recorded.runpytest().assert_outcomes(passed=1)
    Path("bad.onnx").replace("same.onnx")
    result = recorded.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAIL: * (same.onnx) against golden network.npz (ort * (good.onnx))*", "*network.npz was recorded on *"])
    assert "record it: pytest --parity-record test_release.py::test_release" in "\n".join(result.outlines)


@pytest.mark.backend("ort")
def test_locate_compares_with_the_reference_itself(recorded: pytest.Pytester) -> None:
    recorded.makepyfile(test_release=RECORDED.replace('"same.onnx"', '"bad.onnx", locate=True'))
    result = recorded.runpytest()
    result.stdout.fnmatch_lines(["*inside the models, on seed *", "*conv3 (Conv)* is the*"])


@pytest.mark.backend("ort")
def test_locate_does_not_hide_the_failure_when_it_cannot_help(recorded: pytest.Pytester) -> None:
    """The reference has changed as the candidate has; or it is gone, as PyTorch may be where files only are tested."""
    recorded.makepyfile(test_release=RECORDED.replace('"same.onnx"', '"bad.onnx", locate=True'))
    Path("good.onnx").write_bytes(Path("bad.onnx").read_bytes())
    result = recorded.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no layer is to blame: the reference computes today what the candidate does*", "*was recorded on*"])
    recorded.makepyfile(test_release=RECORDED.replace('"good.onnx", "same.onnx"', '"gone:build", "bad.onnx", locate=True'))
    result = recorded.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*FAIL: *bad.onnx*", "*no layer was looked for: cannot import 'gone'*"])


@pytest.mark.backend("ort")
def test_a_missing_golden_names_the_command(project: pytest.Pytester) -> None:
    project.makepyfile(test_release=RECORDED)
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no golden *network.npz; record it: pytest --parity-record test_release.py::test_release"])
    assert not GOLDEN.exists()


@pytest.mark.backend("ort")
def test_a_candidate_that_differs_is_not_recorded(recorded: pytest.Pytester) -> None:
    before = GOLDEN.read_bytes()
    Path("bad.onnx").replace("same.onnx")
    result = recorded.runpytest("--parity-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*not recorded: *network.npz stays as it was, since the candidate differs from the reference"])
    assert GOLDEN.read_bytes() == before


@pytest.mark.backend("ort")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("seeds=3", "seed 2"),
        ("seeds=1", "seed 1"),
        ("kinds=('zeros',)", "zeros"),
        ("inputs={'x': np.ones((1, 4, 8, 8), 'float32')}", "given, seed 0, seed 1"),
        ("shapes={'x': (2, 4, 8, 8)}", "seed 0, seed 1"),
        ("shapes={'gone': (1, 4, 8, 8)}", "no input named 'gone'"),
    ],
    ids=["more_seeds", "fewer_seeds", "kinds", "given", "shapes", "name"],
)
def test_a_test_that_asks_for_other_inputs_fails(recorded: pytest.Pytester, options: str, named: str) -> None:
    recorded.makepyfile(test_release="import numpy as np\n" + RECORDED.replace('golden="network"', f'golden="network", {options}'))
    result = recorded.runpytest()
    result.assert_outcomes(failed=1)
    text = "\n".join(result.outlines)
    assert f"({named}" in text
    assert "record it: pytest --parity-record" in text


@pytest.mark.backend("ort")
def test_given_inputs_must_be_the_recorded_ones(project: pytest.Pytester) -> None:
    source = """
        import numpy as np

        def test_release(parity):
            parity("good.onnx", "same.onnx", [np.full((1, 4, 8, 8), VALUE, np.float32)], golden="network")
    """
    project.makepyfile(test_release=source.replace("VALUE", "1.0"))
    project.runpytest("--parity-record").assert_outcomes(passed=1)
    project.runpytest().assert_outcomes(passed=1)
    project.makepyfile(test_release=source.replace("VALUE", "1.001"))
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*holds other inputs than the test asks for (given); record it:*"])


@pytest.mark.backend("ort")
def test_the_recorded_tolerance_counts_until_the_test_gives_one(recorded: pytest.Pytester) -> None:
    golden = read_golden(GOLDEN)
    write_golden(GOLDEN, replace(golden, tolerance=Tolerance(0.5, "wide")))
    recorded.makepyfile(test_release=RECORDED.replace("same", "bad"))
    recorded.runpytest().assert_outcomes(passed=1)
    recorded.makepyfile(test_release=RECORDED.replace('"same.onnx"', '"bad.onnx", tolerance=1e-4'))
    recorded.runpytest().assert_outcomes(failed=1)


@pytest.mark.backend("ort")
def test_names_stay_in_their_folder(project: pytest.Pytester) -> None:
    project.makepyfile(test_release=RECORDED.replace('"network"', '"../network"'))
    result = project.runpytest("--parity-record")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*golden is '../network'; wanted a name of letters*"])
    assert not Path("../network.npz").exists()


@pytest.mark.slow
@pytest.mark.backend("ort")
@pytest.mark.backend("torch")
def test_a_torch_reference_is_known_by_its_parameters(project: pytest.Pytester) -> None:
    """Its example is recorded too; other weights are other numbers, and another hash. In processes of their own: torch imports once."""
    Path("net.py").write_text("import torch\ndef build():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 2), torch.ones(3, 4)\n")
    project.makepyfile(
        test_release="""
        def test_release(parity):
            parity("net.py:build", "net.py:build", golden="linear")
        """
    )
    project.runpytest_subprocess("--parity-record").assert_outcomes(passed=1)
    first = read_golden(Path("goldens/linear.npz"))
    assert [case.label for case in first.cases] == ["example", "seed 0", "seed 1"]
    project.runpytest_subprocess().assert_outcomes(passed=1)
    source = Path("net.py").read_text()
    Path("net.py").write_text(source.replace("manual_seed(0)", "manual_seed(1)"))
    project.runpytest_subprocess().assert_outcomes(failed=1)
    project.runpytest_subprocess("--parity-record").assert_outcomes(passed=1)
    again = read_golden(Path("goldens/linear.npz"))
    assert len(str(first.provenance["model"])) == 64
    assert first.provenance["model"] != again.provenance["model"]


def test_the_example_of_a_runner_without_one_is_none() -> None:
    golden = golden_of({"y": np.zeros(2, np.float32)})
    assert GoldenRunner(golden, "g").example is None
    assert GoldenRunner(replace(golden, cases=(replace(golden.cases[0], label="example"),)), "g").example is not None
