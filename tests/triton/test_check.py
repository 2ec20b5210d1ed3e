"""Faults planted into a repository that is sound: each is found, where it is."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import deploydcn
from deploydcn.cli import app
from deploydcn.errors import InvalidArgument
from deploydcn.triton.config_file import parse
from tests.triton.models import deformable, repository, squares

pytestmark = [pytest.mark.backend("ort"), pytest.mark.backend("tritonclient")]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    return repository(folder, deformable(folder / "net.onnx"))


@pytest.fixture
def copied(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "repository"))


def edit(pattern: str, replacement: str) -> Callable[[Path], None]:
    """Change the configuration, at the first place only."""

    def change(repository: Path) -> None:
        file = repository / "net" / "config.pbtxt"
        text = file.read_text()
        changed = re.sub(pattern, lambda _: replacement, text, count=1)
        assert changed != text
        file.write_text(changed)

    return change


def truncate(repository: Path) -> None:
    file = repository / "net" / "1" / "model.onnx"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_library(cut: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A damaged copy of our library in the repository, and named by the configuration."""

    def change(repository: Path) -> None:
        library = repository / "damaged.so"
        library.write_bytes(cut(deploydcn.ort_library_path().read_bytes()))
        edit(r'op_library_filename: "[^"]*"', f'op_library_filename: "{library}"')(repository)

    return change


@dataclass(frozen=True)
class Fault:
    """change: made to a copy of the repository. found: in a problem's text. at: its file in the model's folder; line: of it. warning: the
    model loads all the same."""

    change: Callable[[Path], object]
    found: str
    line: int | None = None
    at: str = "config.pbtxt"
    warning: bool = False


FAULTS = {
    "data type": Fault(edit("TYPE_FP32", "TYPE_FP16"), "input 'x' is TYPE_FP16; the model has TYPE_FP32", 7),
    "no data type": Fault(edit("data_type: TYPE_FP32", ""), "input 'x' is TYPE_INVALID; the model has TYPE_FP32", 5),
    "unknown type": Fault(edit("TYPE_FP32", "TYPE_FLOAT"), "TYPE_FLOAT", 7),
    "size": Fault(edit(r"dims: \[ 2,", "dims: [ 3,"), "input 'x' has dims [ 3, -1, -1 ]; the model has [ 2, -1, -1 ] behind the batch", 8),
    "rank": Fault(edit(r"dims: \[ 18,", "dims: [ -1, 18,"), "input 'offset' has dims [ -1, 18, -1, -1 ]", 13),
    "fixed output": Fault(edit(r"dims: \[ 4, -1", "dims: [ 4, 64"), "output 'y' has dims [ 4, 64, -1 ]; the model has [ 4, -1, -1 ]", 20),
    "size zero": Fault(edit(r"dims: \[ 2,", "dims: [ 0,"), "wanted sizes of 1 or more, or -1", 8),
    "no dims": Fault(edit(r"dims: \[ 2, -1, -1 \]", ""), "input 'x' has no dims", 5),
    "reshape": Fault(edit(r"-1, -1 \]", "-1, -1 ] reshape { shape: [ 3, -1, -1 ] }"), "different numbers of values", 8),
    "name of an input": Fault(edit('name: "x"', 'name: "images"'), "the model has no input 'images'; it has 'x', 'offset'", 6),
    "name of an output": Fault(edit('name: "y"', 'name: "Y"'), "the model has no output 'Y'; it has 'y'", 18),
    "an input twice": Fault(edit('name: "offset"', 'name: "x"'), "input 'offset' of the model is missing", 5),
    "name of the model": Fault(edit('name: "net"', 'name: "other"'), "wanted the same name", 1),
    "misspelt field": Fault(edit("max_batch_size", "max_batchsize"), "no field 'max_batchsize'; did you mean max_batch_size?", 3),
    "misspelt field inside": Fault(edit("data_type", "datatype"), "no field 'datatype'; did you mean data_type?", 7),
    "field twice": Fault(edit("max_batch_size: 8", "max_batch_size: 8\nmax_batch_size: 8"), "max_batch_size is given twice", 4),
    "negative batch": Fault(edit("max_batch_size: 8", "max_batch_size: -8"), "max_batch_size is -8", 3),
    "KIND_TPU": Fault(edit("KIND_CPU", "KIND_TPU"), "KIND_TPU", 26),
    "GPUs of a CPU": Fault(edit("KIND_CPU", "KIND_CPU gpus: 0"), "KIND_CPU and gpus exclude each other", 26),
    "negative instances": Fault(edit("count: 1", "count: -1"), "count is -1", 25),
    "preferred size": Fault(edit("dynamic_batching { }", "dynamic_batching { preferred_batch_size: 16 }"), "16 lies outside of 1 to", 29),
    "queue policy": Fault(
        edit("dynamic_batching { }", "dynamic_batching { default_queue_policy { } }"), "holds the batcher up", 29, warning=True
    ),
    "no backend": Fault(edit('backend: "onnxruntime"', ""), "names neither backend nor platform"),
    "label file": Fault(edit('name: "y"', 'name: "y" label_filename: "labels.txt"'), "label file 'labels.txt' is not in", 18),
    "served version": Fault(edit("^", "version_policy { specific { versions: 2 } }\n"), "version 2 is served and is not there", 1),
    "no library": Fault(edit("model_operations.*", ""), "does not open in ONNX Runtime", at="1/model.onnx"),
    "missing library": Fault(
        edit(r'op_library_filename: "[^"]*"', 'op_library_filename: "/no/lib.so"'), "library /no/lib.so does not exist", 30
    ),
    "relative library": Fault(edit(r'op_library_filename: "[^"]*"', 'op_library_filename: "lib.so"'), "wanted an absolute path", 30),
    "no shared library": Fault(damage_library(lambda content: b"RegisterCustomOps"), "is no shared library", 30),
    "another library": Fault(damage_library(lambda content: content[:4096]), "has no function RegisterCustomOps", 30),
    "truncated library": Fault(damage_library(lambda content: content[: len(content) // 2]), "ONNX Runtime", at="1/model.onnx"),
    "truncated model": Fault(truncate, "does not open in ONNX Runtime", at="1/model.onnx"),
    "truncated configuration": Fault(edit(r"output \[[^$]*", "output ["), "truncated", 16),
    "binary configuration": Fault(lambda folder: (folder / "net" / "config.pbtxt").write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
    "no model": Fault(lambda folder: (folder / "net" / "1" / "model.onnx").unlink(), "does not exist", at="1/model.onnx"),
    "no configuration": Fault(lambda folder: (folder / "net" / "config.pbtxt").unlink(), "holds no config.pbtxt", at=""),
    "version v1": Fault(lambda folder: (folder / "net" / "1").rename(folder / "net" / "v1"), "holds no version", at=""),
    "version 01": Fault(
        lambda folder: (folder / "net" / "1").rename(folder / "net" / "01"), "is not the number of a version", at="01", warning=True
    ),
    "fixed batch": Fault(lambda folder: squares(folder / "net" / "1" / "model.onnx", 2), "its first axis is not dynamic", 3),
    "other model": Fault(lambda folder: squares(folder / "net" / "1" / "model.onnx"), "the model has no input 'offset'; it has 'x'", 11),
}

RUN = {"data type", "no library", "truncated model"}
"""Faults that `make check` tries; each takes a second."""


@pytest.mark.parametrize("fault", [pytest.param(name, marks=() if name in RUN else pytest.mark.slow) for name in FAULTS])
def test_planted(copied: Path, fault: str) -> None:
    expected = FAULTS[fault]
    expected.change(copied)
    check = deploydcn.check_triton_repository(copied)
    place = copied / "net" / expected.at
    found = [problem for problem in check.problems if expected.found in problem.message and problem.path == place]
    assert {(problem.line, problem.warning) for problem in found} == {(expected.line, expected.warning)}, check.problems
    assert check.passed == all(problem.warning for problem in check.problems)


def test_a_sound_repository_passes(sound: Path) -> None:
    check = deploydcn.check_triton_repository(sound)
    assert check.problems == ()
    assert check.passed
    assert check.models == ("net",)


@pytest.mark.slow
def test_several_faults_are_all_told(copied: Path) -> None:
    for fault in ("data type", "name of the model", "KIND_TPU", "misspelt field inside", "preferred size", "label file"):
        FAULTS[fault].change(copied)
    (copied / "empty").mkdir()
    check = deploydcn.check_triton_repository(copied)
    lines = [problem.line for problem in check.problems if problem.path.name == "config.pbtxt"]
    assert set(lines) >= {1, 7, 18, 26, 29}
    assert any(problem.path == copied / "empty" for problem in check.problems)


def test_models_of_other_backends_are_checked_for_their_structure(tmp_path: Path) -> None:
    (tmp_path / "pre" / "1").mkdir(parents=True)
    (tmp_path / "pre" / "config.pbtxt").write_text('backend: "python"\ninstance_group { kind: KIND_CPU gpus: 1 }\n')
    check = deploydcn.check_triton_repository(tmp_path)
    assert [str(problem) for problem in check.problems] == [
        f"{tmp_path / 'pre' / 'config.pbtxt'}:2: KIND_CPU and gpus exclude each other; leave gpus out"
    ]
    assert check.notes[0] == "pre: models of backend 'python' are not opened, only their structure is checked"


def test_engines_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / "net" / "1" / "model.plan").write_bytes(b"vtrt" + bytes(100))
    (tmp_path / "net" / "config.pbtxt").write_text('backend: "tensorrt"\ninstance_group { kind: KIND_CPU }\n')
    texts = [str(problem) for problem in deploydcn.check_triton_repository(tmp_path).problems]
    assert "TensorRT engines run on GPUs only" in texts[0]
    assert "is an engine for TensorRT-RTX" in texts[1]


def test_command_line(tmp_path: Path) -> None:
    model = str(squares(tmp_path / "squares.onnx"))
    folder = tmp_path / "repository"
    done = CliRunner().invoke(app, ["triton", model, "-o", str(folder), "--batch", "4", "--delay-us", "100", "--gpu", "--json"])
    assert json.loads(done.output)["command"] == f"tritonserver --model-repository={folder}"
    text = (folder / "squares" / "config.pbtxt").read_text()
    assert "kind: KIND_GPU" in text
    assert "dynamic_batching { max_queue_delay_microseconds: 100 }" in text
    for wrong in ([], [model], ["--check", str(folder), "-o", "x"], [model, "-o", "x", "--tritonserver", "y"]):
        assert isinstance(CliRunner().invoke(app, ["triton", *wrong]).exception, InvalidArgument)


def test_check_on_the_command_line(sound: Path, copied: Path) -> None:
    FAULTS["missing library"].change(copied)
    good, bad = (CliRunner().invoke(app, ["triton", "--check", str(folder)]) for folder in (sound, copied))
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert f"{sound}: 1 model, 0 problems, 0 warnings" in good.output
    assert f"{copied / 'net' / 'config.pbtxt'}:30: library /no/lib.so does not exist" in bad.output


def test_places(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="does not exist; wanted the folder"):
        deploydcn.check_triton_repository(tmp_path / "no")
    with pytest.raises(InvalidArgument, match="is no program"):
        deploydcn.check_triton_repository(tmp_path, tritonserver=tmp_path / "no")
    assert not deploydcn.check_triton_repository(tmp_path).passed, "an empty repository is a mistake"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_text_breaks_the_reader(sound: Path, data: st.DataObject) -> None:
    text = (sound / "net" / "config.pbtxt").read_text()
    start = data.draw(st.integers(0, len(text)))
    text = text[:start] + data.draw(st.text('{}[]<>:,;-"#\\ \nname1\x00é', max_size=6)) + text[start + data.draw(st.integers(0, 30)) :]
    for line, mistake in parse(text).mistakes:
        assert 1 <= line <= text.count("\n") + 1
        assert mistake
