"""The operators. One folder each: `spec.py` (what it is), `reference.py` (what it computes, in float64 NumPy) and
`cases.py` (named conformance rows). To add one, run `make new-op NAME=MyOp`; the two lines it adds here are all
that ties an operator to the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploydcn.errors import InvalidArgument
from deploydcn.ops import (
    dcnv3,
    dcnv4,
    deform_conv2d,
    deform_psroi_pool,
    deform_roi_pool,
    grouped_conv2d,
    ms_deform_attn,
    qlinear_deform_conv2d,
    separable_conv2d,
)
from deploydcn.ops.case import Case
from deploydcn.spec import OpSpec

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Op:
    """An operator's specification, its reference implementation and its conformance rows."""

    spec: OpSpec
    reference: Callable[[Arrays, Mapping[str, Any]], list[np.ndarray]]
    cases: tuple[Case, ...]


OPS: tuple[Op, ...] = (
    Op(deform_conv2d.SPEC, deform_conv2d.reference, deform_conv2d.CASES),
    Op(grouped_conv2d.SPEC, grouped_conv2d.reference, grouped_conv2d.CASES),
    Op(deform_roi_pool.SPEC, deform_roi_pool.reference, deform_roi_pool.CASES),
    Op(deform_psroi_pool.SPEC, deform_psroi_pool.reference, deform_psroi_pool.CASES),
    Op(dcnv3.SPEC, dcnv3.reference, dcnv3.CASES),
    Op(dcnv4.SPEC, dcnv4.reference, dcnv4.CASES),
    Op(ms_deform_attn.SPEC, ms_deform_attn.reference, ms_deform_attn.CASES),
    Op(separable_conv2d.SPEC, separable_conv2d.reference, separable_conv2d.CASES),
    Op(qlinear_deform_conv2d.SPEC, qlinear_deform_conv2d.reference, qlinear_deform_conv2d.CASES),
    # new-op: insert above
)

GPU_OPS = tuple(op for op in OPS if op.spec.gpu)
"""Those with GPU kernels: TensorRT plugins, and custom ops of ONNX Runtime's CUDA execution provider."""


def op_named(name: str) -> Op:
    """The operator with this ONNX name.

    Raises:
        InvalidArgument: there is none.
    """
    for op in OPS:
        if op.spec.name == name:
            return op
    raise InvalidArgument(f"no operator {name!r}; deploydcn has {', '.join(op.spec.name for op in OPS)}")
