"""Sample 02: YOLOv8n (ultralytics) with deformable bottlenecks in the last two C2f stages of its backbone.

    python samples/s02_yolov8n_dcn.py            # export, verify, detect on a photograph, draw

The same photograph goes through PyTorch and ONNX Runtime at two sizes; every box must have its partner.
The weights are seeded, not trained (no weights are downloaded): the boxes are real arithmetic, not real objects.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from seeding import calibrate_batch_norm, deformable_copy, seed_offsets
from torch import Tensor, nn
from ultralytics.nn.modules import Bottleneck
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import ASSETS

import deploydcn
from deploydcn.vision import Detections, decode_yolo, draw_detections, letterbox, match_detections, read_image

CLASSES = 20
CONFIDENCE = 0.25
SIZES = ((640, 640), (480, 640))


def photograph() -> np.ndarray:
    """The street scene that the ultralytics package ships, (H, W, 3) uint8."""
    return read_image(ASSETS / "bus.jpg")


def build() -> tuple[nn.Module, dict[str, Tensor]]:
    """The model and the letterboxed photograph as its example input."""
    torch.manual_seed(0)
    model = DetectionModel("yolov8n.yaml", nc=CLASSES, verbose=False)
    for index in (6, 8):
        for module in model.model[index].modules():
            if isinstance(module, Bottleneck):
                module.cv2.conv = deformable_copy(module.cv2.conv)
    seed_offsets(model)
    image = torch.from_numpy(letterbox(photograph(), SIZES[0]).tensor)
    calibrate_batch_norm(model, image)
    _spread_scores(model, image)
    return model.eval(), {"x": image}


@torch.no_grad()
def _spread_scores(model: nn.Module, image: Tensor, *, boxes: int = 150) -> None:
    """Scale the class logits to a standard deviation of 1.5 and shift them so that about `boxes` anchors exceed CONFIDENCE."""
    head = model.model[-1]
    logits: list[Tensor] = []
    hooks = [branch.register_forward_hook(lambda _m, _i, out: logits.append(out.flatten(2))) for branch in head.cv3]
    model.eval()
    model(image)
    for hook in hooks:
        hook.remove()
    scale = 1.5 / torch.cat(logits, 2).std()
    best = torch.cat([(level - level.mean()) * scale for level in logits], 2).amax(1).flatten()
    threshold = np.log(CONFIDENCE / (1 - CONFIDENCE))
    # Between two candidates, not on one: rounding must not decide which side of the threshold it falls.
    shift = threshold - best.topk(boxes + 1).values[-2:].mean()
    for branch, level in zip(head.cv3, logits, strict=True):
        last = branch[-1]
        last.bias.data = (last.bias.data - level.mean()) * scale + shift
        last.weight.data *= scale


def detect(runner: deploydcn.Runner, image: np.ndarray, size: tuple[int, int]) -> Detections:
    """Boxes in the pixels of `image`."""
    boxed = letterbox(image, size)
    output = next(iter(runner.run([boxed.tensor]).values()))
    return boxed.to_original(decode_yolo(output, confidence=CONFIDENCE)[0])


def main() -> None:
    """Export, verify, detect, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for the ONNX file and the pictures")
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)

    with console.status("building YOLOv8n with deformable convolutions"):
        model, example = build()
    path = folder / "yolov8n_dcn.onnx"
    with console.status("exporting, and running the file at several sizes against PyTorch"):
        report = deploydcn.export_onnx(model, None, path, kwargs=example, dynamic_shapes={"x": {0: "n", 2: "h", 3: "w"}})
    console.print(report.summary(), soft_wrap=True)

    reference = deploydcn.load((model, example), "torch")
    parity = deploydcn.verify(reference, str(path), example)
    console.print(parity.summary(), soft_wrap=True)
    image = photograph()
    table = Table(
        "size",
        "boxes",
        "matched one to one",
        "largest shift, px",
        "largest score difference",
        title="detections, ONNX Runtime against PyTorch",
    )
    for size in SIZES:
        expected, got = detect(reference, image, size), detect(deploydcn.load(str(path)), image, size)
        pairs = match_detections(expected, got)
        shift = max(float(np.abs(expected.boxes[i] - got.boxes[j]).max()) for i, j in pairs)
        score = max(float(abs(expected.scores[i] - got.scores[j])) for i, j in pairs)
        table.add_row("x".join(map(str, size)), str(len(expected)), str(len(pairs)), f"{shift:.2g}", f"{score:.2g}")
        if not len(expected) == len(got) == len(pairs) >= 20:
            raise SystemExit(
                f"{len(expected)} boxes in PyTorch, {len(got)} in ONNX Runtime, {len(pairs)} matched; wanted at least 20, all matched"
            )
        draw_detections(image, got, folder / f"detections_{size[0]}x{size[1]}.png")
    console.print(table)
    console.print(f"wrote {path} and the pictures to {folder}/")
    raise SystemExit(0 if parity.passed else 1)


if __name__ == "__main__":
    main()
