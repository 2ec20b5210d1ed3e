"""Reading plugin formats out of a plan's bytes."""

from __future__ import annotations

import struct

import pytest

from deploydcn.engine.plan import name_formats, plugin_formats

FLOAT, HALF = 0, 1
LINEAR, HWC8 = 0, 2


def numbers(tag: bytes, values: tuple[int, ...]) -> bytes:
    return tag + b"\x80\x01\x00\x07\x80\x01\x00" + struct.pack(f"<Q{len(values)}i", len(values), *values)


def record(formats: tuple[int, ...], types: tuple[int, ...]) -> bytes:
    return numbers(b"\x12", formats) + b"\x01\x80" + numbers(b"\x0d", types)


def plan(inputs: bytes, outputs: bytes, name: bytes = b"neck.dcn") -> bytes:
    return b"head neck.dcn_other" + b"\x00" * 50 + name + b"_30054_0" + b"\x07" * 200 + inputs + b"\x05" * 60 + outputs + b"tail"


HALVES = record((HWC8, LINEAR, LINEAR), (HALF, HALF, FLOAT))


def test_formats_are_found() -> None:
    found = plugin_formats(plan(HALVES, record((HWC8,), (HALF,))), "neck.dcn", (HALF, HALF, FLOAT), (HALF,))
    assert found is not None
    assert (found.inputs, found.outputs) == ((HWC8, LINEAR, LINEAR), (HWC8,))
    assert name_formats(found.inputs, {0: "LINEAR", 2: "HWC8"}) == ("HWC8", "LINEAR", "LINEAR")
    assert name_formats((77,), {}) == ("77",)


def test_scratch_memory_is_no_output() -> None:
    found = plugin_formats(plan(HALVES, record((HWC8, LINEAR), (HALF, FLOAT))), "neck.dcn", (HALF, HALF, FLOAT), (HALF,))
    assert found is not None
    assert found.outputs == (HWC8,)


@pytest.mark.parametrize(
    ("data", "types"),
    [
        (b"", (HALF, HALF, FLOAT)),
        (plan(HALVES, record((HWC8,), (HALF,))), (FLOAT, FLOAT, FLOAT)),  # not what the network says
        (plan(HALVES, record((HWC8,), (HALF,))), (HALF, HALF)),
        (plan(HALVES, b""), (HALF, HALF, FLOAT)),
        (plan(HALVES, record((HWC8,), (HALF,)), name=b"other"), (HALF, HALF, FLOAT)),
    ],
)
def test_nothing_is_told_of_what_is_not_understood(data: bytes, types: tuple[int, ...]) -> None:
    assert plugin_formats(data, "neck.dcn", types, (HALF,)) is None
