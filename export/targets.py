"""Targets: which runtime a file is written for, and which operators it may use.

A model is first translated with deploydcn's operators; a target then rewrites that graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def _standard(model: ir.Model) -> list[str]:
    from deploydcn.export import graph

    return [*graph.fold_batch_norm(model), *graph.to_standard(model)]


def _ort(model: ir.Model) -> list[str]:
    from deploydcn.export import graph

    return [*graph.fold_batch_norm(model), *graph.use_grouped_conv(model), *graph.fuse_activations(model)]


def _tensorrt(model: ir.Model) -> list[str]:
    from deploydcn.export import graph

    return [*graph.fold_batch_norm(model), *graph.fuse_activations(model), *graph.add_zero_biases(model)]


@dataclass(frozen=True)
class Target:
    """doc: for help texts. rewrite: changes the graph in place and returns notes for the user."""

    doc: str
    rewrite: Callable[[ir.Model], list[str]]


TARGETS = {
    "ort": Target("our operators where they are faster than ONNX Runtime's; needs deploydcn's library", _ort),
    "standard": Target("ONNX operators only (DeformConv, opset 19 and later); runs in a plain onnxruntime 1.25 or later", _standard),
    "tensorrt": Target("our operators, in the form TensorRT's parser takes; runs in ONNX Runtime with deploydcn's library too", _tensorrt),
}
