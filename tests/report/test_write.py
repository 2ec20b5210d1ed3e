"""The files of a report: what stands in them, what is refused, and that nothing is half written."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import deploydcn
from deploydcn.errors import InvalidArgument, RuntimeFailure
from deploydcn.parity import ParityReport
from deploydcn.report import check_report_path, compare_sampling, write, write_report
from deploydcn.report.images import case_to_draw, images_of, is_picture, window_around
from tests.report.models import IMAGE, Boxes, net, report_of, swapped
from tests.visual.models import photograph

pytestmark = [pytest.mark.backend("torch"), pytest.mark.backend("jinja2")]


@pytest.fixture(scope="module")
def passing() -> ParityReport:
    return report_of(net(), net())


@pytest.fixture(scope="module")
def failing() -> ParityReport:
    return report_of(net(), swapped())


class Text(HTMLParser):
    """A page's text by the id around it, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def ids(self) -> set[str | None]:
        return {attributes["id"] for _, attributes in self.tags if "id" in attributes}


def page_of(report: ParityReport, folder: Path, **options: Any) -> Text:
    write_report(report, folder / "page.html", **options)
    return Text((folder / "page.html").read_text(encoding="utf-8"))


def test_a_page_of_a_failure_names_the_layer_and_shows_its_points(failing: ParityReport, tmp_path: Path) -> None:
    page = page_of(failing, tmp_path, models=(net(), swapped()), command="deploydcn verify a b")
    assert "FAIL: the candidate gives other numbers" in page.text
    assert "The layer at fault: 3.offset_conv" in page.text
    assert "1 of 3 deformable layers look elsewhere: 3 first." in page.text
    assert "deploydcn verify a b" in page.text
    assert {"network", "layers", "fault", "statistics", "layer-histograms", "output-histograms", "sampling", "environment"} <= page.ids()
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 1
    assert "18 sampling points" in str(pictures[0]["alt"])


def test_a_page_of_a_success_blames_nothing(passing: ParityReport, tmp_path: Path) -> None:
    page = page_of(passing, tmp_path, models=(net(), net()))
    assert "PASS: the candidate gives the reference's numbers" in page.text
    assert "FAIL" not in page.text
    assert "all 3 deformable layers look at the same points" in page.text
    assert not {"fault", "layer-histograms"} & page.ids()
    assert not [tag for tag, _ in page.tags if tag in ("img", "script", "link", "iframe")]


def test_json_is_strict_and_complete(failing: ParityReport, tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    lost = replace(failing.cases[0].outputs[0], max_abs=math.nan, worst_channel=math.inf)
    report = replace(failing, cases=(replace(failing.cases[0], outputs=(lost,)), *failing.cases[1:]))
    write_report(report, tmp_path / "report.json", models=(net(), swapped()), command="again")
    told = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert told["passed"] is False
    assert told["location"]["finding"]["layer"]["path"] == "3.offset_conv"
    assert [layer["layer"] for layer in told["sampling"]["layers"] if layer["share"] > 0] == ["3"]
    assert told["command"] == "again"
    assert "numpy" in told["environment"]
    assert told["cases"][0]["outputs"][0]["worst_channel"] == "inf"


def test_junit_has_a_case_per_output_and_set_of_inputs(failing: ParityReport, passing: ParityReport, tmp_path: Path) -> None:
    write_report(failing, tmp_path / "bad.xml")
    suite = ElementTree.parse(tmp_path / "bad.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    tests = suite.findall("testcase")
    assert [(test.get("classname"), test.get("name")) for test in tests] == [("example", "output"), ("seed 0", "output")]
    assert all("allowed 0.0001" in str(test[0].get("message")) for test in tests)
    assert "3.offset_conv" in str(suite.findtext("system-out"))
    write_report(passing, tmp_path / "good.xml")
    suite = ElementTree.parse(tmp_path / "good.xml").getroot()[0]
    assert suite.get("failures") == "0"
    assert not suite.findall("testcase/failure")


def test_junit_takes_messages_that_xml_cannot_hold(failing: ParityReport, tmp_path: Path) -> None:
    """Runtimes colour their messages with escape characters."""
    case = failing.cases[0]
    broken = replace(case, outputs=(replace(case.outputs[0], mismatch="\x1b[31mred\x1b[0m & <broken> \x00"),))
    write_report(replace(failing, cases=(broken,)), tmp_path / "bad.xml")
    message = ElementTree.parse(tmp_path / "bad.xml").getroot().find(".//failure")
    assert message is not None
    assert "red" in str(message.get("message"))
    assert "& <broken>" in str(message.get("message"))


def test_names_cannot_break_out_of_the_page(failing: ParityReport, tmp_path: Path) -> None:
    hostile = "</title><script>alert(1)</script><b>"
    assert failing.location is not None
    layers = tuple(replace(layer, path=hostile) for layer in failing.location.layers)
    case = replace(failing.cases[0], label=hostile)
    location = replace(failing.location, layers=layers, explanation=hostile)
    page = page_of(replace(failing, candidate=hostile, cases=(case,), location=location), tmp_path, command=hostile)
    assert not [tag for tag, _ in page.tags if tag == "script"]
    assert hostile in page.text


def test_a_candidate_that_does_not_run_still_makes_a_report(tmp_path: Path) -> None:
    class Broken:
        """A runtime that refuses its model, and shows nothing of it."""

        name = "broken"
        inputs = outputs = deploydcn.load(net(), "torch").inputs

        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            raise RuntimeFailure("out of planted memory")

    page = page_of(report_of(net(), Broken()), tmp_path, models=(net(), Broken()))
    assert "FAIL" in page.text
    assert "out of planted memory" in page.text
    assert "where deformable layers sample cannot be told" in page.text


def test_outputs_without_a_location_are_enough(tmp_path: Path) -> None:
    page = page_of(report_of(net(), swapped(), locate=False), tmp_path)
    assert "output-histograms" in page.ids()
    assert not {"network", "sampling"} & page.ids()


def test_boxes_are_listed_and_drawn(tmp_path: Path) -> None:
    report = report_of((Boxes(), IMAGE), (Boxes(shift=2.0, score=0.05, label=5), IMAGE), seeds=0)
    (item,) = report.cases[0].detections
    assert (len(item.pairs), len(item.renamed)) == (2, 1)
    page = page_of(report, tmp_path)
    assert "detections" in page.ids()
    assert "differ" in page.text
    assert [attributes["alt"] for tag, attributes in page.tags if tag == "img"] == [
        "Left the 3 boxes of the reference, right the 3 of the candidate."
    ]
    same = page_of(report_of((Boxes(), IMAGE), (Boxes(), IMAGE), seeds=0), tmp_path)
    assert "the same" in same.text
    assert "differ</span>" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report.pdf", r"report.pdf: what to write follows from the name; wanted .html, .json or .xml"),
        ("none/report.html", "folder .*none does not exist; create it first"),
        ("folder.html", "is a folder, wanted a file name"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InvalidArgument, match=message):
        check_report_path(tmp_path / name)


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write.os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InvalidArgument, match="check the folder's permissions"):
        check_report_path(tmp_path / "report.xml")


def test_nothing_is_written_when_one_file_cannot_be_made(failing: ParityReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("planted")

    monkeypatch.setattr("deploydcn.report.page.page", fail)
    with pytest.raises(RuntimeError, match="planted"):
        write_report(failing, tmp_path / "report.json", tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_layers_of_other_names_are_paired_in_order(failing: ParityReport) -> None:
    model, image = net()
    found = compare_sampling((net(), (nn.Sequential(nn.Identity(), model), image)), failing.cases[0])
    assert [layer.layer for layer in found.layers] == ["1", "3", "4"]
    assert all(layer.share == 0 for layer in found.layers)
    assert any("paired in order" in note for note in found.notes)


def test_what_cannot_be_watched_is_a_note(failing: ParityReport) -> None:
    found = compare_sampling((net(), "model.engine"), failing.cases[0])
    assert found.layers == ()
    assert "an engine does not tell" in found.notes[0]
    vector = (nn.Linear(4, 2), torch.rand(1, 4))
    assert "no input takes an image" in compare_sampling((vector, vector), report_of(vector, vector).cases[0]).notes[0]


def test_a_picture_is_told_from_noise(failing: ParityReport) -> None:
    rng = np.random.default_rng(0)
    assert is_picture(photograph())
    assert not is_picture(images_of({"x": rng.standard_normal((1, 3, 48, 64))})[0])
    assert not is_picture(np.full((9, 9, 3), 7, np.uint8))
    # Noise errs more in this model; the photograph is what points are drawn on.
    assert failing.worst[0].label == "seed 0"
    assert case_to_draw(failing).label == "example"


@pytest.mark.parametrize("scale", [1.0, 255.0], ids=["unit", "bytes"])
def test_images_are_what_the_model_saw(scale: float) -> None:
    planes = photograph().transpose(2, 0, 1)[None] / 255 * scale
    assert np.abs(images_of({"mask": np.ones((1, 4)), "x": planes.astype(np.float32)})[0].astype(int) - photograph()).max() <= 1


def test_a_window_holds_the_points_and_stays_inside() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    points = np.array([[10.0, 150.0], [20.0, 190.0], [np.nan, 0.0], [500.0, np.inf]])
    rows, columns = window_around(image, points[:2])
    assert rows.start <= 10 <= 20 < rows.stop <= 100
    assert columns.start <= 150 <= 190 < columns.stop <= 200
    assert columns.start > 50
    rows, columns = window_around(image, points)
    assert 0 <= rows.start < rows.stop <= 100
    assert 0 <= columns.start < columns.stop <= 200
