"""Numbers as a GPU holds them, in exact rational arithmetic: the oracle of the PTX tests, independent of any C++."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

Number = int | float  # floats are exact: every format here fits into float64


@dataclass(frozen=True)
class FloatFormat:
    bits: int
    precision: int  # with the hidden bit
    max_exponent: int
    decode: Callable[[int], float]

    @property
    def min_exponent(self) -> int:
        return 1 - self.max_exponent

    def round(self, value: Fraction | float, mode: str = "rn") -> float:
        """The nearest number (ties to even), or the next one towards zero, down or up. Floats: infinity, NaN and zero pass through."""
        if not isinstance(value, Fraction):
            if value == 0 or not math.isfinite(value):
                return float(value)
            value = Fraction(value)
        if value == 0:
            return 0.0
        sign = -1.0 if value < 0 else 1.0
        magnitude = abs(value)
        exponent = max(math.frexp(float(magnitude))[1] - 1 if magnitude < Fraction(2) ** 1000 else 1000, self.min_exponent)
        while magnitude >= Fraction(2) ** (exponent + 1):
            exponent += 1
        while exponent > self.min_exponent and magnitude < Fraction(2) ** exponent:
            exponent -= 1
        unit = Fraction(2) ** (exponent - self.precision + 1)
        down = math.floor(value / unit)
        rest = value / unit - down
        if mode == "rn":
            steps = down + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and down % 2 == 1))
        elif mode == "rna":  # ties away from zero
            steps = down + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and value > 0))
        else:
            up = {"rm": False, "rp": True, "rz": value < 0}[mode]
            steps = down + (rest > 0 and up)
        rounded = steps * unit
        largest = (2 - Fraction(2) ** (1 - self.precision)) * Fraction(2) ** self.max_exponent
        if abs(rounded) > largest:
            stays = mode == "rz" or (mode == "rm" and value > 0) or (mode == "rp" and value < 0)
            return sign * (float(largest) if stays else math.inf)
        return sign * float(abs(rounded))

    def fma(self, a: float, b: float, c: float, mode: str = "rn") -> float:
        """a * b + c, rounded once."""
        if not all(map(math.isfinite, (a, b, c))):
            return float_product_sum(a, b, c)
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        if exact == 0:
            product_sign = math.copysign(1.0, a) * math.copysign(1.0, b)
            same_sign = product_sign == math.copysign(1.0, c)
            return math.copysign(0.0, product_sign if same_sign else -1.0 if mode == "rm" else 1.0)
        return self.round(exact, mode)

    def multiply(self, a: float, b: float, mode: str = "rn") -> float:
        if a == 0 or b == 0 or not (math.isfinite(a) and math.isfinite(b)):
            return a * b
        return self.round(Fraction(a) * Fraction(b), mode)


def float_product_sum(a: float, b: float, c: float) -> float:
    try:
        return a * b + c
    except (OverflowError, ValueError):
        return math.nan


def _bfloat16(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


FORMATS = {
    "f16": FloatFormat(16, 11, 15, lambda bits: struct.unpack("<e", struct.pack("<H", bits))[0]),
    "bf16": FloatFormat(16, 8, 127, _bfloat16),
    "f32": FloatFormat(32, 24, 127, lambda bits: struct.unpack("<f", struct.pack("<I", bits))[0]),
    "f64": FloatFormat(64, 53, 1023, lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0]),
}
TF32 = FloatFormat(32, 11, 127, FORMATS["f32"].decode)


def width(kind: str) -> int:
    return FORMATS[kind].bits if kind in FORMATS else int(kind[1:])


def decode(kind: str, bits: int) -> Number:
    bits %= 1 << width(kind)
    if kind in FORMATS:
        return FORMATS[kind].decode(bits)
    return bits - (1 << width(kind)) if kind[0] == "s" and bits >> (width(kind) - 1) else bits


def same(kind: str, got: int, wanted: Number) -> bool:
    """Integers by their bits; floats by value and sign, any NaN being like another."""
    if kind not in FORMATS:
        return (got - int(wanted)) % (1 << width(kind)) == 0
    value = decode(kind, got)
    if math.isnan(wanted):
        return math.isnan(value)
    return value == wanted and math.copysign(1, value) == math.copysign(1, wanted)


def samples(kind: str, count: int, seed: int) -> list[int]:
    """Bit patterns: edges of the type, and random ones of every magnitude."""
    source = random.Random(seed)
    bits = width(kind)
    if kind in FORMATS:
        sign, infinity = 1 << (bits - 1), {"f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F800000, "f64": 0x7FF << 52}[kind]
        one = {"f16": 0x3C00, "bf16": 0x3F80, "f32": 0x3F800000, "f64": 0x3FF << 52}[kind]
        edges = [0, 1, 2, one, one + 1, one - 1, infinity - 1, infinity, infinity + 1, infinity | infinity >> 1]
        edges += [one + (3 << (bits - 12)) + k for k in range(3)]
        values = [*edges, *(edge | sign for edge in edges)]
    else:
        edges = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256]
        edges += [1 << (bits - 1), (1 << (bits - 1)) - 1, (1 << bits) - 1, (1 << bits) - 2, 1 << (bits // 2), (1 << bits // 2) - 1]
        values = [edge % (1 << bits) for edge in edges]
    while len(values) < count:
        values.append(source.choice(values[: len(edges)]) if source.random() < 0.3 else source.getrandbits(bits) >> source.randrange(bits))
    source.shuffle(values)
    return values[:count]
