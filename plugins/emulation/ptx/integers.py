"""Integer and logic instructions, moves and selections."""

# ruff: noqa: D103  a function is named after its instruction
from __future__ import annotations

from ptx.function import Function, Instruction
from ptx.syntax import PtxError
from ptx.table import instruction, values
from ptx.types import TYPES, Type, twice, unsigned

U32 = TYPES["u32"]
COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED_COMPARISONS = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
LOGIC = {"and": "&", "or": "|", "xor": "^"}


def multiply_integers(parsed: Instruction, function: Function) -> tuple[str, Type]:
    """The product of the first two sources, of the width that .lo, .hi or .wide says."""
    kind = parsed.type
    part = parsed.expect("lo", "hi", "wide")
    a, b = (function.value(operand, kind) for operand in parsed.operands[1:3])
    if part == "lo":
        # As 32 bits at least: C++ would promote 16-bit factors to int, whose overflow is undefined.
        work = unsigned(kind) if kind.bits >= 32 else U32
        a, b = (function.value(operand, unsigned(kind)) for operand in parsed.operands[1:3])
        return f"{unsigned(kind).cpp}({work.cpp}({a}) * {work.cpp}({b}))", unsigned(kind)
    if part == "hi":
        return f"multiply_high<{kind.cpp}>({a}, {b})", kind
    return f"{twice(kind).cpp}({a}) * {twice(kind).cpp}({b})", twice(kind)


def add_integers(parsed: Instruction, function: Function) -> str:
    kind = parsed.type
    if parsed.take("sat"):
        raise PtxError("saturating integer arithmetic")
    a, b = values(parsed, function, unsigned(kind))
    operator = "+" if parsed.base == "add" else "-"
    return function.store(parsed.operands[0], unsigned(kind), f"{unsigned(kind).cpp}({a} {operator} {b})")


@instruction("mul24", "mad24", operands=(3, 4))
def mul24(parsed: Instruction, function: Function) -> str:
    kind = parsed.type
    part = parsed.expect("lo", "hi")
    a, b, *c = values(parsed, function)
    shift = 0 if part == "lo" else 16
    product = f"{kind.cpp}(multiply24<{kind.cpp}>({a}, {b}) >> {shift})"
    whole = f"uint32_t({product}) + uint32_t({c[0]})" if c else f"uint32_t({product})"
    return function.store(parsed.operands[0], unsigned(kind), whole)


@instruction("sad")
def sad(parsed: Instruction, function: Function) -> str:
    a, b, c = values(parsed, function)
    wide = unsigned(parsed.type).cpp
    return function.store(
        parsed.operands[0], unsigned(parsed.type), f"{wide}({c}) + ({a} < {b} ? {wide}({b}) - {wide}({a}) : {wide}({a}) - {wide}({b}))"
    )


@instruction("rem")
def rem(parsed: Instruction, function: Function) -> str:
    a, b = values(parsed, function)
    return function.store(parsed.operands[0], parsed.type, f"remainder<{parsed.type.cpp}>({a}, {b}, {parsed.line})")


@instruction(*LOGIC)
def logic(parsed: Instruction, function: Function) -> str:
    a, b = values(parsed, function)
    return function.store(parsed.operands[0], parsed.type, f"{parsed.type.cpp}({a} {LOGIC[parsed.base]} {b})")


@instruction("not")
def logic_not(parsed: Instruction, function: Function) -> str:
    (a,) = values(parsed, function)
    return function.store(parsed.operands[0], parsed.type, f"!{a}" if parsed.type.name == "pred" else f"{parsed.type.cpp}(~{a})")


@instruction("lop3", operands=5)
def lop3(parsed: Instruction, function: Function) -> str:
    a, b, c = (function.value(operand, U32) for operand in parsed.operands[1:4])
    return function.store(parsed.operands[0], U32, f"logic3({a}, {b}, {c}, {int(parsed.operands[4], 0)})")


@instruction("shl", "shr", operands=3)
def shift(parsed: Instruction, function: Function) -> str:
    kind = parsed.type if parsed.type.is_signed else unsigned(parsed.type)
    a, amount = function.value(parsed.operands[1], kind), parsed.operands[2]
    operator = "<<" if parsed.base == "shl" else ">>"
    if amount.isdigit() and int(amount) < kind.bits and (kind.bits >= 32 or parsed.base == "shr"):
        return function.store(parsed.operands[0], kind, f"{kind.cpp}({a} {operator} {amount})")
    name = "shift_left" if parsed.base == "shl" else "shift_right"
    return function.store(parsed.operands[0], kind, f"{name}<{kind.cpp}>({a}, {function.value(amount, U32)})")


@instruction("shf")
def funnel_shift(parsed: Instruction, function: Function) -> str:
    direction, mode = parsed.expect("l", "r"), parsed.expect("wrap", "clamp")
    low, high, amount = values(parsed, function, U32)
    amount = f"{amount} & 31" if mode == "wrap" else f"std::min(32u, {amount})"
    return function.store(parsed.operands[0], U32, f"funnel_{'left' if direction == 'l' else 'right'}({low}, {high}, {amount})")


@instruction("bfe", operands=4)
def bit_field_extract(parsed: Instruction, function: Function) -> str:
    a = function.value(parsed.operands[1], parsed.type)
    position, length = (function.value(operand, U32) for operand in parsed.operands[2:])
    return function.store(parsed.operands[0], parsed.type, f"extract_bits<{parsed.type.cpp}>({a}, {position}, {length})")


@instruction("bfi", operands=5)
def bit_field_insert(parsed: Instruction, function: Function) -> str:
    kind = unsigned(parsed.type)
    a, b = (function.value(operand, kind) for operand in parsed.operands[1:3])
    position, length = (function.value(operand, U32) for operand in parsed.operands[3:])
    return function.store(parsed.operands[0], kind, f"insert_bits<{kind.cpp}>({a}, {b}, {position}, {length})")


@instruction("popc", "clz", "brev")
def count_bits(parsed: Instruction, function: Function) -> str:
    name = {"popc": "std::popcount", "clz": "std::countl_zero", "brev": "reverse_bits"}[parsed.base]
    result = parsed.type if parsed.base == "brev" else U32
    (a,) = values(parsed, function)
    return function.store(parsed.operands[0], result, f"{result.cpp}({name}({a}))")


@instruction("bfind")
def find_leading_bit(parsed: Instruction, function: Function) -> str:
    shift_amount = "true" if parsed.take("shiftamt") else "false"
    (a,) = values(parsed, function)
    return function.store(parsed.operands[0], U32, f"leading_bit<{parsed.type.cpp}>({a}, {shift_amount})")


@instruction("prmt")
def permute_bytes(parsed: Instruction, function: Function) -> str:
    a, b, selector = values(parsed, function, U32)
    return function.store(parsed.operands[0], U32, f"permute_bytes({a}, {b}, {selector})")


@instruction("mov")
def move(parsed: Instruction, function: Function) -> str:
    """Between registers, from a variable's address, or packing and unpacking: mov.b32 d, {a, b}."""
    kind, (destination, source) = parsed.type, parsed.operands
    if destination.startswith("{"):
        parts = function.vector(destination)
        part = TYPES[f"b{kind.bits // len(parts)}"]
        whole = unsigned(kind).cpp
        stores = [function.store(name, part, f"{part.cpp}(V >> {part.bits * index})") for index, name in enumerate(parts)]
        return f"const {whole} V = {function.value(source, unsigned(kind))}; {' '.join(stores)}"
    if source.startswith("{"):
        parts = function.vector(source)
        part = TYPES[f"b{kind.bits // len(parts)}"]
        whole = unsigned(kind).cpp
        joined = " | ".join(f"{whole}({function.value(name, part)}) << {part.bits * index}" for index, name in enumerate(parts))
        return function.store(destination, unsigned(kind), f"{whole}({joined})")
    return function.store(destination, kind, function.value(source, kind))


@instruction("selp", operands=4)
def select(parsed: Instruction, function: Function) -> str:
    a, b = (function.value(operand, parsed.type) for operand in parsed.operands[1:3])
    return function.store(parsed.operands[0], parsed.type, f"{function.value(parsed.operands[3], TYPES['pred'])} ? {a} : {b}")


@instruction("slct", operands=4)
def select_by_sign(parsed: Instruction, function: Function) -> str:
    kind, sign = parsed.types
    parsed.take("ftz")  # only matters for the sign of a subnormal
    a, b = (function.value(operand, kind) for operand in parsed.operands[1:3])
    return function.store(parsed.operands[0], kind, f"{function.value(parsed.operands[3], sign)} >= 0 ? {a} : {b}")


def compare_integers(comparison: str, kind: Type, a: str, b: str) -> str:
    operators = {**COMPARISONS, **({} if kind.is_signed else UNSIGNED_COMPARISONS)}
    if comparison not in operators:
        raise PtxError(f"comparison .{comparison} of {kind.name}")
    return f"({a} {operators[comparison]} {b})"


@instruction("cvta", operands=2)
def convert_address(parsed: Instruction, function: Function) -> str:
    """Spaces other than shared have generic addresses here. Shared addresses are offsets in the block's memory."""
    to, space = parsed.take("to"), parsed.expect("global", "shared", "local", "param", "const")
    value = function.value(parsed.operands[1], TYPES["u64"])
    if space == "shared":
        value = f"({value} - uint64_t(S.base))" if to else f"(uint64_t(S.base) + {value})"
    kind = parsed.type
    return function.store(parsed.operands[0], kind, value if kind.bits == 64 else f"{kind.cpp}({value})")
