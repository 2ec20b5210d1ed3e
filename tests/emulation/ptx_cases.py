"""Single instructions and what they must compute, after the PTX ISA's own definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tests.emulation.numbers import FORMATS, TF32, decode, width


@dataclass(frozen=True)
class Case:
    """`text`: PTX with {d} and {a}, {b}, {c}. `kinds`: of d, a, b, c, as they lie in memory; registers are as wide, or `register`."""

    text: str
    kinds: str
    expected: Callable[..., Any]
    register: str = ""  # of d, where it is wider than d
    extra: str = ""  # more registers
    approximate: float = 0.0


def wrap(kind: str, value: int) -> int:
    return int(decode(kind, value))


def bits_of(value: int, count: int) -> int:
    return value % (1 << count)


def truncated_quotient(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def integer_cases() -> Iterator[Case]:
    for kind in ("s32", "u32", "u16", "s16", "s64", "u64"):
        yield Case(f"add.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b: a + b)
        yield Case(f"sub.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b: a - b)
        yield Case(f"mul.lo.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b: a * b)
        yield Case(f"mul.hi.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b, k=kind: a * b >> width(k))
        yield Case(f"mad.lo.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{kind} {kind} {kind} {kind}", lambda a, b, c: a * b + c)
        yield Case(f"min.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", min)
        yield Case(f"max.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", max)
        divide = (
            f"{{{{ .reg .pred z; setp.eq.{kind} z, {{b}}, 0; selp.b{width(kind)} {{b}}, 3, {{b}}, z; OP.{kind} {{d}}, {{a}}, {{b}}; }}}}"
        )
        yield Case(divide.replace("OP", "div"), f"{kind} {kind} {kind}", lambda a, b: truncated_quotient(a, b or 3))
        yield Case(divide.replace("OP", "rem"), f"{kind} {kind} {kind}", lambda a, b: a - (b or 3) * truncated_quotient(a, b or 3))
        for name in ("shl", "shr"):
            if (name, kind[0]) == ("shl", "s"):
                continue
            suffix = f"b{width(kind)}" if name == "shl" else kind
            shift = (lambda a, n: a << n) if name == "shl" else (lambda a, n: a >> n)
            yield Case(f"{name}.{suffix} {{d}}, {{a}}, {{b}};", f"{kind} {kind} u32", lambda a, n, s=shift: s(a, min(n, 64)))
            yield Case(f"{name}.{suffix} {{d}}, {{a}}, 5;", f"{kind} {kind}", lambda a, s=shift: s(a, 5))
            yield Case(f"{name}.{suffix} {{d}}, {{a}}, 64;", f"{kind} {kind}", lambda a, s=shift: s(a, 64))
    for kind, double in (("s32", "s64"), ("u32", "u64"), ("s16", "s32"), ("u16", "u32")):
        yield Case(f"mul.wide.{kind} {{d}}, {{a}}, {{b}};", f"{double} {kind} {kind}", lambda a, b: a * b)
        yield Case(f"mad.wide.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{double} {kind} {kind} {double}", lambda a, b, c: a * b + c)
    for kind in ("s32", "u32"):
        low = (lambda v: (v & 0xFFFFFF) - ((v & 0x800000) << 1)) if kind == "s32" else (lambda v: v & 0xFFFFFF)
        yield Case(f"mad.hi.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{kind} {kind} {kind} {kind}", lambda a, b, c: (a * b >> 32) + c)
        yield Case(f"mul24.lo.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b, f=low: f(a) * f(b))
        yield Case(f"mul24.hi.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b, f=low: f(a) * f(b) >> 16)
        yield Case(f"mad24.lo.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{kind} {kind} {kind} {kind}", lambda a, b, c, f=low: f(a) * f(b) + c)
        yield Case(f"sad.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{kind} {kind} {kind} {kind}", lambda a, b, c: c + abs(a - b))
    yield Case("abs.s32 {d}, {a};", "s32 s32", abs)
    yield Case("neg.s32 {d}, {a};", "s32 s32", lambda a: -a)
    yield Case("neg.s64 {d}, {a};", "s64 s64", lambda a: -a)


def bit_cases() -> Iterator[Case]:
    for bits in (16, 32, 64):
        kind = f"u{bits}"
        yield Case(f"and.b{bits} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b: a & b)
        yield Case(f"or.b{bits} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b: a | b)
        yield Case(f"xor.b{bits} {{d}}, {{a}}, -2;", f"{kind} {kind}", lambda a: a ^ -2)
        yield Case(f"not.b{bits} {{d}}, {{a}};", f"{kind} {kind}", lambda a: ~a)
    for table in (0x00, 0x80, 0xFE, 0x96, 0xE2, 0x6A, 0xD8, 0xFF):
        yield Case(f"lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table};", "u32 u32 u32 u32", lambda a, b, c, t=table: logic3(a, b, c, t))
    for mode in ("wrap", "clamp"):
        amount = (lambda n: n & 31) if mode == "wrap" else (lambda n: min(n, 32))
        yield Case(
            f"shf.l.{mode}.b32 {{d}}, {{a}}, {{b}}, {{c}};", "u32 u32 u32 u32", lambda a, b, c, f=amount: (b << 32 | a) << f(c) >> 32
        )
        yield Case(f"shf.r.{mode}.b32 {{d}}, {{a}}, {{b}}, {{c}};", "u32 u32 u32 u32", lambda a, b, c, f=amount: (b << 32 | a) >> f(c))
    for bits in (32, 64):
        for sign in "us":
            yield Case(f"bfe.{sign}{bits} {{d}}, {{a}}, {{b}}, {{c}};", f"u{bits} u{bits} u32 u32", extract(bits, sign == "s"))
        insert = f"bfi.b{bits} {{d}}, {{a}}, {{b}}, {{c}}, 7;"
        yield Case(insert, f"u{bits} u{bits} u{bits} u32", lambda a, b, c, n=bits: insert_bits(a, b, c & 255, 7, n))
        yield Case(insert.replace("7;", "255;"), f"u{bits} u{bits} u{bits} u32", lambda a, b, c, n=bits: insert_bits(a, b, c & 255, 255, n))
        yield Case(f"popc.b{bits} {{d}}, {{a}};", f"u32 u{bits}", lambda a: a.bit_count())
        yield Case(f"clz.b{bits} {{d}}, {{a}};", f"u32 u{bits}", lambda a, n=bits: n - a.bit_length())
        yield Case(f"brev.b{bits} {{d}}, {{a}};", f"u{bits} u{bits}", lambda a, n=bits: int(f"{a:0{n}b}"[::-1], 2))
        yield Case(f"bfind.u{bits} {{d}}, {{a}};", f"u32 u{bits}", lambda a: a.bit_length() - 1)
        yield Case(f"bfind.s{bits} {{d}}, {{a}};", f"u32 s{bits}", lambda a: (~a if a < 0 else a).bit_length() - 1)
    yield Case("bfind.shiftamt.u32 {d}, {a};", "u32 u32", lambda a: 32 - a.bit_length() if a else -1)
    yield Case("prmt.b32 {d}, {a}, {b}, {c};", "u32 u32 u32 u32", permute)
    yield Case("prmt.b32 {d}, {a}, {b}, 0x7610;", "u32 u32 u32", lambda a, b: permute(a, b, 0x7610))
    yield Case("mov.b32 {d}, {{{a}, {b}}};", "u32 u16 u16", lambda a, b: b << 16 | a)
    yield Case("mov.b64 {d}, {{{a}, {b}}};", "u64 u32 u32", lambda a, b: b << 32 | a)
    yield Case("mov.b32 {{_, {d}}}, {a};", "u16 u32", lambda a: a >> 16)
    yield Case("mov.b64 {{x, {d}}}, {a};", "u32 u64", lambda a: a >> 32, extra=".reg .b32 x;")
    yield Case("{{ .reg .pred p; setp.ne.u32 p, {c}, 0; selp.b32 {d}, {a}, {b}, p; }}", "u32 u32 u32 u32", lambda a, b, c: a if c else b)
    yield Case("slct.u32.s32 {d}, {a}, {b}, {c};", "u32 u32 u32 s32", lambda a, b, c: a if c >= 0 else b)
    yield Case("slct.u32.f32 {d}, {a}, {b}, {c};", "u32 u32 u32 f32", lambda a, b, c: a if c >= 0 else b)


def logic3(a: int, b: int, c: int, table: int) -> int:
    return sum((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i for i in range(32))


def extract(bits: int, signed: bool) -> Callable[[int, int, int], int]:
    """The loop that the PTX ISA gives for bfe."""

    def bfe(a: int, position: int, length: int) -> int:
        position, length, top = position & 255, length & 255, bits - 1
        fill = (a >> min(position + length - 1, top) & 1) if signed and length else 0
        return sum((a >> (position + i) & 1 if i < length and position + i <= top else fill) << i for i in range(bits))

    return bfe


def insert_bits(a: int, b: int, position: int, length: int, bits: int) -> int:
    for i in range(length):
        if position + i < bits:
            b = (b & ~(1 << (position + i))) | (a >> i & 1) << (position + i)
    return b


def permute(a: int, b: int, selector: int) -> int:
    result = 0
    for i in range(4):
        choice = selector >> 4 * i & 15
        byte = (b << 32 | a) >> 8 * (choice & 7) & 255
        result |= (255 * (byte >> 7) if choice & 8 else byte) << 8 * i
    return result


COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def comparison_cases() -> Iterator[Case]:
    to_integer = "{{{{ .reg .pred p; {0} selp.u32 {{d}}, 1, 0, p; }}}}"
    for kind in ("s32", "u32", "s16", "u64"):
        for name, compare in COMPARE.items():
            yield Case(to_integer.format(f"setp.{name}.{kind} p, {{a}}, {{b}};"), f"u32 {kind} {kind}", compare)
    for name, same_as in (("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")):
        yield Case(to_integer.format(f"setp.{name}.u32 p, {{a}}, {{b}};"), "u32 u32 u32", COMPARE[same_as])
    for kind in ("f32", "f64", "f16", "bf16"):
        for name, compare in COMPARE.items():
            ordered = lambda a, b, f=compare: a == a and b == b and f(a, b)  # noqa: E731
            unordered = lambda a, b, f=compare: a != a or b != b or f(a, b)  # noqa: E731
            yield Case(to_integer.format(f"setp.{name}.{kind} p, {{a}}, {{b}};"), f"u32 {kind} {kind}", ordered)
            yield Case(to_integer.format(f"setp.{name}u.{kind} p, {{a}}, {{b}};"), f"u32 {kind} {kind}", unordered)
        yield Case(to_integer.format(f"setp.num.{kind} p, {{a}}, {{b}};"), f"u32 {kind} {kind}", lambda a, b: a == a and b == b)
        yield Case(to_integer.format(f"setp.nan.{kind} p, {{a}}, {{b}};"), f"u32 {kind} {kind}", lambda a, b: a != a or b != b)
    yield Case("set.lt.u32.s32 {d}, {a}, {b};", "u32 s32 s32", lambda a, b: -(a < b))
    yield Case("set.gtu.f32.f32 {d}, {a}, {b};", "f32 f32 f32", lambda a, b: float(not a <= b))
    yield Case("set.eq.f16.f16 {d}, {a}, {b};", "f16 f16 f16", lambda a, b: float(a == b))
    yield Case("set.ne.u32.f32 {d}, {a}, {b};", "u32 f32 f32", lambda a, b: -(a == a and b == b and a != b))
    both = "{{ .reg .pred p, q, r; setp.lt.u32 r, {c}, 100; setp.gt.OP.f32 p|q, {a}, {b}, !r;"
    both += " selp.u32 {d}, 1, 0, q; @p add.u32 {d}, {d}, 2; }}"
    for name, combine in (("and", min), ("or", max), ("xor", lambda x, y: x ^ y)):
        text = both.replace("OP", name)
        yield Case(text, "u32 f32 f32 u32", lambda a, b, c, f=combine: 2 * f(a > b, c >= 100) + f(not a > b, c >= 100))
    predicates = "{{ .reg .pred p, q; setp.lt.u32 p, {a}, 9; setp.lt.u32 q, {b}, 9; xor.pred p, p, q; not.pred p, p;"
    predicates += " @!p mov.u32 {d}, 7; @p mov.u32 {d}, 8; }}"
    yield Case(predicates, "u32 u32 u32", lambda a, b: 8 if (a < 9) == (b < 9) else 7)


def float_cases() -> Iterator[Case]:
    f32 = FORMATS["f32"]
    for mode in ("rn", "rz", "rm", "rp"):
        yield Case(f"add.{mode}.f32 {{d}}, {{a}}, {{b}};", "f32 f32 f32", lambda a, b, m=mode: f32.fma(a, 1.0, b, m))
        yield Case(f"sub.{mode}.f32 {{d}}, {{a}}, {{b}};", "f32 f32 f32", lambda a, b, m=mode: f32.fma(b, -1.0, a, m))
        yield Case(f"mul.{mode}.f32 {{d}}, {{a}}, {{b}};", "f32 f32 f32", lambda a, b, m=mode: f32.multiply(a, b, m))
        yield Case(f"fma.{mode}.f32 {{d}}, {{a}}, {{b}}, {{c}};", "f32 f32 f32 f32", lambda a, b, c, m=mode: f32.fma(a, b, c, m))
    yield Case("fma.rn.f64 {d}, {a}, {b}, {c};", "f64 f64 f64 f64", FORMATS["f64"].fma)
    yield Case("mul.ftz.f32 {d}, {a}, {b};", "f32 f32 f32", lambda a, b: flush(f32.multiply(flush(a), flush(b))))
    yield Case(
        "fma.rn.ftz.sat.f32 {d}, {a}, {b}, {c};", "f32 f32 f32 f32", lambda a, b, c: flush(clip(f32.fma(flush(a), flush(b), flush(c))))
    )
    yield Case("neg.f32 {d}, {a};", "f32 f32", lambda a: -a)
    yield Case("abs.f32 {d}, {a};", "f32 f32", abs)
    yield Case("copysign.f32 {d}, {a}, {b};", "f32 f32 f32", lambda a, b: math.copysign(b, a))
    for kind in ("f32", "f16", "bf16"):
        for name, nan in (("min", False), ("max", False), ("min.NaN", True), ("max.NaN", True)):
            yield Case(f"{name}.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", extremum(name.startswith("min"), nan))
    for kind in ("f16", "bf16"):
        fma = FORMATS[kind].fma
        yield Case(f"add.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b, f=fma: f(a, 1.0, b))
        yield Case(f"sub.rn.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", lambda a, b, f=fma: f(b, -1.0, a))
        yield Case(f"mul.{kind} {{d}}, {{a}}, {{b}};", f"{kind} {kind} {kind}", FORMATS[kind].multiply)
        yield Case(f"fma.rn.{kind} {{d}}, {{a}}, {{b}}, {{c}};", f"{kind} {kind} {kind} {kind}", fma)
        yield Case(f"neg.{kind} {{d}}, {{a}};", f"{kind} {kind}", lambda a: -a)
        yield Case(f"abs.{kind} {{d}}, {{a}};", f"{kind} {kind}", abs)
        for half in (0, 1):  # both halves of packed arithmetic
            pack = "mov.b32 x, {{{a}, {b}}}; mov.b32 y, {{{b}, {c}}};"
            operation = f"fma.rn.{kind}x2 x, x, y, y; mov.b32 {'{{ {d}, _ }}' if half == 0 else '{{ _, {d} }}'}, x;"
            expected = (lambda a, b, c, f=fma: f(a, b, b)) if half == 0 else (lambda a, b, c, f=fma: f(b, c, c))
            yield Case(pack + operation, f"{kind} {kind} {kind} {kind}", expected, extra=".reg .b32 x, y;")
    yield Case("fma.rn.relu.f16 {d}, {a}, {b}, {c};", "f16 f16 f16 f16", lambda a, b, c: relu(FORMATS["f16"].fma(a, b, c)))
    yield Case("div.rn.f32 {d}, {a}, {b};", "f32 f32 f32", quotient)
    yield Case("rcp.rn.f32 {d}, {a};", "f32 f32", lambda a: quotient(1.0, a))
    yield Case("sqrt.rn.f32 {d}, {a};", "f32 f32", lambda a: f32.round(math.sqrt(a)) if a >= 0 else math.nan)
    near = 2e-6
    yield Case("ex2.approx.ftz.f32 {d}, {a};", "f32 f32", lambda a: flush(power_of_two(flush(a))), approximate=near)
    yield Case("tanh.approx.f32 {d}, {a};", "f32 f32", math.tanh, approximate=near)
    yield Case("ex2.approx.f16 {d}, {a};", "f16 f16", lambda a: FORMATS["f16"].round(power_of_two(a)), approximate=1e-3)
    yield Case("{{ .reg .pred p; testp.infinite.f32 p, {a}; selp.u32 {d}, 1, 0, p; }}", "u32 f32", math.isinf)


def flush(value: float) -> float:
    return math.copysign(0.0, value) if abs(value) < 2.0**-126 else value


def clip(value: float) -> float:
    return min(value, 1.0) if value > 0 else 0.0


def relu(value: float) -> float:
    return 0.0 if value <= 0 else value


def quotient(a: float, b: float) -> float:
    if not math.isfinite(a) or not math.isfinite(b) or a == 0 or b == 0:
        if b == 0:
            return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1, b)
        return a / b
    return FORMATS["f32"].round(Fraction(a) / Fraction(b))


def power_of_two(value: float) -> float:
    return math.inf if value >= 128 else 2.0 ** max(value, -1000.0) if value == value else value


def extremum(smallest: bool, nan: bool) -> Callable[[float, float], float]:
    def choose(a: float, b: float) -> float:
        if a != a or b != b:
            return math.nan if nan or (a != a and b != b) else (b if a != a else a)
        order = sorted((a, b), key=lambda value: (value, math.copysign(1, value)))
        return order[0] if smallest else order[1]

    return choose


def conversion_cases() -> Iterator[Case]:
    for source, to in (("s8", "s32"), ("u8", "u32"), ("s16", "s32"), ("u16", "u64"), ("s32", "s64"), ("u32", "u64"), ("s32", "u64")):
        yield Case(f"cvt.{to}.{source} {{d}}, {{a}};", f"{to} {source}", lambda a: a)
    for source, to in (("u32", "u16"), ("u64", "u32"), ("s64", "s32"), ("u32", "s16")):
        yield Case(f"cvt.{to}.{source} {{d}}, {{a}};", f"{to} {source}", lambda a: a)
    yield Case("cvt.s8.s32 {d}, {a};", "s32 s32", lambda a: wrap("s8", a))  # sign-extended into the register
    yield Case("cvt.u8.u32 {d}, {a};", "u32 u32", lambda a: a & 255)
    yield Case("cvt.sat.u8.s32 {d}, {a};", "u32 s32", lambda a: min(max(a, 0), 255))
    yield Case("cvt.sat.s16.s32 {d}, {a};", "s32 s32", lambda a: min(max(a, -(2**15)), 2**15 - 1))
    yield Case("cvt.sat.u32.s64 {d}, {a};", "u32 s64", lambda a: min(max(a, 0), 2**32 - 1))
    for source in ("f32", "f64", "f16"):
        for to in ("s32", "u32", "s64", "u64", "s16", "u16"):
            for rounding in ("rni", "rzi", "rmi", "rpi"):
                register = "b32" if width(to) < 32 else ""
                yield Case(
                    f"cvt.{rounding}.{to}.{source} {{d}}, {{a}};", f"{to} {source}", to_integer(to, source, rounding), register=register
                )
    for rounding in ROUND:
        yield Case(f"cvt.{rounding}.f32.f32 {{d}}, {{a}};", "f32 f32", lambda a, r=rounding: integral(a, r))
    yield Case("cvt.sat.f32.f32 {d}, {a};", "f32 f32", clip)
    yield Case("cvt.f32.f16 {d}, {a};", "f32 f16", lambda a: a)
    yield Case("cvt.f32.bf16 {d}, {a};", "f32 bf16", lambda a: a)
    yield Case("cvt.f64.f32 {d}, {a};", "f64 f32", lambda a: a)
    for to in ("f16", "bf16"):
        for mode in ("rn", "rz"):
            yield Case(f"cvt.{mode}.{to}.f32 {{d}}, {{a}};", f"{to} f32", lambda a, f=FORMATS[to], m=mode: f.round(a, m))
        yield Case(f"cvt.rn.relu.{to}.f32 {{d}}, {{a}};", f"{to} f32", lambda a, f=FORMATS[to]: relu(f.round(a)))
        for half, operand in ((0, 1), (1, 0)):  # the first source is the high half
            text = f"cvt.rn.{to}x2.f32 x, {{a}}, {{b}}; mov.b32 {'{{ {d}, _ }}' if half == 0 else '{{ _, {d} }}'}, x;"
            yield Case(text, f"{to} f32 f32", lambda a, b, f=FORMATS[to], o=operand: f.round((a, b)[o]), extra=".reg .b32 x;")
        yield Case(f"cvt.rn.{to}.s32 {{d}}, {{a}};", f"{to} s32", lambda a, f=FORMATS[to]: f.round(Fraction(a)))
    yield Case("cvt.rn.f16.f64 {d}, {a};", "f16 f64", FORMATS["f16"].round)
    for mode in ("rn", "rz", "rm", "rp"):
        yield Case(f"cvt.{mode}.f32.f64 {{d}}, {{a}};", "f32 f64", lambda a, m=mode: FORMATS["f32"].round(a, m))
        yield Case(f"cvt.{mode}.f32.s32 {{d}}, {{a}};", "f32 s32", lambda a, m=mode: FORMATS["f32"].round(Fraction(a), m))
    for source in ("u32", "s64", "u64", "u16", "s8"):
        yield Case(f"cvt.rn.f32.{source} {{d}}, {{a}};", f"f32 {source}", lambda a: FORMATS["f32"].round(Fraction(a)))
    yield Case("cvt.rn.f64.s32 {d}, {a};", "f64 s32", float)
    yield Case("cvt.rna.tf32.f32 {d}, {a};", "f32 f32", lambda a: TF32.round(a, "rna"))


ROUND: dict[str, Callable[[float], int]] = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


def integral(value: float, rounding: str) -> float:
    return math.copysign(float(ROUND[rounding](value)), value) if math.isfinite(value) else value


def to_integer(to: str, source: str, rounding: str) -> Callable[[float], int]:
    """Saturates; NaN is 0, or the middle of the range when 64 bits are on either side (PTX ISA, cvt)."""
    bits = width(to)
    least, most = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if to[0] == "s" else (0, (1 << bits) - 1)

    def convert(value: float) -> int:
        if value != value:
            return (least or 1 << (bits - 1)) if 64 in (bits, width(source)) else 0
        if math.isinf(value):
            return most if value > 0 else least
        return min(max(ROUND[rounding](value), least), most)

    return convert


CASES = [*integer_cases(), *bit_cases(), *comparison_cases(), *float_cases(), *conversion_cases()]
