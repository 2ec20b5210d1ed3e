"""What a serialized engine tells about its plugin layers without a GPU to load it on.

TensorRT-RTX writes, behind the name under which a plugin layer was tried, two records for its inputs and two for its
outputs: a list of tensor formats and a list of data types, each a tag, a 64-bit count and 32-bit numbers (seen in 1.7).
A layer with scratch memory has it as one more output. What is read is believed only when the data types are those of
the network; of a plan written otherwise nothing is told.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SEARCHED = 1 << 14
"""Bytes behind a layer's name in which its records are looked for."""

_FORMATS_TAG, _TYPES_TAG, _INT_TAG, _END = rb"\x12\x80..", rb"\x0d\x80..", rb"\x07\x80..", rb"\x01\x80"


@dataclass(frozen=True)
class PluginFormats:
    """TensorRT's format numbers of a plugin layer's inputs and outputs."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def plugin_formats(plan: bytes, name: str, input_types: Sequence[int], output_types: Sequence[int]) -> PluginFormats | None:
    """The formats of a plugin layer whose tensors have these TensorRT data type numbers; None when the plan does not tell."""
    count = len(output_types)
    for tried in re.finditer(re.escape(name.encode()) + rb"_\d+_\d+", plan):
        for scratch in (0, 1):
            pattern = re.compile(_record(len(input_types)) + rb".{0,512}?" + _record(count + scratch), re.DOTALL)
            match = pattern.search(plan, tried.end(), tried.end() + SEARCHED)
            if match is not None:
                inputs, input_dtypes, outputs, output_dtypes = (_numbers(group) for group in match.groups())
                if input_dtypes == tuple(input_types) and output_dtypes[:count] == tuple(output_types):
                    return PluginFormats(inputs, outputs[:count])
    return None


def name_formats(numbers: Sequence[int], names: Mapping[int, str]) -> tuple[str, ...]:
    """TensorRT's names for format numbers."""
    return tuple(names.get(number, str(number)) for number in numbers)


def _record(count: int) -> bytes:
    """A pattern for formats and types of `count` tensors."""
    numbers = _INT_TAG + re.escape(struct.pack("<Q", count)) + b"(.{%d})" % (4 * count)
    return _FORMATS_TAG + numbers + _END + _TYPES_TAG + numbers


def _numbers(packed: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(packed) // 4}i", packed)
