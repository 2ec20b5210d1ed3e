"""The pytest plugin, seen by somebody who runs pytest: each test runs a small suite in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from onnx import helper

from deploydcn.testing.pytest_plugin import annotation_command
from tests.parity.graphs import node_named

pytest_plugins = "pytester"
pytestmark = pytest.mark.backend("ort")

FAILING = """
def test_release(parity):
    parity("good.onnx", "bad.onnx", seeds=1)
"""


def text_of(result: pytest.RunResult) -> str:
    return "\n".join(result.outlines)


def test_the_plugin_is_light() -> None:
    """It is loaded by every pytest of an environment: it must not load what such a run does not need."""
    code = "import deploydcn.testing.pytest_plugin, sys; print({'torch', 'onnxruntime', 'tensorrt'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_equal_models_pass(project: pytest.Pytester) -> None:
    project.makepyfile("""
        def test_release(parity):
            report = parity("good.onnx", "same.onnx", seeds=3)
            assert [case.label for case in report.cases] == ["seed 0", "seed 1", "seed 2"]
    """)
    project.runpytest("-W", "error::pytest.PytestUnknownMarkWarning").assert_outcomes(passed=1)


def test_a_difference_fails_with_the_table_and_the_place(project: pytest.Pytester) -> None:
    project.makepyfile(test_release=FAILING)
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*FAIL: ort * (bad.onnx) against ort * (good.onnx), 1 inputs; worst output*",
            "*seed 0*y*FAIL*",
            "*allowed: 0.0001 of a channel's*",
        ]
    )
    result.stdout.fnmatch_lines(["test_release.py:2: Failed"])
    assert "parity_fixture.py" not in text_of(result)  # our own frames are no help


@pytest.mark.parametrize("kept", [False, True], ids=["tmp_path", "given_folder"])
def test_locate_names_the_layer_and_writes_it(project: pytest.Pytester, kept: bool) -> None:
    project.makepyfile(test_release=FAILING.replace("seeds=1", "seeds=1, locate=True"))
    folder = project.path / "kept"
    result = project.runpytest("--basetemp", str(project.path / "base"), *(("--parity-repro", str(folder)) if kept else ()))
    result.stdout.fnmatch_lines(["*conv3 (Conv)* is the*", "*wrote */; python */reproduce.py shows it"])
    (script,) = (folder if kept else project.path / "base").rglob("reproduce.py")
    assert f"wrote {script.parent}/" in text_of(result)
    assert onnx.load(script.parent / "model.onnx").graph.node[0].name == "conv3"


def test_a_folder_that_cannot_be_written_hides_no_failure(project: pytest.Pytester) -> None:
    Path("taken").write_text("a file")
    project.makepyfile(test_release=FAILING.replace("seeds=1", "seeds=1, locate=True"))
    result = project.runpytest("--parity-repro=taken")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*conv3 (Conv)* is the*", "*no folder was written: *taken*"])


@pytest.mark.parametrize("locate", [False, True])
def test_a_candidate_that_does_not_run_fails_and_is_located(project: pytest.Pytester, locate: bool) -> None:
    """Of dynamic size, so that it loads: its shapes contradict each other only when there are some."""
    good = onnx.load("good.onnx")
    for value in (*good.graph.input, *good.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "h"
        value.type.tensor_type.shape.dim[3].dim_param = "w"
    onnx.save(good, "good.onnx")
    node_named(good, "conv3").attribute.append(helper.make_attribute("strides", [2, 2]))
    onnx.save(good, "strided.onnx")
    project.makepyfile(f"""
        def test_release(parity):
            parity("good.onnx", "strided.onnx", shapes={{"x": (1, 4, 8, 8)}}, locate={locate})
    """)
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    wanted = "*conv3: strides is [[]2, 2[]], in the reference None*" if locate else "*RuntimeFailure: ort * (strided.onnx) failed*"
    result.stdout.fnmatch_lines([wanted])


def test_marks_set_defaults_and_calls_override_them(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        pytestmark = pytest.mark.parity(tolerance=1.0, seeds=1)

        def test_module(parity):
            report = parity("good.onnx", "bad.onnx")
            assert (report.tolerance.relative, len(report.cases)) == (1.0, 1)

        @pytest.mark.parity(tolerance=0.5)
        def test_closer(parity):
            report = parity("good.onnx", "bad.onnx")
            assert (report.tolerance.relative, len(report.cases)) == (0.5, 1)

        def test_call(parity):
            parity("good.onnx", "bad.onnx", tolerance=1e-6)
    """)
    result = project.runpytest()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_call*"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "@pytest.mark.parity(tolerence=1)\ndef test(parity):\n    parity('good.onnx', 'same.onnx')",
            "parity got tolerence; wanted some of",
        ),
        ("@pytest.mark.parity(1e-3)\ndef test(parity):\n    parity('good.onnx', 'same.onnx')", "without names; wanted options by name"),
        ("def test(parity):\n    parity('good.onnx', 'gone.onnx')", "gone.onnx does not exist; wanted an ONNX file"),
        ("def test(parity):\n    parity('good.onnx', 'two.onnx')", "the reference has 1 outputs (y), the candidate 2 (y, relu0_out)"),
        ("def test(parity):\n    pass", "asked for the fixture parity and compared nothing"),
    ],
    ids=["unknown_option", "positional_mark", "no_such_file", "other_outputs", "no_comparison"],
)
def test_mistakes_fail_and_say_what_to_do(project: pytest.Pytester, source: str, message: str) -> None:
    model = onnx.load("good.onnx")
    model.graph.output.append(helper.make_tensor_value_info("relu0_out", onnx.TensorProto.FLOAT, None))
    onnx.save(model, "two.onnx")
    project.makepyfile(f"import pytest\n{source}")
    result = project.runpytest()
    result.assert_outcomes(failed=1)
    assert message in text_of(result)


def test_a_test_may_skip_or_be_expected_to_fail_without_comparing(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        def test_skips(parity):
            pytest.skip("not today")

        @pytest.mark.xfail
        def test_expected(parity):
            parity("good.onnx", "bad.onnx")
    """)
    project.runpytest().assert_outcomes(skipped=1, xfailed=1)


def test_junit_properties(project: pytest.Pytester) -> None:
    project.makepyfile(test_release=FAILING)
    project.runpytest("--junitxml=junit.xml")
    properties = {node.get("name"): node.get("value") for node in ElementTree.parse("junit.xml").iter("property")}
    assert {"parity_reference", "parity_candidate", "parity_output", "parity_worst_error", "parity_tolerance"} <= set(properties)
    assert "bad.onnx" in str(properties["parity_candidate"])
    assert properties["parity_output"] == "y (seed 0)"
    assert float(str(properties["parity_worst_error"])) > float(str(properties["parity_tolerance"])) == 1e-4


def test_annotations_name_file_and_line_on_github_only(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    project.mkpydir("suite").joinpath("test_release.py").write_text(FAILING)
    assert "::error" not in text_of(project.runpytest())
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(project.path))
    result = project.runpytest("--rootdir=suite", "suite")
    result.stdout.fnmatch_lines(["::error file=suite/test_release.py,line=3,title=parity::FAIL: *worst output 'y' (seed 0)*"])


def test_annotations_are_escaped() -> None:
    command = annotation_command("a,b:c%.py", 7, "100 %\nof it")
    assert command == "::error file=a%2Cb%3Ac%25.py,line=7,title=parity::100 %25%0Aof it"


BACKENDS = """
def pytest_deploydcn_backends():
    return {"robot": lambda: "no arm is connected", "battery": lambda: ""}
"""
NEEDS_ROBOT = """
import pytest

@pytest.mark.backend("robot")
def test_grip():
    raise AssertionError("must not run")
"""


def test_a_missing_backend_skips_with_its_reason(project: pytest.Pytester) -> None:
    project.makeconftest(BACKENDS)
    project.makepyfile(NEEDS_ROBOT)
    result = project.runpytest()  # without -ra
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["1 skipped, backend robot: no arm is connected; --require=robot makes that a failure"])


@pytest.mark.parametrize("option", ["--require=battery,robot", "--parity-require=robot"])
def test_required_backends_fail_instead(project: pytest.Pytester, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    project.makeconftest(BACKENDS)
    project.makepyfile(test_robot=NEEDS_ROBOT)
    result = project.runpytest(option)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*backend robot: no arm is connected", "::error file=test_robot.py,line=3,*::backend robot: no arm*"])


def test_a_test_that_skips_itself_beside_a_required_backend_fails(project: pytest.Pytester) -> None:
    project.makeconftest(BACKENDS)
    project.makepyfile("""
        import pytest

        @pytest.mark.backend("battery")
        def test_power():
            pytest.skip("too lazy")
    """)
    project.runpytest().assert_outcomes(skipped=1)
    result = project.runpytest("--require=battery")
    result.assert_outcomes(failed=1)
    assert "skipped although --require=battery" in text_of(result)


def test_unknown_backends_are_refused_where_a_project_declares_its_own(project: pytest.Pytester) -> None:
    project.makepyfile(NEEDS_ROBOT.replace('raise AssertionError("must not run")', "pass"))
    project.runpytest().assert_outcomes(passed=1)  # somebody else's mark
    project.makeconftest(BACKENDS.replace("robot", "arm"))
    result = project.runpytest()
    result.assert_outcomes(errors=1)
    assert "no backend is called 'robot'; wanted some of torch, ort" in text_of(result)
    refused = project.runpytest("--require=robot")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--require names robot; wanted some of *arm, battery*"])


def test_a_comparison_whose_package_is_missing_skips_or_fails(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    project.makepyfile(FAILING)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = project.runpytest()
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["1 skipped, backend ort: onnxruntime is not installed; *pip install 'deploydcn*--require=ort*"])
    project.runpytest("--require=torch").assert_outcomes(skipped=1)
    project.runpytest("--require=ort").assert_outcomes(failed=1)


@pytest.mark.slow
def test_workers_report_and_record_alike(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest-xdist: eight tests on two workers record one golden, a failure is annotated, a skip has its reason."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")
    project.makeconftest(BACKENDS)
    project.makepyfile(
        test_recorded="""
        import pytest

        @pytest.mark.parametrize("turn", range(8))
        def test_golden(parity, turn):
            parity("good.onnx", "same.onnx", golden="network")
        """,
        test_release=FAILING,
        test_robot=NEEDS_ROBOT,
    )
    result = project.runpytest_subprocess("-n", "2", "--parity-record", "--junitxml=junit.xml")
    result.assert_outcomes(passed=8, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["1 skipped, backend robot: no arm *", "recorded goldens/network.npz", "::error file=test_release.py,line=2,*"]
    )
    assert [path.name for path in Path("goldens").iterdir()] == ["network.npz"]
    assert "parity_worst_error" in Path("junit.xml").read_text()
    project.runpytest_subprocess("-n", "2", "test_recorded.py").assert_outcomes(passed=8)
