"""Every detector fires: each planted bug is caught by the detectors named here, with the text that says what it is.

seq, rev, rand: schedules of the plain build. poison: what shared memory holds before it is written changes the outcome. asan:
AddressSanitizer and UBSan. tsan: ThreadSanitizer, with every device thread a thread of its own.
"""

from __future__ import annotations

import re

import pytest

from tests.emulation.build import bugs, run_kernel

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]

WRONG = "wrong result"
RACE = "ThreadSanitizer: data race"
ALWAYS = ("seq", "rev", "rand", "asan", "tsan")
SOURCE, PTX = "source", "ptx80"


def always(text: str) -> dict[str, str]:
    """The emulator's own check: every build and schedule reports it."""
    return dict.fromkeys(ALWAYS, f"emulator: .*{text}")


RACES = {"seq": WRONG, "rev": WRONG, "rand": WRONG, "tsan": RACE}
OUT_OF_BOUNDS = {**always("illegal memory access at .* bytes after the end of a device allocation"), "asan": "use-after-poison"}
HOST_TOUCHES = "host code touched device memory"

# bug -> (kernel, detectors), or detectors for each engine where they differ
CAUGHT: dict[str, tuple[str, dict[str, str] | dict[str, dict[str, str]]]] = {
    "kMissingWarpSync": ("reduce", RACES),
    "kFullMaskInDivergentBranch": ("reduce", always("wait in a warp collective")),
    "kLanesOutsideTheMask": ("reduce", dict.fromkeys(ALWAYS, WRONG)),
    "kLaneNotInItsMask": ("reduce", always("lane .* is not in its own mask 0000ffff")),
    "kOverlappingMasks": ("reduce", always("overlaps a pending one")),
    "kDivergentShuffle": ("reduce", always("divergent warp collective: this lane is at .*, others at")),
    "kMissingBarrier": ("reduce", RACES),
    "kExitBeforeCollectives": ("reduce", always("deadlock or divergent barrier.*threads exited")),
    "kStaticSharedOverflow": (
        "reduce",
        {
            SOURCE: {**always("shared memory written 0 bytes after 'partial'"), "asan": "index 32 out of bounds"},
            PTX: {**always("shared memory written 0 bytes after '.*partial'"), "asan": "use-after-poison"},
        },
    ),
    "kReadOfNeverWritten": ("reduce", {"seq": WRONG, "poison": ""}),
    "kGlobalReadPastTheEnd": ("reduce", OUT_OF_BOUNDS),
    "kGlobalWritePastTheEnd": ("reduce", OUT_OF_BOUNDS),
    "kPlainAddBetweenBlocks": ("reduce", {"tsan": RACE}),
    "kTrap": ("reduce", always("trap")),
    "kDivisionByZero": (
        "reduce",
        {
            SOURCE: {"seq": "arithmetic exception: integer division by zero", "asan": "runtime error: division by zero"},
            PTX: always("division by zero at PTX line"),
        },
    ),
    "kEndlessRecursion": ("reduce", {SOURCE: {"seq": "stack overflow", "tsan": "stack overflow", "asan": "stack-overflow"}}),
    "kMissingUpperBound": ("multiply", OUT_OF_BOUNDS),
    "kMissingLoopBarrier": ("multiply", RACES),
    # PTX barriers have numbers, not lines: warps that meet at different ones get out of step, which shows later.
    "kDivergentBarrier": (
        "multiply",
        {
            SOURCE: {**always("divergent barrier: this thread is at .*, others wait at"), "tsan": RACE},
            PTX: {**always("deadlock or divergent barrier: 32 threads"), "tsan": RACE},
        },
    ),
    "kTailNotWritten": ("multiply", {"seq": WRONG, "poison": ""}),
    "kCopyNotWaitedFor": ("multiply", RACES),
    "kCopyNeverWaitedFor": ("multiply", always("cp.async copies never waited for")),
    "kTooLittleSharedMemory": (
        "multiply",
        {
            SOURCE: always("dynamic shared memory: 'results' needs bytes .* but the launch asked for"),
            PTX: always("bytes at shared address .* but the block has"),
        },
    ),
    "kMisalignedStore": (
        "multiply",
        {SOURCE: {"seq": "misaligned vector access", "asan": "store to misaligned address"}, PTX: always("is not a multiple")},
    ),
    "kOverlappingBlocks": ("multiply", {"tsan": RACE}),
    "kMissingEpilogueBarrier": ("multiply", RACES),
    "kDynamicSharedOverflow": (
        "multiply",
        {SOURCE: {"seq": WRONG, "asan": "use-after-poison"}, PTX: always("bytes at shared address")},
    ),
    "kHostPointerArgument": ("half", always("argument 0 holds a pointer that is not device memory")),
    "kHostPointerInStruct": ("reduce", always("argument 0 holds a pointer that is not device memory")),
    "kHostBufferDiesEarly": ("reduce", {"seq": WRONG, "asan": "heap-use-after-free", "tsan": "heap-use-after-free"}),
    "kTooManyThreads": ("reduce", always("no device runs a grid of 3 x 1 x 1 blocks of 2048 x 1 x 1 threads")),
    "kTooMuchSharedMemory": ("reduce", always("102400 bytes of dynamic shared memory; the launcher may use 49152")),
    "kBeyondLaunchBounds": ("reduce", {PTX: always("more threads than its __launch_bounds__")}),
    "kHostReadsDeviceMemory": (
        "reduce",
        {"seq": HOST_TOUCHES, "rev": HOST_TOUCHES, "rand": HOST_TOUCHES, "tsan": HOST_TOUCHES, "asan": "use-after-poison"},
    ),
    "kSynchronizeInEnqueue": ("reduce", always("cudaStreamSynchronize inside enqueue")),
    "kAllocateInEnqueue": ("reduce", always("cudaMalloc inside enqueue")),
    "kDefaultStreamInEnqueue": ("reduce", always("launch on the default stream inside enqueue")),
}


def table() -> list[tuple[str, str, str, str, str]]:
    rows = []
    for bug, (kernel, detectors) in CAUGHT.items():
        for engine in (SOURCE, PTX):
            by_engine = detectors.get(engine, {}) if {SOURCE, PTX} & set(detectors) else detectors
            assert isinstance(by_engine, dict)
            rows += [(bug, kernel, engine, detector, text) for detector, text in by_engine.items()]
    return rows


def test_every_planted_bug_is_listed() -> None:
    assert set(CAUGHT) == set(bugs()) - {"kNone"}


@pytest.mark.parametrize(("bug", "kernel", "engine", "detector", "text"), table(), ids=lambda value: str(value)[:30])
def test_caught(bug: str, kernel: str, engine: str, detector: str, text: str) -> None:
    if detector == "poison":
        outcomes = [run_kernel(kernel, bug, engine=engine, poison=poison) for poison in (0, 255)]
        assert outcomes[0] != outcomes[1]
        return
    variant = detector if detector in ("asan", "tsan") else "plain"
    schedule = detector if variant == "plain" else "seq"
    done = run_kernel(kernel, bug, variant=variant, engine=engine, schedule=schedule)
    assert done.code != 0
    assert re.search(text, done.error), done.error
