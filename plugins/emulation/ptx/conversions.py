"""cvt, in its many forms."""

# ruff: noqa: D103  a function is named after its instruction
from __future__ import annotations

from ptx.floats import INTEGER_ROUNDINGS, narrow_call, number
from ptx.function import Function, Instruction
from ptx.syntax import PtxError
from ptx.table import ROUNDINGS, instruction
from ptx.types import TYPES, Type

F32 = TYPES["f32"]


@instruction("cvt")
def convert(parsed: Instruction, function: Function) -> str:
    if len(parsed.types) != 2:
        raise PtxError(f"{len(parsed.types)} types")
    to, source_type = parsed.types
    if to.name == "tf32":
        parsed.expect("rna")
        return function.store(parsed.operands[0], to, f"round_to_tf32({function.value(parsed.operands[1], F32)})")
    if to.name.endswith("x2"):
        return _pack(parsed, function, to, source_type)
    parsed.count(2)
    source = function.value(parsed.operands[1], source_type)
    if to.is_integer and source_type.is_integer:
        return function.store(parsed.operands[0], to, _integer_to_integer(parsed, to, source_type, source))
    if to.is_integer:
        return function.store(parsed.operands[0], to, _float_to_integer(parsed, to, source_type, source))
    if source_type.is_integer:
        return function.store(parsed.operands[0], to, _integer_to_float(parsed, to, source_type, source))
    return function.store(parsed.operands[0], to, _float_to_float(parsed, to, source_type, source))


def _pack(parsed: Instruction, function: Function, to: Type, source_type: Type) -> str:
    """cvt.rn.f16x2.f32 d, high, low."""
    parsed.count(3)
    parsed.expect("rn")
    if source_type.name != "f32":
        raise PtxError(f"{source_type.name} to {to.name}")
    high, low = (f"{number(to)}::bits({function.value(operand, F32)})" for operand in parsed.operands[1:])
    both = f"uint32_t({high}) << 16 | {low}"
    return function.store(parsed.operands[0], to, narrow_call(to, "relu", both) if parsed.take("relu") else both)


def _integer_to_integer(parsed: Instruction, to: Type, source_type: Type, source: str) -> str:
    return f"clamp_integer<{to.cpp}>({source})" if parsed.take("sat") else f"{to.cpp}({source})"


def _widened(kind: Type, source: str) -> str:
    """A value of any floating-point type as float or double; neither loses anything."""
    return f"{number(kind)}::value({source})" if kind.is_narrow_float else source


def _float_to_integer(parsed: Instruction, to: Type, source_type: Type, source: str) -> str:
    rounding = INTEGER_ROUNDINGS[parsed.expect(*INTEGER_ROUNDINGS)]
    parsed.take("sat")  # always so
    value = _widened(source_type, source)
    if parsed.take("ftz"):
        value = f"flush({value})"
    # PTX ISA, cvt: NaN gives 0, but the middle of the range when 64 bits are on either side.
    wide = "true" if 64 in (to.bits, source_type.bits) else "false"
    return f"to_integer<{to.cpp}, {wide}>({rounding}(double({value})))"


def _integer_to_float(parsed: Instruction, to: Type, source_type: Type, source: str) -> str:
    rounding = parsed.expect(*ROUNDINGS)
    if rounding == "rn" and to.is_float:
        return f"{to.cpp}({source})"
    if source_type.bits == 64 and to.name != "f64":
        raise PtxError(f"rounding .{rounding} from {source_type.name} to {to.name}")
    return _rounded(parsed, to, rounding, f"double({source})")


def _float_to_float(parsed: Instruction, to: Type, source_type: Type, source: str) -> str:
    to_integral = parsed.take(*INTEGER_ROUNDINGS)
    rounding = parsed.take(*ROUNDINGS) or "rn"
    value = _widened(source_type, source)
    flush = parsed.take("ftz")
    if flush:
        value = f"flush({value})"
    if to_integral:
        value = f"{INTEGER_ROUNDINGS[to_integral]}({value})"
    if parsed.take("sat"):
        value = f"saturate({value})"
    if to.is_float and to.bits >= source_type.bits:  # exact
        return f"{to.cpp}({value})"
    converted = _rounded(parsed, to, rounding, value)
    return f"flush({converted})" if flush and to.name == "f32" else converted


def _rounded(parsed: Instruction, to: Type, rounding: str, value: str) -> str:
    """A double or float as `to`, rounded once."""
    if to.is_narrow_float:
        if rounding not in ("rn", "rz"):
            raise PtxError(f"rounding .{rounding} to {to.name}")
        bits = f"{number(to)}::{'bits' if rounding == 'rn' else 'bits_toward_zero'}({value})"
        return narrow_call(to, "relu", bits) if parsed.take("relu") else bits
    if to.name == "f32":
        return f"float({value})" if rounding == "rn" else f"directed_float<Rounding::{ROUNDINGS[rounding]}>({value})"
    return f"double({value})"
