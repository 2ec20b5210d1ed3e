"""The page's addresses without a browser: what they answer, to whom, and what they refuse."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import deploydcn
from deploydcn.runners import TensorInfo
from deploydcn.serving.page import layers, routes
from deploydcn.serving.page.pictures import read_picture
from deploydcn.serving.page.routes import MOST_REQUESTS
from deploydcn.serving.refusal import Refusal
from deploydcn.vision import letterbox
from tests.serving.page.models import HEIGHT, WIDTH, Client, Reply, answering, detector, picture, with_page
from tests.serving.page.test_pictures import png_header
from tests.serving.page.test_results import DETECTORS, LOGITS

pytestmark = pytest.mark.backend("ort")


def ask(path: Path, address: str, body: bytes, **options: Any) -> Reply:
    async def scenario(client: Client) -> Reply:
        return await client("POST", address, body)

    reply = with_page(path, scenario, **options)
    assert isinstance(reply, Reply)
    return reply


@pytest.mark.parametrize("kind", [kind for kind in DETECTORS if kind != "yolo_half"])
def test_a_detector_answers(kind: str, tmp_path: Path) -> None:
    names = "{0: 'cat', 1: 'dog', 2: 'cow'}"
    reply = ask(answering(tmp_path / "m.onnx", DETECTORS[kind], names=names), "/demo/m", picture(40, 96))
    assert reply.status == 200
    assert (reply.json["image"], reply.json["input"]) == ([40, 96], [HEIGHT, WIDTH])
    assert [row["label"] for row in reply.json["detections"]] == ["dog", "cow"]
    assert reply.json["detections"][1]["box"] == pytest.approx([8, 0, 40, 48])
    spent = reply.json["milliseconds"]
    assert set(spent) == {"decode", "model", "results", "server"}
    assert spent["server"] == pytest.approx(spent["decode"] + spent["model"] + spent["results"])


def test_a_classifier_answers(tmp_path: Path) -> None:
    reply = ask(answering(tmp_path / "m.onnx", {"output": LOGITS}, names='["a", "b"]'), "/demo/m?version=1", picture())
    assert [row["label"] for row in reply.json["classes"]] == ["b", "class 2", "a", "class 5", "class 4"]


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    reply = ask(answering(tmp_path / "m.onnx", {"output": np.full((1, 2, 2, 2), np.nan, np.float32)}), "/demo/m", picture())
    assert reply.json["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [1, 2, 2, 2], "not_finite": 8}]


@pytest.mark.parametrize(
    ("address", "body", "status", "message"),
    [
        ("/demo/m", b"text", 400, "no image|cannot be read"),
        ("/demo/m", png_header(20000, 20000), 413, "too many pixels"),
        ("/demo/m", b"\0" * (1 << 20), 413, "larger than this server takes"),
        ("/demo/other", picture(), 404, "no model is named 'other'"),
        ("/demo/m?version=7", picture(), 404, "has no version '7'"),
        ("/demo/..%2f..%2fetc%2fpasswd", picture(), 404, "no model is named"),
        ("/demo/m/layers?layer=-1&y=0&x=0", picture(), 400, "layer is '-1'"),
        ("/demo/m/layers?layer=0&y=nan&x=0", picture(), 400, "y is 'nan'"),
        ("/demo/m/layers?layer=0&y=1e300&x=0", picture(), 400, "y is '1e300'"),
        ("/demo/m/layers?layer=0&y=0", picture(), 400, "x is ''"),
        ("/demo/m/layers?layer=0&y=0&x=0&group=a", picture(), 400, "group is 'a'"),
        ("/demo/m/layers", b"text", 400, "no image|cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told(address: str, body: bytes, status: int, message: str, tmp_path: Path) -> None:
    reply = ask(answering(tmp_path / "m.onnx", {"output": LOGITS}), address, body, max_body=1 << 19)
    assert reply.status == status
    assert re.search(message, reply.json["error"])


def test_a_model_of_two_inputs_is_told(tmp_path: Path) -> None:
    path = answering(tmp_path / "m.onnx", {"output": LOGITS}, inputs={"image": [1, 3, 8, 8], "sizes": [1, 2]})
    for address in ("/demo/m", "/demo/m/layers"):
        reply = ask(path, address, picture())
        assert reply.status == 400
        assert "wanted one image and nothing else" in reply.json["error"]


def test_the_page_is_open_and_the_models_are_not(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        for file, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
            reply = await client("GET", file)
            assert reply.status == 200
            assert reply.headers["content-type"].startswith(kind)
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert b"http" not in reply.body.replace(b"http://www.w3.org/2000/svg", b"")  # nothing comes from elsewhere
        for address in ("/demo/m", "/demo/m/layers"):
            assert (await client("POST", address, picture())).status == 401
            assert (await client("POST", address, picture(), authorization="Bearer wrong")).status == 401
            assert (await client("POST", address, picture(), authorization="Bearer secret")).status == 200

    with_page(answering(tmp_path / "m.onnx", {"output": LOGITS}), scenario, token="secret")


def test_images_beyond_the_limit_wait_outside(tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        replies = await asyncio.gather(*(client("POST", "/demo/m", picture()) for _ in range(2 * MOST_REQUESTS)))
        refused = [reply for reply in replies if reply.status == 503]
        assert len(refused) == MOST_REQUESTS
        assert all(reply.headers["retry-after"] == "1" for reply in refused)
        assert sum(reply.status == 200 for reply in replies) == MOST_REQUESTS
        assert (await client("POST", "/demo/m", picture())).status == 200  # places are given back, also after refusals
        for _ in range(MOST_REQUESTS + 1):
            assert (await client("POST", "/demo/m", b"text")).status == 400

    with_page(answering(tmp_path / "m.onnx", {"output": LOGITS}), scenario)


def test_images_and_results_are_read_beside_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            threads.append(threading.current_thread().name.rpartition("_")[0])
            return function(*arguments)

        return noted

    for module, name in ((routes, "read_picture"), (routes, "describe_outputs"), (layers, "read_picture")):
        monkeypatch.setattr(module, name, noting(getattr(module, name)))

    async def scenario(client: Client) -> None:
        for address in ("/demo/m", "/demo/m/layers"):
            assert (await client("POST", address, picture())).status == 200

    with_page(answering(tmp_path / "m.onnx", {"output": LOGITS}), scenario)
    assert threads == ["deploydcn-page", "deploydcn-page", "deploydcn-layers"]


def test_a_picture_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(routes, "read_picture", lambda body: released.wait(30))

    async def scenario(client: Client) -> None:
        reply = await client("POST", "/demo/m", picture())
        released.set()
        assert reply.status == 504
        assert "not answered within 0.2 s" in reply.json["error"]

    with_page(answering(tmp_path / "m.onnx", {"output": LOGITS}), scenario, timeout=0.2)


# ------------------------------------------------------------------------------------------------------------------ layers


def test_points_lie_where_the_image_is_sampled(tmp_path: Path) -> None:
    """The image is twice the model's input, and 8 pixels of it wider: 4 rows of grey above and below."""
    height, width = 2 * HEIGHT - 16, 2 * WIDTH

    async def scenario(client: Client) -> None:
        image = picture(height, width)
        (layer,) = (await client("POST", "/demo/m/layers", image)).json
        assert layer["operator"] == "DeformConv2d"
        assert layer["output"] == [HEIGHT, WIDTH]
        assert layer["step"] == [2, 2]
        assert layer["exact"]
        found = (await client("POST", "/demo/m/layers?layer=0&y=20.5&x=41.9", image)).json
        # Image rows 20 and 21 are row 10 of what is left without the grey, row 14 of the model's input.
        assert found["pixel"] == [14, 20]
        assert found["centre"] == [21, 41]
        points = found["points"]
        rows, columns = np.divmod(np.arange(9), 3)
        assert [point["y"] for point in points] == pytest.approx(list(21 + 2 * (rows - 1)))
        assert [point["x"] for point in points] == pytest.approx(list(41 + 2 * (columns - 1 + 0.75)))
        assert [point["weight"] for point in points] == pytest.approx(list(np.arange(9) / 10))
        corner = (await client("POST", "/demo/m/layers?layer=0&y=-1000&x=5000", image)).json
        assert corner["pixel"] == [0, WIDTH - 1]
        assert [point["share"] for point in corner["points"]][:3] == [0, 0, 0]
        for wrong, message in (("layer=1&y=0&x=0", "1 deformable layers"), ("layer=0&y=0&x=0&group=1", "group is 1")):
            reply = await client("POST", f"/demo/m/layers?{wrong}", image)
            assert reply.status == 400
            assert re.search(message, reply.json["error"])

    with_page(detector(tmp_path / "m.onnx", offset=0.75), scenario)


def test_the_model_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For clicks on one image, and for other images; anew for another model or version, and after a failure."""
    from deploydcn.visual.onnx_tap import OnnxTap
    from deploydcn.visual.sources import OnnxSource

    opened, watched = [], []
    monkeypatch.setattr(OnnxTap, "__init__", lambda self, path, whole=OnnxTap.__init__: (opened.append(path.name), whole(self, path))[1])
    monkeypatch.setattr(OnnxSource, "watch", lambda self, tensors, whole=OnnxSource.watch: (watched.append(1), whole(self, tensors))[1])
    for name, offset in (("a", 0.0), ("b", 1.0)):
        detector(tmp_path / f"{name}.onnx", offset=offset)

    async def points(client: Client, name: str, image: bytes) -> float:
        return float((await client("POST", f"/demo/{name}/layers?layer=0&y=20.5&x=20.5", image)).json["points"][4]["x"])

    async def scenario(client: Client) -> None:
        image, other = picture(HEIGHT, WIDTH), picture(HEIGHT, WIDTH, kind="JPEG")
        at = [await points(client, name, body) for name, body in (("a", image), ("a", image), ("a", other), ("b", image), ("a", image))]
        assert at == [20.5, 20.5, 20.5, 21.5, 20.5]
        assert opened == ["a.onnx", "b.onnx", "a.onnx"]
        assert len(watched) == 4

    with_page(tmp_path, scenario)


def test_an_engine_does_not_tell_its_layers() -> None:
    image = TensorInfo("image", "float32", (1, 3, HEIGHT, WIDTH))
    model = SimpleNamespace(name="m", path=Path("m.engine"), inputs=(image,), file_metadata={})
    with pytest.raises(Refusal, match="give the ONNX file it was built from"):
        layers.LayerWatcher().layers(model, picture())  # type: ignore[arg-type]


def test_a_model_without_deformable_layers_has_none(tmp_path: Path) -> None:
    reply = ask(answering(tmp_path / "m.onnx", {"output": LOGITS}), "/demo/m/layers", picture())
    assert (reply.status, reply.json) == (200, [])


def test_the_image_goes_in_as_letterbox_makes_it(tmp_path: Path) -> None:
    """A model that gives the image back."""
    import onnx

    path = tmp_path / "m.onnx"
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "same", infos[:1], infos[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, {"imgsz": "[96, 160]"})
    onnx.save(model, path)
    image = picture(90, 70)
    (row,) = ask(path, "/demo/m", image).json["outputs"]
    tensor = letterbox(read_picture(image), (96, 160)).tensor
    assert row["shape"] == [1, 3, 96, 160]
    assert row["mean"] == float(tensor.astype(np.float64).mean())


def test_names_survive_a_conversion(tmp_path: Path) -> None:
    """What ultralytics writes beside an older opset is still there after `convert`."""
    source = answering(tmp_path / "old.onnx", {"output": LOGITS}, names="{1: 'dog'}")
    deploydcn.convert(source, tmp_path / "m.onnx", target="ort")
    reply = ask(tmp_path / "m.onnx", "/demo/m", picture())
    assert reply.json["classes"][0]["label"] == "dog"
