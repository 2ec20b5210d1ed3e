"""Write the files that later versions must still read: `python -m tests.files.record` before a release, into a new folder.

Each folder holds ONNX files as that version exported them and, beside each, its inputs and the outputs PyTorch gave.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

import deploydcn
from tests.export import models

FOLDER = Path(__file__).parent


def main() -> None:
    folder = FOLDER / f"v{version('deploydcn')}"
    folder.mkdir()
    x = torch.randn(2, 4, 9, 12, generator=torch.Generator().manual_seed(1))
    wide = torch.randn(2, 8, 9, 12, generator=torch.Generator().manual_seed(2))
    exported = {
        "fused_ort": (models.Fusable(), x, "ort"),
        "fused_standard": (models.Fusable(), x, "standard"),
        "groups_ort": (models.TorchvisionDcn(groups=2, offset_groups=4), wide, "ort"),
        "grouped_conv_ort": (
            torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3, padding=1, groups=1), torch.nn.Conv2d(16, 16, 3, groups=2)),
            wide,
            "ort",
        ),
    }
    for name, (model, example, target) in exported.items():
        model = models.with_offsets(model)
        path = folder / f"{name}.onnx"
        report = deploydcn.export_onnx(model, example, path, dynamic_shapes=({0: "n", 2: "h", 3: "w"},), target=target)
        runner = deploydcn.load((model, example), "torch")
        outputs = runner.run([example])
        arrays = {f"in_{report.inputs[0].name}": example.numpy(), **{f"out_{key}": value for key, value in outputs.items()}}
        np.savez_compressed(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    sys.exit(main())
