"""One kernel on its way to C++: its names, and operands as C++ expressions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ptx.syntax import IDENTIFIER, Kernel, PtxError, Variable
from ptx.types import TYPES, Type

SPECIAL_REGISTERS = {
    **{
        f"%{ptx}.{axis}": f"T.{member}.{axis}"
        for ptx, member in (("tid", "thread_index"), ("ctaid", "block_index"), ("ntid", "block_dim"), ("nctaid", "grid_dim"))
        for axis in "xyz"
    },
    "%laneid": "(T.linear_index % 32)",
    "%warpid": "(T.linear_index / 32)",
    "%nwarpid": "((T.block_dim.x * T.block_dim.y * T.block_dim.z + 31) / 32)",
    "%lanemask_eq": "(1u << T.linear_index % 32)",
    "%lanemask_lt": "((1u << T.linear_index % 32) - 1)",
    "WARP_SZ": "32u",
}
_INTEGER = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)U?")
_ADDRESS = re.compile(rf"\[\s*({IDENTIFIER}|-?\d+)\s*(?:\+\s*(-?\w+))?\s*\]")


@dataclass
class Instruction:
    """`mul.wide.s32 a, b, c`: base "mul", modifiers ["wide"], types [s32]. A modifier nobody took is an error."""

    opcode: str
    base: str
    modifiers: list[str]
    types: list[Type]
    operands: list[str]
    line: int

    @property
    def type(self) -> Type:
        """The only type, or the last: of the sources where they differ."""
        if not self.types:
            raise PtxError("no type")
        return self.types[-1]

    def take(self, *names: str) -> str:
        """Removes and returns the first of these modifiers that is there, "" when none is."""
        for name in names:
            if name in self.modifiers:
                self.modifiers.remove(name)
                return name
        return ""

    def expect(self, *names: str) -> str:
        found = self.take(*names)
        if not found:
            raise PtxError(f"needs one of .{', .'.join(names)}")
        return found

    def count(self, *allowed: int) -> None:
        if len(self.operands) not in allowed:
            raise PtxError(f"{len(self.operands)} operands")


def cpp_name(name: str) -> str:
    """The C++ variable or label of a PTX name."""
    return "v_" + re.sub(r"\W", "_", name.lstrip("%"))


def split_operands(text: str) -> list[str]:
    """At commas outside braces, brackets and parentheses."""
    parts, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def literal(value: int, kind: Type) -> str:
    """An integer constant of an integer type's width, or of a floating-point type's bits."""
    bits = max(kind.bits, 8)
    text = f"0x{value % (1 << bits):x}{'ull' if bits == 64 else 'u'}"
    return text if kind.cpp in ("uint32_t", "uint64_t") else f"{kind.cpp}({text})"


def bit_cast(cpp: str, expression: str) -> str:
    """The same bits as another type. Builtins and casts compile faster than functions, of which files have 100,000."""
    return f"__builtin_bit_cast({cpp}, {expression})"


class Function:
    """Register scopes and the places of variables while a kernel is translated."""

    def __init__(self, kernel: Kernel, shared: Mapping[str, int], module_variables: Mapping[str, Variable]) -> None:
        self.kernel = kernel
        self.parameters = {name: index for index, name in enumerate(kernel.parameters)}
        self.shared = shared  # offsets in the block's shared memory
        self.module_variables = module_variables
        self.scopes: list[dict[str, Type]] = [{}]
        self.local: dict[str, Variable] = {}
        self.branch_targets: dict[str, list[str]] = {}

    def register_type(self, name: str) -> Type | None:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)

    def value(self, operand: str, kind: Type) -> str:
        """The operand as an expression of kind.cpp. A wider register gives its low bits."""
        if operand.startswith("!"):
            return f"!{self.value(operand[1:], kind)}"
        register = self.register_type(operand)
        if register:
            return self._converted(cpp_name(operand), register, kind)
        if operand in SPECIAL_REGISTERS:
            return self._converted(SPECIAL_REGISTERS[operand], TYPES["u32"], kind)
        if operand.startswith(("0f", "0F")) and kind.bits == 32:
            bits = literal(int(operand[2:], 16), TYPES["b32"])
            return bit_cast("float", bits) if kind.is_float else self._converted(bits, TYPES["b32"], kind)
        if operand.startswith(("0d", "0D")) and kind.bits == 64:
            bits = literal(int(operand[2:], 16), TYPES["b64"])
            return bit_cast("double", bits) if kind.is_float else self._converted(bits, TYPES["b64"], kind)
        if _INTEGER.fullmatch(operand) and kind.name == "pred":
            return "true" if int(operand, 0) else "false"
        if _INTEGER.fullmatch(operand):
            number = int(operand.rstrip("U"), 0)
            return bit_cast(kind.cpp, literal(number, TYPES[f"b{kind.bits}"])) if kind.is_float else literal(number, kind)
        return self._converted(self._symbol_address(operand), TYPES["u64"], kind)

    def store(self, destination: str, kind: Type, expression: str) -> str:
        """Assigns an expression of kind.cpp. A wider register gets it sign- or zero-extended, as the type says."""
        if destination == "_":
            return f"(void)({expression});"
        register = self.register_type(destination)
        if register is None:
            raise PtxError(f"destination '{destination}'")
        if (register.bits < kind.bits) or (kind.name == "pred") != (register.name == "pred"):
            raise PtxError(f"{kind.name} into register {destination} of type {register.name}")
        if register.is_float != kind.is_float or (register.is_float and register.bits != kind.bits):
            return f"{cpp_name(destination)} = {self._converted(f'{kind.cpp}({expression})', kind, register)};"
        extended = register.bits > kind.bits
        return f"{cpp_name(destination)} = {f'{kind.cpp}({expression})' if extended else expression};"

    def vector(self, operand: str) -> list[str]:
        """`{a, b}` or a single register."""
        return split_operands(operand.strip()[1:-1]) if operand.startswith("{") else [operand]

    def address(self, operand: str, space: str, size: int, line: int) -> str:
        """A checked uint64_t address of `size` bytes. `space`: param, shared, or anything with generic addresses."""
        found = _ADDRESS.fullmatch(operand)
        if not found:
            raise PtxError(f"address '{operand}'")
        base, offset = found.group(1), int(found.group(2) or "0", 0)
        if space == "shared":
            start = literal(self.shared[base], TYPES["u32"]) if base in self.shared else self.value(base, TYPES["u32"])
            return f"shared_address(S, {start} + {literal(offset, TYPES['u32'])}, {size}, {line})"
        start = self._symbol_address(base) if self.register_type(base) is None else self.value(base, TYPES["u64"])
        address = f"{start} + {literal(offset, TYPES['u64'])}" if offset else start
        return f"address({address}, {size}, {line})"

    def _symbol_address(self, name: str) -> str:
        """A variable's address in its own space: an offset for shared memory, else where it lies."""
        if name in self.parameters:
            return f"uint64_t(P[{self.parameters[name]}])"
        if name in self.shared:
            return literal(self.shared[name], TYPES["u64"])
        if name in self.local or name in self.module_variables:
            return f"uint64_t({cpp_name(name)})"
        raise PtxError(f"operand '{name}'")

    @staticmethod
    def _converted(expression: str, have: Type, want: Type) -> str:
        if have.cpp == want.cpp:
            return expression
        if (have.name == "pred") != (want.name == "pred"):
            raise PtxError(f"{have.name} where {want.name} is needed")
        if have.is_float or want.is_float:
            if have.bits == want.bits:
                return bit_cast(want.cpp, expression)
            if want.bits < have.bits or want.is_float:
                raise PtxError(f"{have.name} where {want.name} is needed")
            same_width = TYPES[f"u{have.bits}"]
            return f"{want.cpp}({bit_cast(same_width.cpp, expression)})"
        return f"{want.cpp}({expression})"
