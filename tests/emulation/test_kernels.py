"""Correct kernels pass: every engine, schedule and sanitizer, with the same bits."""

from __future__ import annotations

import pytest

from tests.emulation.build import build, run_kernel
from tests.emulation.numbers import decode

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]

ENGINES = ("source", "ptx75", "ptx80")
KERNELS = ("reduce", "multiply", "collectives", "half", "bfloat16", "tf32")
NOT_ON_TURING = ("bfloat16", "tf32")


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_engines_and_schedules_give_the_same_bits(kernel: str) -> None:
    outputs = set()
    for engine in ENGINES:
        if engine == "ptx75" and kernel in NOT_ON_TURING:
            continue
        for schedule, seed in (("seq", 1), ("rev", 1), ("rand", 1), ("rand", 2), ("rand", 3)):
            for poison in (255, 0):
                done = run_kernel(kernel, engine=engine, schedule=schedule, seed=seed, poison=poison)
                assert done.ok, (engine, schedule, seed, done.error)
                outputs.add(done.output)
    assert len(outputs) == 1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("variant", ["asan", "tsan"])
def test_sanitizers_have_nothing_to_say(kernel: str, variant: str) -> None:
    plain = run_kernel(kernel)
    for engine in ("source", "ptx80"):
        for schedule in ("seq", "rand"):
            done = run_kernel(kernel, variant=variant, engine=engine, schedule=schedule)
            assert done.ok, done.error
            assert done.output == plain.output


@pytest.mark.parametrize("kernel", NOT_ON_TURING)
def test_what_turing_lacks_traps(kernel: str) -> None:
    assert "trap at PTX line" in run_kernel(kernel, engine="ptx75").error


def test_collectives_match_their_definition() -> None:
    threads = 64
    x = [i * 11 % 7 - 2 for i in range(2 * threads)]
    expected = []
    for i, value in enumerate(x):
        block = x[i // threads * threads :][:threads]
        warp, lane = x[i // 32 * 32 :][:32], i % 32
        segment = lane // 8 * 8
        expected += [
            sum(other > 0 for other in block),
            int(all(other > -3 for other in block)),
            int(any(other > 3 for other in block)),
            sum((other % 2) << bit for bit, other in enumerate(warp)),
            int(any(other > 2 for other in warp)),
            int(all(other < 3 for other in warp)),
            warp[lane // 16 * 16 + value % 16],
            warp[lane ^ 5],
            warp[lane + 3] if lane + 3 < segment + 8 else value,
            warp[lane - 3] if lane - 3 >= segment else value,
            warp[lane ^ 1],
            value // 2 + (value % 2**32).bit_count(),
        ]
    for engine in ENGINES:
        done = run_kernel("collectives", engine=engine, schedule="rand")
        assert done.ok, done.error
        got = [int(word) for word in done.output.split("\n")[0].split()]
        assert [word - 2**32 * (word >= 2**31) for word in expected] == got


FUNCTION_RESULTS = 48  # per thread, as in functions.h


def results(kind: str, engine: str) -> list[list[int | float]]:
    done = run_kernel(f"functions-{kind}", engine=engine)
    assert done.ok, done.error
    values = [decode(kind, int(word, 16)) for word in done.output.split("\n")[0].split()]
    return [values[start : start + FUNCTION_RESULTS] for start in range(0, len(values), FUNCTION_RESULTS)]


@pytest.mark.parametrize(
    ("kind", "engine", "tolerance"),
    [
        ("f32", "ptx75", 4e-6),  # CUDA's exp, log, tanh... have a few units of error
        ("f32", "ptx80", 4e-6),
        ("f16", "ptx75", 2**-10),  # one unit
        ("f16", "ptx80", 2**-10),
        ("bf16", "ptx75", 2**-7),
        ("bf16", "ptx80", 2**-7),
        ("s64", "ptx75", 0),
        ("s64", "ptx80", 0),
    ],
)
def test_device_functions_compute_what_nvccs_code_does(kind: str, engine: str, tolerance: float) -> None:
    if engine == "ptx75" and kind == "bf16":  # only the conversions, in the last places
        mine, theirs = ([row[40:] for row in results(kind, name)] for name in ("source", engine))
    else:
        mine, theirs = results(kind, "source"), results(kind, engine)
    for thread, (row, expected) in enumerate(zip(mine, theirs, strict=True)):
        for place, (a, b) in enumerate(zip(row, expected, strict=True)):
            equal = a == b or (a != a and b != b)
            # A difference may cancel: relative to 1 at least.
            assert equal or abs(a - b) <= tolerance * max(1.0, abs(b)), (thread, place, a, b)


def test_an_unknown_instruction_names_itself_in_the_build() -> None:
    with pytest.raises(AssertionError, match=r"kernel _Z14sleep_a_littlev line \d+: nanosleep.u32 20: not known"):
        build("unknown_instruction")
