"""Floating-point arithmetic, comparisons and conversions. Instructions that also take integers are dispatched here."""

# ruff: noqa: D103  a function is named after its instruction
from __future__ import annotations

from ptx import integers
from ptx.function import Function, Instruction
from ptx.syntax import PtxError
from ptx.table import ROUNDINGS, instruction, values
from ptx.types import TYPES, Type, unsigned

PRED = TYPES["pred"]
INTEGER_ROUNDINGS = {"rni": "std::rint", "rzi": "std::trunc", "rmi": "std::floor", "rpi": "std::ceil"}


def number(kind: Type) -> str:
    """The C++ class of a 16-bit floating-point type."""
    return "Bfloat16" if kind.name.startswith("b") else "Half"


def narrow_call(kind: Type, operation: str, arguments: str, *template: str) -> str:
    """A narrow_* function of ptx_arithmetic.h, on both halves of packed types."""
    function = f"narrow_{operation}<{', '.join([number(kind), *template])}>"
    return f"packed<{function}>({arguments})" if kind.bits == 32 else f"{function}({arguments})"


def finish(parsed: Instruction, expression: str) -> str:
    """What .sat, .relu and .ftz do to a result. Order in PTX: arithmetic, then these."""
    if parsed.take("sat"):
        expression = f"saturate({expression})"
    return f"flush({expression})" if parsed.take("ftz") else expression


def float_sources(parsed: Instruction, function: Function) -> list[str]:
    """f32 and f64 sources, subnormals flushed when .ftz says so."""
    sources = values(parsed, function)
    return [f"flush({source})" for source in sources] if "ftz" in parsed.modifiers else sources


def multiply_add(parsed: Instruction, function: Function, sources: list[str], operation: str) -> str:
    """add, sub, mul and fma of every floating-point type. `operation` is the C++ expression for f32 and f64, nearest."""
    kind = parsed.type
    rounding = parsed.take(*ROUNDINGS) or "rn"
    if kind.is_narrow_float:
        if rounding != "rn":
            raise PtxError(f"rounding .{rounding} of {kind.name}")
        after = {"sat": "saturate", "relu": "relu", "": ""}[parsed.take("sat", "relu")]
        expression = narrow_call(kind, parsed.base, ", ".join(sources))
        return function.store(parsed.operands[0], kind, narrow_call(kind, after, expression) if after else expression)
    if rounding != "rn":
        if kind.name != "f32":
            raise PtxError(f"rounding .{rounding} of {kind.name}")
        a, b, *c = sources
        direction = f"Rounding::{ROUNDINGS[rounding]}"
        if parsed.base == "mul":
            operation = f"directed_float<{direction}>(double({a}) * {b})"
        else:
            as_fma = {"add": (a, "1.f", b), "sub": (b, "-1.f", a), "fma": (a, b, *c)}[parsed.base]
            operation = f"directed_fma<{direction}>({', '.join(as_fma)})"
    return function.store(parsed.operands[0], kind, finish(parsed, operation))


@instruction("add", "sub")
def add(parsed: Instruction, function: Function) -> str:
    if parsed.type.is_integer:
        return integers.add_integers(parsed, function)
    a, b = sources = float_sources(parsed, function)
    return multiply_add(parsed, function, sources, f"{a} {'+' if parsed.base == 'add' else '-'} {b}")


@instruction("mul", operands=3)
def mul(parsed: Instruction, function: Function) -> str:
    if parsed.type.is_integer:
        product, kind = integers.multiply_integers(parsed, function)
        return function.store(parsed.operands[0], kind, product)
    a, b = sources = float_sources(parsed, function)
    return multiply_add(parsed, function, sources, f"{a} * {b}")


@instruction("mad", operands=4)
def mad(parsed: Instruction, function: Function) -> str:
    if not parsed.type.is_integer:
        return fma(parsed, function)
    product, kind = integers.multiply_integers(parsed, function)
    sum_type = unsigned(kind)
    addend = function.value(parsed.operands[3], sum_type)
    return function.store(parsed.operands[0], sum_type, f"{sum_type.cpp}({sum_type.cpp}({product}) + {addend})")


@instruction("fma")
def fma(parsed: Instruction, function: Function) -> str:
    parsed.base = "fma"  # PTX's mad of floats
    a, b, c = sources = float_sources(parsed, function)
    return multiply_add(parsed, function, sources, f"__builtin_fma{'f' if parsed.type.name == 'f32' else ''}({a}, {b}, {c})")


@instruction("div")
def div(parsed: Instruction, function: Function) -> str:
    if parsed.type.is_integer:
        a, b = values(parsed, function)
        return function.store(parsed.operands[0], parsed.type, f"quotient<{parsed.type.cpp}>({a}, {b}, {parsed.line})")
    parsed.expect("rn", "full", "approx")  # approximations are exact here
    a, b = float_sources(parsed, function)
    return function.store(parsed.operands[0], parsed.type, finish(parsed, f"{a} / {b}"))


@instruction("neg", "abs", operands=2)
def change_sign(parsed: Instruction, function: Function) -> str:
    kind = parsed.type
    if kind.is_float:
        (a,) = float_sources(parsed, function)
        parsed.take("ftz")
        return function.store(
            parsed.operands[0], kind, f"-{a}" if parsed.base == "neg" else f"__builtin_fabs{'f' if kind.name == 'f32' else ''}({a})"
        )
    (a,) = values(parsed, function, unsigned(kind))
    if kind.is_narrow_float:
        sign = "0x80008000u" if kind.bits == 32 else "0x8000u"
        return function.store(parsed.operands[0], kind, f"{kind.cpp}({a} {'^' if parsed.base == 'neg' else '& ~'} {sign})")
    negated = f"{unsigned(kind).cpp}(0u - {a})"
    if parsed.base == "abs":
        negated = f"{function.value(parsed.operands[1], kind)} < 0 ? {negated} : {a}"
    return function.store(parsed.operands[0], unsigned(kind), negated)


@instruction("min", "max", operands=3)
def min_max(parsed: Instruction, function: Function) -> str:
    kind, sources = parsed.type, values(parsed, function)
    if kind.is_integer:
        expression = f"std::{parsed.base}<{kind.cpp}>({', '.join(sources)})"
        return function.store(parsed.operands[0], kind, expression)
    nan = "true" if parsed.take("NaN") else "false"
    if kind.is_narrow_float:
        return function.store(parsed.operands[0], kind, narrow_call(kind, parsed.base, ", ".join(sources), nan))
    expression = f"float_{parsed.base}<{nan}>({', '.join(float_sources(parsed, function))})"
    return function.store(parsed.operands[0], kind, finish(parsed, expression))


@instruction("copysign")
def copysign(parsed: Instruction, function: Function) -> str:
    sign, magnitude = values(parsed, function)
    return function.store(parsed.operands[0], parsed.type, f"std::copysign({magnitude}, {sign})")


@instruction("rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh")
def elementary(parsed: Instruction, function: Function) -> str:
    """Approximations are computed exactly: how wrong a GPU's are, only a GPU can show."""
    kind = parsed.type
    parsed.take("rn", "approx")
    if kind.is_narrow_float:
        parsed.take("ftz")  # of bfloat16: subnormals of float32, below its range
        (a,) = values(parsed, function)
        return function.store(parsed.operands[0], kind, narrow_call(kind, "elementary", a, parsed.base))
    expressions = {"rcp": "1 / {}", "rsqrt": "1 / std::sqrt({})", "ex2": "std::exp2({})", "lg2": "std::log2({})"}
    (a,) = float_sources(parsed, function)
    expression = expressions.get(parsed.base, f"std::{parsed.base}({{}})").format(f"({a})")
    return function.store(parsed.operands[0], kind, finish(parsed, expression))


@instruction("testp")
def test_property(parsed: Instruction, function: Function) -> str:
    (a,) = values(parsed, function)
    tests = {"finite": "std::isfinite", "infinite": "std::isinf", "notanumber": "std::isnan", "normal": "std::isnormal"}
    return function.store(parsed.operands[0], PRED, f"{tests[parsed.expect(*tests)]}({a})")


def compare_floats(comparison: str, a: str, b: str) -> str:
    """Ordered comparisons are false with NaN, unordered ones (ltu, ...) true."""
    unordered = f"__builtin_isunordered({a}, {b})"
    if comparison in ("num", "nan"):
        return unordered if comparison == "nan" else f"!{unordered}"
    ordered = comparison in integers.COMPARISONS
    name = comparison if ordered else comparison.removesuffix("u")
    if name not in integers.COMPARISONS:
        raise PtxError(f"comparison .{comparison} of floats")
    if name == "ne" and ordered:  # C++'s != is true with NaN
        return f"({a} < {b} || {a} > {b})"
    plain = f"({a} {integers.COMPARISONS[name]} {b})"
    return plain if ordered or name == "ne" else f"({plain} || {unordered})"


def compare(parsed: Instruction, function: Function, kind: Type) -> str:
    """The comparison that the remaining modifier names, of the first two sources."""
    flush = parsed.take("ftz") and kind.is_float
    comparison = parsed.modifiers.pop(0) if parsed.modifiers else ""
    a, b = (function.value(operand, kind) for operand in parsed.operands[1:3])
    if kind.is_integer:
        return integers.compare_integers(comparison, kind, a, b)
    if kind.is_narrow_float:
        if kind.bits == 32:
            raise PtxError("packed comparison")
        a, b = (f"{number(kind)}::value({operand})" for operand in (a, b))
    elif flush:
        a, b = f"flush({a})", f"flush({b})"
    return compare_floats(comparison, a, b)


@instruction("setp")
def set_predicate(parsed: Instruction, function: Function) -> str:
    """setp.lt.and.f32 p|q, a, b, c: p = (a < b) and c, q = !(a < b) and c."""
    combination = parsed.take("and", "or", "xor")
    parsed.count(4 if combination else 3)
    comparison = compare(parsed, function, parsed.type)
    third = function.value(parsed.operands[3], PRED) if combination else ""

    def combined(result: str) -> str:
        return f"bool({result} {integers.LOGIC[combination]} {third})" if combination else result

    destinations = parsed.operands[0].split("|")
    stores = [function.store(name, PRED, combined(result)) for name, result in zip(destinations, ("C", "!C"), strict=False)]
    return f"const bool C = {comparison}; {' '.join(stores)}"


@instruction("set", operands=3)
def set_value(parsed: Instruction, function: Function) -> str:
    """True is 1 in floating-point types and all bits in integers."""
    to, kind = parsed.types
    comparison = compare(parsed, function, kind)
    if to.bits == 64 or to.name.endswith("x2"):
        raise PtxError(f"comparison into {to.name}")
    true = f"{number(to)}::bits(1)" if to.is_narrow_float else "1" if to.is_float else "-1"
    return function.store(parsed.operands[0], to, f"{to.cpp}({comparison} ? {true} : 0)")
