"""Targets: which runtime a file is written for, and which operators it may use.

A model is first translated with deploydcn's operators; a target then rewrites that graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploydcn.spec import OpSpec

if TYPE_CHECKING:
    import onnx_ir as ir


def _standard(model: ir.Model) -> list[str]:
    from deploydcn.export import graph
    from deploydcn.export.portable import decompose
    from deploydcn.export.quantized import to_qdq
    from deploydcn.export.standard import to_standard

    return [*graph.fold_batch_norm(model), *to_qdq(model), *to_standard(model), *decompose(model)]


def _portable(model: ir.Model) -> list[str]:
    from deploydcn.export import graph
    from deploydcn.export.portable import decompose
    from deploydcn.export.quantized import to_qdq

    return [*graph.fold_batch_norm(model), *to_qdq(model), *decompose(model)]


def _ort(model: ir.Model) -> list[str]:
    from deploydcn.export import graph
    from deploydcn.export.quantized import from_qdq

    return [*graph.fold_batch_norm(model), *graph.use_grouped_conv(model), *graph.fuse_activations(model), *from_qdq(model)]


def _tensorrt(model: ir.Model) -> list[str]:
    from deploydcn.export import graph
    from deploydcn.export.quantized import suit_tensorrt, to_qdq

    rewritten = [*graph.fold_batch_norm(model), *to_qdq(model), *suit_tensorrt(model)]
    return [*rewritten, *graph.fuse_activations(model), *graph.add_zero_biases(model)]


@dataclass(frozen=True)
class Target:
    """doc: for help texts. rewrite: changes the graph in place and returns notes for the user.

    form: what one of our operators becomes. plain: for runtimes without plugins. oldest_opset: the first with all it needs.
    """

    doc: str
    rewrite: Callable[[ir.Model], list[str]]
    form: Callable[[OpSpec], str]
    plain: bool = False
    oldest_opset: int = 19


def _own(spec: OpSpec) -> str:
    return f"deploydcn::{spec.name}"


def _core(spec: OpSpec) -> str:
    return "core ONNX operators"


def _without_integers(form: Callable[[OpSpec], str]) -> Callable[[OpSpec], str]:
    """For targets that have QLinearDeformConv2d as Q and DQ nodes."""
    return lambda spec: "DeformConv2d between Q and DQ nodes" if spec.name == "QLinearDeformConv2d" else form(spec)


TARGETS = {
    "ort": Target("our operators where they are faster than ONNX Runtime's; needs deploydcn's library", _ort, _own),
    "standard": Target(
        "ONNX operators only (DeformConv of opset 19; core ones where there is none); runs in a plain onnxruntime 1.25 or later",
        _standard,
        _without_integers(lambda spec: spec.standard_op or _core(spec)),
        plain=True,
    ),
    "portable": Target(
        "core ONNX operators of opset 16 only, without DeformConv: for runtimes that take no plugin; slower",
        _portable,
        _without_integers(_core),
        plain=True,
        oldest_opset=16,
    ),
    "tensorrt": Target(
        "our operators, in the form TensorRT's parser takes; runs in ONNX Runtime with deploydcn's library too",
        _tensorrt,
        _without_integers(_own),
    ),
}
