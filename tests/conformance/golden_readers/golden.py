"""A published result: what to feed one of our operators, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Golden:
    """wanted: (our output's index, published array), all float32; tolerance: of the largest published value. wrong: likewise, what
    must not come out: results of a published defect."""

    op: str
    inputs: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any]
    wanted: tuple[tuple[int, np.ndarray], ...]
    # float32 sums without fused multiply-add on the published side.
    tolerance: float = 5e-6
    wrong: tuple[tuple[int, np.ndarray], ...] = ()


Reader = Callable[[str, Mapping[str, np.ndarray], Mapping[str, Any]], Golden]
"""(case name, arrays of the file, published attributes) -> Golden"""
