"""How different two runs of one model may be, by the precision they compute in."""

from __future__ import annotations

from dataclasses import dataclass

from deploydcn.errors import InvalidArgument


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed error of any element, relative to the scale of its channel (see `compare`), and the reason."""

    relative: float
    reason: str


POLICY = {
    "float64": Tolerance(1e-9, "double rounding over some hundred layers: about 1e-13, with room for ill-conditioned ones"),
    "float32": Tolerance(
        1e-4, "float32 rounding in another order of additions: 1e-6 to 2e-5 over the 50 to 300 layers of detectors, with room"
    ),
    "float16": Tolerance(2e-2, "11 significant bits in every layer's output"),
    "bfloat16": Tolerance(1e-1, "8 significant bits in every layer's output"),
}

PRECISION = {"float64": 3, "float32": 2, "float16": 1, "bfloat16": 0}
"""The order of precisions."""


def default_tolerance(dtype: str) -> Tolerance:
    """The policy's tolerance for the lowest precision either side computes in.

    Raises:
        InvalidArgument: no policy for this dtype.
    """
    if dtype not in POLICY:
        raise InvalidArgument(f"no tolerance policy for {dtype!r}; wanted one of {', '.join(POLICY)}, or an explicit tolerance")
    return POLICY[dtype]
