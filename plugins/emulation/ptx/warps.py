"""Control flow, barriers and what a warp does together."""

# ruff: noqa: D103  a function is named after its instruction
from __future__ import annotations

from ptx.function import Function, Instruction, cpp_name
from ptx.memory import take_space
from ptx.syntax import PtxError
from ptx.table import instruction
from ptx.types import TYPES

U32, F32, PRED = TYPES["u32"], TYPES["f32"], TYPES["pred"]


@instruction("bra", operands=1)
def branch(parsed: Instruction, function: Function) -> str:
    parsed.take("uni")
    return f"goto {cpp_name(parsed.operands[0])};"


@instruction("brx", operands=2)
def indexed_branch(parsed: Instruction, function: Function) -> str:
    parsed.expect("idx")
    parsed.take("uni")
    targets = function.branch_targets.get(parsed.operands[1])
    if targets is None:
        raise PtxError(f"no .branchtargets {parsed.operands[1]}")
    cases = " ".join(f"case {index}: goto {cpp_name(target)};" for index, target in enumerate(targets))
    return f"switch ({function.value(parsed.operands[0], U32)}) {{ {cases} default: bad_branch({parsed.line}); }}"


@instruction("ret", "exit", operands=(0,))
def leave(parsed: Instruction, function: Function) -> str:
    parsed.take("uni")
    return "return;"


@instruction("trap", operands=(0,))
def trap(parsed: Instruction, function: Function) -> str:
    return f"trap({parsed.line});"


@instruction("bar.warp", operands=1)
def warp_barrier(parsed: Instruction, function: Function) -> str:
    parsed.expect("sync")
    return f"warp_barrier({function.value(parsed.operands[0], U32)}, {parsed.line});"


@instruction("bar", "barrier")
def barrier(parsed: Instruction, function: Function) -> str:
    """Barrier 0 of the whole block. PTX names barriers by number, so the line is not part of the site."""
    parsed.take("cta")
    parsed.take("aligned")
    what = parsed.expect("sync", "red")
    reduction = parsed.expect("popc", "and", "or") if what == "red" else ""
    barriers = parsed.operands[1 if reduction else 0 :]
    if int(barriers[0], 0) != 0 or len(barriers) != (2 if reduction else 1):
        raise PtxError("a barrier of part of the block")
    if not reduction:
        return f"block_barrier({parsed.line});"
    kind = {"popc": "kCount", "and": "kAnd", "or": "kOr"}[reduction]
    result = f"block_reduction({function.value(barriers[1], PRED)}, BlockReduction::{kind}, {parsed.line})"
    return function.store(parsed.operands[0], U32 if reduction == "popc" else PRED, result if reduction == "popc" else f"{result} != 0")


@instruction("shfl", operands=5)
def shuffle(parsed: Instruction, function: Function) -> str:
    parsed.expect("sync")
    mode = {"up": "kUp", "down": "kDown", "bfly": "kXor", "idx": "kIndex"}[parsed.expect("up", "down", "bfly", "idx")]
    destination, *in_range = parsed.operands[0].split("|")
    value, lane, clamp, mask = (function.value(operand, U32) for operand in parsed.operands[1:])
    stores = function.store(destination, U32, f"shuffle<Shuffle::{mode}>({mask}, {value}, {lane}, {clamp}, I, {parsed.line})")
    if in_range:
        stores += " " + function.store(in_range[0], PRED, "I")
    return f"bool I; {stores}"


@instruction("vote", operands=3)
def vote(parsed: Instruction, function: Function) -> str:
    parsed.expect("sync")
    mode = parsed.expect("ballot", "any", "all")
    mask = function.value(parsed.operands[2], U32)
    votes = f"vote({mask}, {function.value(parsed.operands[1], PRED)}, {parsed.line})"
    if mode == "ballot":
        return function.store(parsed.operands[0], U32, votes)
    return function.store(parsed.operands[0], PRED, f"{votes} {'!= 0' if mode == 'any' else f'== {mask}'}")


@instruction("activemask", operands=1)
def active_mask(parsed: Instruction, function: Function) -> str:
    """Only the lane itself: any set of converged lanes is a legal answer, and this is the one code trips over."""
    return function.store(parsed.operands[0], U32, "1u << T.linear_index % 32")


@instruction("ldmatrix", operands=2)
def load_matrices(parsed: Instruction, function: Function) -> str:
    for name in ("sync", "aligned", "m8n8", "x4"):
        parsed.expect(name)
    transposed = "true" if parsed.take("trans") else "false"
    if take_space(parsed) != "shared":
        raise PtxError("ldmatrix from other than shared memory")
    address = function.address(parsed.operands[1], "shared", 16, parsed.line)
    stores = [function.store(name, U32, f"R[{index}]") for index, name in enumerate(function.vector(parsed.operands[0]))]
    return f"uint32_t R[4]; load_matrices(R, (const void*)({address}), {transposed}, site({parsed.line})); {' '.join(stores)}"


# (shape, type of A and B) -> C++ function, registers of A, of B
PRODUCTS = {
    ("m16n8k16", "f16"): ("multiply_m16n8k16_f16", 4, 2),
    ("m16n8k16", "bf16"): ("multiply_m16n8k16_bf16", 4, 2),
    ("m16n8k8", "f16"): ("multiply_m16n8k8_f16", 2, 1),
    ("m16n8k8", "tf32"): ("multiply_m16n8k8_tf32", 4, 2),
}


@instruction("mma", operands=4)
def multiply_matrices(parsed: Instruction, function: Function) -> str:
    for name in ("sync", "aligned", "row", "col"):
        parsed.expect(name)
    shape = parsed.modifiers.pop(0) if parsed.modifiers else ""
    names = [kind.name for kind in parsed.types]
    product = PRODUCTS.get((shape, names[1])) if len(names) == 4 else None
    if product is None or names != ["f32", names[1], names[1], "f32"]:
        raise PtxError(f"matrix product {shape} of {', '.join(names)}")
    multiply, a_registers, b_registers = product
    d, a, b, c = (function.vector(operand) for operand in parsed.operands)
    if (len(d), len(a), len(b), len(c)) != (4, a_registers, b_registers, 4):
        raise PtxError("registers do not fit the shape")
    operands = [", ".join(function.value(name, kind) for name in group) for group, kind in ((a, U32), (b, U32), (c, F32))]
    initial = ", ".join(f"M.c[{index}]" for index in range(4))
    stores = [function.store(name, F32, f"D[{index}]") for index, name in enumerate(d)]
    return (
        f"const MatrixOperands M{{{{{operands[0]}}}, {{{operands[1]}}}, {{{operands[2]}}}}}; float D[4] = {{{initial}}}; "
        f"multiply_matrices(D, M, {multiply}, site({parsed.line})); {' '.join(stores)}"
    )
