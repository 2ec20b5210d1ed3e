"""PTX types and the C++ types that hold them. float16 and bfloat16 are held as their bits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Type:
    """A PTX type."""

    name: str  # in PTX
    cpp: str
    bits: int  # 1 for predicates

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        """Held in a C++ floating-point variable."""
        return self.name in ("f32", "f64")

    @property
    def is_narrow_float(self) -> bool:
        return "f16" in self.name

    @property
    def is_integer(self) -> bool:
        return self.name[0] in "bsu" and not self.is_narrow_float

    @property
    def is_signed(self) -> bool:
        return self.name[0] == "s"


def _integer(name: str) -> Type:
    bits = int(name[1:])
    return Type(name, f"int{bits}_t" if name[0] == "s" else f"uint{bits}_t", bits)


TYPES: dict[str, Type] = {
    **{f"{letter}{bits}": _integer(f"{letter}{bits}") for letter in "bus" for bits in (8, 16, 32, 64)},
    "pred": Type("pred", "bool", 1),
    "f16": Type("f16", "uint16_t", 16),
    "bf16": Type("bf16", "uint16_t", 16),
    "f16x2": Type("f16x2", "uint32_t", 32),
    "bf16x2": Type("bf16x2", "uint32_t", 32),
    "tf32": Type("tf32", "uint32_t", 32),
    "f32": Type("f32", "float", 32),
    "f64": Type("f64", "double", 64),
}


def unsigned(kind: Type) -> Type:
    """Same width: arithmetic that wraps, without C++'s undefined signed overflow."""
    return TYPES[f"u{kind.bits}"]


def twice(kind: Type) -> Type:
    """The type of a wide product."""
    return TYPES[f"{kind.name[0]}{kind.bits * 2}"]
