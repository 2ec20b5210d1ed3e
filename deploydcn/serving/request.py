"""An inference request, however it came."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploydcn.serving.refusal import Refusal


def check_output_parameters(name: str, parameters: Collection[str]) -> None:
    """Refuse what would otherwise be left undone without a word: classification, shared memory.

    Raises:
        Refusal: a parameter other than "binary_data".
    """
    unknown = sorted(set(parameters) - {"binary_data"})
    if unknown:
        raise Refusal(f"output {name!r} has the parameter {', '.join(unknown)}; wanted none but binary_data")


@dataclass(frozen=True, slots=True)
class InferRequest:
    """inputs: by name. outputs: names of those wanted, all if empty. parameters: of the request, by name."""

    inputs: Mapping[str, np.ndarray]
    id: str = ""
    outputs: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parameters.get("sequence_id"):
            raise Refusal("sequences are not served: models keep no state between requests; leave the parameter sequence_id out")

    def timeout(self, limit: float) -> float:
        """Seconds that the request may take: its parameter "timeout", which is in microseconds, or the server's limit
        if that is less, or the parameter 0.

        Raises:
            Refusal: the parameter is not a whole number of at most 64 bits.
        """
        asked = self.parameters.get("timeout")
        if asked is None:
            return limit
        if isinstance(asked, str) and asked.isdecimal() and len(asked) < 20:
            asked = int(asked)  # tritonclient sends numbers, other clients text
        if isinstance(asked, bool) or not isinstance(asked, int) or not 0 <= asked < 2**64:
            raise Refusal(f"parameter timeout is {str(asked)[:40]!r}; wanted microseconds, a whole number")
        return min(limit, asked / 1e6) if asked else limit
