"""pytest plugin, active wherever deploydcn and pytest are installed: the fixture `parity` compares two models and fails with the report.

    @pytest.mark.parity(tolerance=1e-4, locate=True)
    def test_export(parity, tmp_path):
        deploydcn.export_onnx(model, example, tmp_path / "model.onnx")
        parity((model, example), tmp_path / "model.onnx")
        parity("model.py:build", "released.onnx", golden="released")  # the reference runs under --parity-record only

    @pytest.mark.backend("ort")  # skipped where ONNX Runtime is missing, with the reason; failed under --require=ort
    def test_engine(parity): ...

Options: `--parity-record` writes goldens anew, `--require=ort,torch` (or `--parity-require`) fails what a missing backend would skip,
`--parity-repro DIR` keeps the folders that show a located layer by itself. A project declares backends of its own by the hook
`pytest_deploydcn_backends` in the conftest.py that lies in its rootdir or in a folder of its `testpaths`. JUnit files get the properties
parity_reference, parity_candidate, parity_output, parity_worst_error and parity_tolerance; under GitHub Actions failures are annotated
in the file that they happen in. A test that takes the fixture and compares nothing fails.

Nothing is imported before it is used: pytest starts in an environment with the base dependencies only.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from deploydcn.testing.parity_fixture import Parity

Backends = Mapping[str, Callable[[], str]]

MODULES = {"torch": "torch", "ort": "onnxruntime", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
"""The backends of `deploydcn.load`, and the module that each one needs."""


@dataclass
class Record:
    """What happened in a test, for its reports. annotations: (file, line, message). goldens: files written."""

    comparisons: int = 0
    takes_parity: bool = False
    skipped: str = ""
    annotations: list[tuple[str, int, str]] = field(default_factory=list)
    goldens: list[str] = field(default_factory=list)


RECORD: pytest.StashKey[Record] = pytest.StashKey()
BACKENDS: pytest.StashKey[dict[str, Callable[[], str]]] = pytest.StashKey()
COMPLETE: pytest.StashKey[bool] = pytest.StashKey()


class Hooks:
    """Hooks that a conftest.py may implement."""

    @pytest.hookspec
    def pytest_deploydcn_backends(self) -> Backends:  # type: ignore[empty-body]
        """Further names for `@pytest.mark.backend(name)` and `--require`: each with a function that says why it is missing here, "" when
        it is there. A project that implements this declares all its names: others are refused."""


def installed(module: str) -> Callable[[], str]:
    """A backend that is there when this module is installed."""
    return lambda: "" if importlib.util.find_spec(module) else f"package {module} is not installed"


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("deploydcn", "parity of models (deploydcn)")
    group.addoption("--parity-record", action="store_true", help="run the references, and write the goldens of the chosen tests anew")
    group.addoption(
        "--parity-repro", metavar="DIR", help="where folders that reproduce a located layer go; each test's tmp_path if left out"
    )
    group.addoption(
        "--require",
        "--parity-require",
        dest="parity_require",
        action="append",
        default=[],
        metavar="BACKEND",
        help=f"backends, separated by commas, whose tests fail where they would be skipped: {', '.join(MODULES)} and the project's own",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "backend(name): skipped with the reason where this is missing, failed under --require=name")
    config.addinivalue_line(
        "markers", "parity(**options): defaults of the fixture parity's calls in this test; see deploydcn.testing.parity_fixture"
    )
    declared = config.hook.pytest_deploydcn_backends()
    known = {name: installed(module) for name, module in MODULES.items()}
    for names in declared:
        known.update(names)
    config.stash[BACKENDS], config.stash[COMPLETE] = known, bool(declared)
    if unknown := required(config) - set(known):
        raise pytest.UsageError(f"--require names {', '.join(sorted(unknown))}; wanted some of {', '.join(known)}")


def required(config: pytest.Config) -> set[str]:
    """The names after --require."""
    return {name for names in config.getoption("parity_require") for name in names.split(",") if name}


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Parity:
    """Compare two models; fail with the report's table where they differ. See `deploydcn.testing.parity_fixture.Parity`."""
    from deploydcn.testing.parity_fixture import Parity

    record = request.node.stash[RECORD]
    record.takes_parity = True
    return Parity(request, record)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[RECORD] = Record()
    for name in _needed(item):
        if missing := item.config.stash[BACKENDS][name]():
            skip_or_fail(item, name, missing)


def skip_or_fail(item: pytest.Item, backend: str, missing: str) -> None:
    """End a test whose backend is missing: skipped, or failed where it is required."""
    __tracebackhide__ = True
    message = f"backend {backend}: {missing}"
    if backend in required(item.config):
        item.stash[RECORD].annotations.append((str(item.path), (item.location[1] or 0) + 1, message))
        pytest.fail(message, pytrace=False)
    item.stash[RECORD].skipped = message
    pytest.skip(message)


def _needed(item: pytest.Item) -> list[str]:
    """Names of a test's backend marks. Where a project declares none of its own, other names are somebody else's marks."""
    names = [mark.args[0] for mark in item.iter_markers("backend") if mark.args]
    known, complete = item.config.stash[BACKENDS], item.config.stash[COMPLETE]
    unknown = [name for name in names if name not in known]
    if unknown and complete:
        pytest.fail(f"no backend is called {', '.join(map(repr, unknown))}; wanted some of {', '.join(known)}", pytrace=False)
    return [name for name in names if name in known]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What the test recorded travels with its report, from xdist's workers too. Tests that prove nothing fail: one that compares nothing
    with the fixture, and one that skips itself although all its backends are there, required ones among them."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    record = item.stash.get(RECORD, Record())
    if report.when == "call" and report.passed and record.takes_parity and not record.comparisons and not hasattr(report, "wasxfail"):
        _fail(item, report, "the test asked for the fixture parity and compared nothing; call parity(reference, candidate)")
    if report.skipped and not hasattr(report, "wasxfail"):
        backends = _needed(item)
        names = [name for name in backends if name in required(item.config)]
        if names and not any(item.config.stash[BACKENDS][name]() for name in backends):
            _fail(item, report, f"skipped although --require={','.join(names)}: {report.longrepr}")
    if report.failed and report.when != "teardown":
        report.parity_annotations = record.annotations
    if report.skipped:
        report.parity_skipped = record.skipped
    if report.when == "call":
        report.parity_goldens = record.goldens


def _fail(item: pytest.Item, report: pytest.TestReport, message: str) -> None:
    report.outcome = "failed"
    report.longrepr = message
    item.stash[RECORD].annotations.append((str(item.path), (item.location[1] or 0) + 1, message))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [report for group in terminalreporter.stats.values() for report in group if isinstance(report, pytest.TestReport)]
    skipped = Counter(reason for report in reports if (reason := getattr(report, "parity_skipped", "")))
    goldens = sorted({golden for report in reports for golden in getattr(report, "parity_goldens", ())})
    annotations = [annotation for report in reports for annotation in getattr(report, "parity_annotations", ())]
    if skipped or goldens:
        terminalreporter.section("parity")
    for reason, count in sorted(skipped.items()):
        name = reason.removeprefix("backend ").partition(":")[0]
        terminalreporter.write_line(f"{count} skipped, {reason}; --require={name} makes that a failure")
    for golden in goldens:
        terminalreporter.write_line(f"recorded {_relative(golden, config.rootpath)}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        terminalreporter.ensure_newline()
        for file, line, message in annotations:
            terminalreporter.write_line(annotation_command(_relative(file, config.rootpath), line, message))


def annotation_command(file: str, line: int, message: str) -> str:
    """GitHub's workflow command that shows an error at a line of a file."""
    text = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for character, code in (("%", "%25"), (":", "%3A"), (",", "%2C")):
        file = file.replace(character, code)
    return f"::error file={file},line={line},title=parity::{text}"


def _relative(file: str, root: Path) -> str:
    """As seen from the root of the repository under GitHub Actions, from pytest's root elsewhere."""
    base = Path(os.environ.get("GITHUB_WORKSPACE", root))
    return Path(file).relative_to(base).as_posix() if Path(file).is_relative_to(base) else file


def parity_defaults(item: pytest.Item) -> dict[str, Any]:
    """The options of the test's parity marks; the closest one wins."""
    options: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers("parity"))):
        if mark.args:
            pytest.fail(f"@pytest.mark.parity got {mark.args!r} without names; wanted options by name, as in tolerance=1e-3", pytrace=False)
        options.update(mark.kwargs)
    return options
