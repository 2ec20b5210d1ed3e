"""The table of instructions: each base name has one function from Instruction to C++ statements."""

from __future__ import annotations

from collections.abc import Callable

from ptx.function import Function, Instruction, split_operands
from ptx.syntax import PtxError
from ptx.types import TYPES, Type

Handler = Callable[[Instruction, Function], str]
TABLE: dict[str, Handler] = {}
COUNTS: dict[str, tuple[int, ...]] = {}

# Rounding suffixes and the C++ template argument of directed arithmetic.
ROUNDINGS = {"rn": "kNearest", "rz": "kTowardZero", "rm": "kDown", "rp": "kUp"}


def instruction(*names: str, operands: tuple[int, ...] | int = ()) -> Callable[[Handler], Handler]:
    """Puts a handler into the table under these names. `operands`: how many there must be, where it does not check itself."""
    counts = (operands,) if isinstance(operands, int) else operands

    def register(handler: Handler) -> Handler:
        for name in names:
            if name in TABLE:
                raise ValueError(f"two handlers for {name}")
            TABLE[name] = handler
            COUNTS[name] = counts
        return handler

    return register


def parse_instruction(text: str, line: int) -> Instruction:
    """Splits `base.suffixes operands`; the types among the suffixes keep their order."""
    opcode, _, operands = text.partition(" ")
    base, *suffixes = opcode.split(".")
    # `cp.async` and `bar.warp` are names of their own.
    if suffixes and f"{base}.{suffixes[0]}" in TABLE:
        base = f"{base}.{suffixes.pop(0)}"
    types = [TYPES[suffix] for suffix in suffixes if suffix in TYPES]
    modifiers = [suffix for suffix in suffixes if suffix not in TYPES]
    return Instruction(opcode, base, modifiers, types, split_operands(operands), line)


def translate(parsed: Instruction, function: Function) -> str:
    """C++ statements. Raises PtxError when any part of the instruction is not known."""
    handler = TABLE.get(parsed.base)
    if handler is None:
        raise PtxError("not known")
    if COUNTS[parsed.base]:
        parsed.count(*COUNTS[parsed.base])
    body = handler(parsed, function)
    if parsed.modifiers:
        raise PtxError(f"modifier .{parsed.modifiers[0]} not known here")
    return body


def values(parsed: Instruction, function: Function, kind: Type | None = None) -> list[str]:
    """All source operands as the instruction's type."""
    return [function.value(operand, kind or parsed.type) for operand in parsed.operands[1:]]
