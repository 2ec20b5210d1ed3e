"""Loads, stores, atomics and asynchronous copies."""

# ruff: noqa: D103  a function is named after its instruction
from __future__ import annotations

from ptx.floats import narrow_call
from ptx.function import Function, Instruction
from ptx.syntax import PtxError
from ptx.table import instruction
from ptx.types import TYPES, Type

SPACES = ("param", "global", "shared", "local", "const", "shared::cta")
CACHE_HINTS = ("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "volatile", "weak")
SCOPES = ("cta", "cluster", "gpu", "sys")
U32 = TYPES["u32"]


def take_space(parsed: Instruction) -> str:
    return (parsed.take(*SPACES) or "generic").removesuffix("::cta")


def _take_hints(parsed: Instruction) -> int:
    """Removes what does not matter here; returns the vector length."""
    parsed.modifiers = [name for name in parsed.modifiers if name not in CACHE_HINTS and not name.startswith(("L1::", "L2::"))]
    return {"v2": 2, "v4": 4, "v8": 8, "": 1}[parsed.take("v2", "v4", "v8")]


def _element(kind: Type) -> Type:
    if kind.name == "pred":
        raise PtxError("predicates have no address")
    return kind


@instruction("ld", "ldu", operands=2)
def load(parsed: Instruction, function: Function) -> str:
    space, length, kind = take_space(parsed), _take_hints(parsed), _element(parsed.type)
    names = function.vector(parsed.operands[0])
    if len(names) != length:
        raise PtxError(f"{len(names)} registers")
    address = function.address(parsed.operands[1], space, kind.bytes * length, parsed.line)
    if length == 1:
        return function.store(names[0], kind, f"*(const {kind.cpp}*)({address})")
    # All loads before all stores: a destination may be the address register.
    temporaries = " ".join(f"const auto L{index} = *(const {kind.cpp}*)(A + {kind.bytes * index});" for index in range(length))
    stores = [function.store(name, kind, f"L{index}") for index, name in enumerate(names)]
    return f"const uint64_t A = {address}; {temporaries} {' '.join(stores)}"


@instruction("st", operands=2)
def store(parsed: Instruction, function: Function) -> str:
    space, length, kind = take_space(parsed), _take_hints(parsed), _element(parsed.type)
    names = function.vector(parsed.operands[1])
    if len(names) != length or space in ("param", "const"):
        raise PtxError(f"store of {len(names)} registers to .{space}")
    address = function.address(parsed.operands[0], space, kind.bytes * length, parsed.line)
    stores = [f"*({kind.cpp}*)(A + {kind.bytes * index}) = {function.value(name, kind)};" for index, name in enumerate(names)]
    if length == 1:
        return f"*({kind.cpp}*)({address}) = {function.value(names[0], kind)};"
    return f"const uint64_t A = {address}; {' '.join(stores)}"


ATOMICS = {"add": "old + value", "min": "std::min(old, value)", "max": "std::max(old, value)", "exch": "value"}
BIT_ATOMICS = {"and": "old & value", "or": "old | value", "xor": "old ^ value"}
COUNTERS = {"inc": "old >= value ? 0 : old + 1", "dec": "old == 0 || old > value ? value : old - 1"}


def _update(operation: str, kind: Type) -> str:
    """The new value, as an expression of `old` and `value`."""
    if kind.is_narrow_float:
        if operation != "add":
            raise PtxError(f"atomic .{operation} of {kind.name}")
        return narrow_call(kind, "add", "old, value")
    if operation in ("min", "max") and kind.is_float:
        raise PtxError(f"atomic .{operation} of {kind.name}")
    table = {**ATOMICS, **({} if kind.is_float else {**BIT_ATOMICS, **COUNTERS})}
    return table[operation]


@instruction("atom", "red", operands=(2, 3, 4))
def atomic(parsed: Instruction, function: Function) -> str:
    parsed.take("noftz", "ftz")
    space = take_space(parsed)
    while parsed.take("relaxed", "acquire", "release", "acq_rel", *SCOPES):
        pass
    kind, returns = parsed.type, parsed.base == "atom"
    parsed.count((3 if returns else 2) + ("cas" in parsed.modifiers))
    address = function.address(parsed.operands[1 if returns else 0], space, kind.bytes, parsed.line)
    if parsed.take("cas"):
        expected, value = (function.value(operand, kind) for operand in parsed.operands[2:])
        body = f"const {kind.cpp} expected = {expected}, value = {value};"
        update = "old == expected ? value : old"
    else:
        operation = parsed.expect(*ATOMICS, *BIT_ATOMICS, *COUNTERS)
        body = f"const {kind.cpp} value = {function.value(parsed.operands[-1], kind)};"
        update = _update(operation, kind)
    call = f"atomic_update(({kind.cpp}*)({address}), [&]({kind.cpp} old) {{ return {kind.cpp}({update}); }})"
    return f"{body} {function.store(parsed.operands[0], kind, call) if returns else call + ';'}"


@instruction("membar", "fence")
def fence(parsed: Instruction, function: Function) -> str:
    """Nothing: see __threadfence in warp_intrinsics.h."""
    parsed.modifiers = [name for name in parsed.modifiers if name not in ("gl", "acq_rel", "sc", *SCOPES)]
    return ";"


@instruction("cp.async")
def async_copy(parsed: Instruction, function: Function) -> str:
    if parsed.take("commit_group"):
        return "async_copy_commit();"
    if parsed.take("wait_group"):
        return f"async_copy_wait({int(parsed.operands[0], 0)});"
    if parsed.take("wait_all"):
        return "async_copy_commit(); async_copy_wait(0);"
    parsed.expect("ca", "cg")
    parsed.expect("shared")
    parsed.expect("global")
    _take_hints(parsed)
    parsed.count(3, 4)
    if int(parsed.operands[2], 0) != 16:
        raise PtxError(f"a copy of {parsed.operands[2]} bytes")
    source_bytes = function.value(parsed.operands[3], U32) if len(parsed.operands) == 4 else "16u"
    to = function.address(parsed.operands[0], "shared", 16, parsed.line)
    # Unchecked: with no source bytes the address is not used.
    source = function.value(parsed.operands[1].strip("[] "), TYPES["u64"])
    return f"async_copy16((void*)({to}), (const void*)({source}), int({source_bytes}));"
