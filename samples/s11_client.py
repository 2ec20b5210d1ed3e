"""Sample 11: a client of `deploydcn serve`, or of any server of the Open Inference Protocol v2 (Triton, KServe).

    deploydcn serve yolov8n_dcn.onnx &
    python samples/s11_client.py photo.jpg --model yolov8n_dcn
    python samples/s11_client.py photo.jpg --model yolov8n_dcn --grpc --url 127.0.0.1:8001 --repeat 100

Asks the server what the model takes, sends the picture in that form, and prints boxes (a YOLO head) or classes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from rich.console import Console
from rich.table import Table

from deploydcn.vision import Letterbox, decode_yolo, draw_detections, letterbox, read_image

console = Console(highlight=False)


def image_size(shape: list[int], wanted: int) -> tuple[int, int]:
    """(height, width) of a model's input (N, 3, H, W), `wanted` where the model leaves them open."""
    if len(shape) != 4 or shape[1] != 3:
        raise SystemExit(f"the model takes {shape}; this sample sends images, (N, 3, H, W)")
    height, width = (size if size > 0 else wanted for size in shape[2:])
    return height, width


def show(outputs: list[np.ndarray], boxed: Letterbox, image: np.ndarray, output: Path | None) -> None:
    """Boxes or classes, as far as the shapes tell which."""
    first = outputs[0]
    if len(outputs) == 1 and first.ndim == 2:
        best = first[0].argsort()[::-1][:5]
        table = Table("class", "score", title="largest outputs")
        for index in best:
            table.add_row(str(index), f"{first[0, index]:.4g}")
    elif len(outputs) == 1 and first.ndim == 3:
        found = boxed.to_original(decode_yolo(first)[0])
        table = Table("class", "score", "x1, y1, x2, y2", title=f"{len(found)} boxes, the best")
        for box, score, kind in list(zip(found.boxes, found.scores, found.classes, strict=True))[:10]:
            table.add_row(str(kind), f"{score:.3f}", ", ".join(f"{value:.1f}" for value in box))
        if output is not None:
            draw_detections(image, found, output)
    else:
        table = Table("output", "shape", title="outputs")
        for index, array in enumerate(outputs):
            table.add_row(str(index), "x".join(map(str, array.shape)))
    console.print(table)


def main() -> None:
    """Ask, send, show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--url", default="127.0.0.1:8000")
    parser.add_argument("--grpc", action="store_true", help="gRPC instead of HTTP; its port is 8001 if the server was told nothing else")
    parser.add_argument("--size", type=int, default=640, help="of the image, where the model leaves it open")
    parser.add_argument("--repeat", type=int, default=1, help="requests to time")
    parser.add_argument("--output", type=Path, help="picture to write, with boxes")
    options = parser.parse_args()

    image = read_image(options.image)
    protocol: Any = tritonclient.grpc if options.grpc else tritonclient.http
    with protocol.InferenceServerClient(options.url) as client:
        metadata = client.get_model_metadata(options.model, **({"as_json": True} if options.grpc else {}))
        (takes,) = metadata["inputs"]
        boxed = letterbox(image, image_size([int(size) for size in takes["shape"]], options.size))
        tensor = protocol.InferInput(takes["name"], list(boxed.tensor.shape), takes["datatype"])
        tensor.set_data_from_numpy(boxed.tensor)
        seconds = []
        for _ in range(options.repeat):
            begin = time.perf_counter()
            result = client.infer(options.model, [tensor])
            seconds.append(time.perf_counter() - begin)
    show([result.as_numpy(output["name"]) for output in metadata["outputs"]], boxed, image, options.output)
    console.print(f"{options.repeat} requests, median {1e3 * statistics.median(seconds):.1f} ms, there and back")


if __name__ == "__main__":
    main()
