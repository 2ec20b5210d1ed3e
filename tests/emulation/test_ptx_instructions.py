"""Translated PTX instruction by instruction, against Python's exact arithmetic; and whole-thread forms in kernels of their own."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from tests.emulation.build import EMULATION, ROOT, build, run
from tests.emulation.numbers import decode, same, samples, width
from tests.emulation.ptx_cases import CASES, Case
from tests.emulation.ptx_kernels import KERNELS

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.slow]

THREADS = 512
HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"
OPERANDS = "abc"


def register(kind: str) -> str:
    return {"f32": ".f32", "f64": ".f64"}.get(kind, f".b{max(width(kind), 16)}")


def kernel_text(name: str, case: Case) -> str:
    """Thread i reads element i of each operand and writes element i of the result; every element has a slot of 8 bytes."""
    kinds = dict(zip("dabc", case.kinds.split(), strict=False))
    declarations = [f".reg {register(kind)} {letter};" for letter, kind in kinds.items()]
    if case.register:
        declarations[0] = f".reg .{case.register} d;"
    parameters = ", ".join(f".param .u64 p_{letter}" for letter in "dabc")
    lines = [*declarations, ".reg .b64 base, i; .reg .b32 t;", case.extra, "mov.u32 t, %tid.x; mul.wide.u32 i, t, 8;"]
    for letter, kind in list(kinds.items())[1:]:
        load = kind if width(kind) == 8 else register(kind)[1:]
        lines.append(f"ld.param.u64 base, [p_{letter}]; add.s64 base, base, i; ld.global.{load} {letter}, [base];")
    lines.append(case.text.format(d="d", a="a", b="b", c="c"))
    # A narrow result is stored with its register's upper bits, which must be the extension.
    stored = case.register or register(kinds["d"])[1:]
    lines.append(f"ld.param.u64 base, [p_d]; add.s64 base, base, i; st.global.{stored} [base], d; ret;")
    return f".visible .entry {name}({parameters})\n{{\n" + "\n".join(lines) + "\n}\n"


@dataclass(frozen=True)
class Library:
    native: ctypes.CDLL
    indices: dict[str, int]

    def run(
        self, name: str, inputs: Sequence[np.ndarray], *, threads: int = THREADS, blocks: int = 1, output: int | None = None
    ) -> np.ndarray:
        """Launches a kernel with arguments (output, inputs...); the output has 64-bit elements, zero at first."""
        native = self.native
        native.deploydcn_emulation_reset()
        assert native.deploydcn_emulation_set(b"engine", b"ptx80") == 0
        result = np.zeros(output or threads * blocks, np.uint64)
        arrays = [result, *(np.ascontiguousarray(array) for array in inputs)]
        device = [native.deploydcn_emulation_malloc(array.nbytes) for array in arrays]
        for pointer, array in zip(device, arrays, strict=True):
            native.deploydcn_emulation_upload(pointer, array.ctypes.data, array.nbytes)
        arguments = (ctypes.c_void_p * 4)(*device, *[None] * (4 - len(device)))
        native.run_kernel(self.indices[name], blocks, threads, arguments)
        error = native.deploydcn_emulation_error().decode()
        native.deploydcn_emulation_download(result.ctypes.data, device[0], result.nbytes)
        native.deploydcn_emulation_reset()
        for pointer in device:
            native.deploydcn_emulation_free(pointer)
        if error:
            raise RuntimeError(error)
        return result


@cache
def library() -> Library:
    """All cases and kernels as one module, translated and compiled together with empty functions of the same names to launch them by."""
    folder = ROOT / "build" / "emulation-tests-ptx"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"case_{index}": kernel_text(f"case_{index}", case) for index, case in enumerate(CASES)} | KERNELS
    (folder / "cases.ptx").write_text(HEADER + "\n".join(texts.values()))
    translated = run(sys.executable, EMULATION / "translate_ptx.py", folder / "cases.ptx", folder / "cases.cc", "--engine", "ptx80")
    assert translated.code == 0, translated.error
    names = [re.search(r"\.entry (\w+)", text).group(1) for text in texts.values()]  # type: ignore[union-attr]
    (folder / "launch.cc").write_text(launcher(names))
    runtime = build("deploydcn_emulation") / "emulation" / "libdeploydcn_emulation.a"
    cached = (build("deploydcn_emulation") / "CMakeCache.txt").read_text()
    include = re.search(r"DEPLOYDCN_CUDA_INCLUDE:\w+=(.*)", cached).group(1)  # type: ignore[union-attr]
    flags = [
        "-std=c++20",
        "-O1",
        "-w",
        "-fPIC",
        "-shared",
        "-Wl,-Bsymbolic",  # torch may have loaded the real cudart for everybody
        "-fno-strict-aliasing",
        "-ffp-contract=off",
        f"-I{EMULATION.parent}",
        f"-isystem{include}",
    ]
    target = folder / "libcases.so"
    sources = [folder / "cases.cc", folder / "launch.cc", "-Wl,--whole-archive", runtime, "-Wl,--no-whole-archive"]
    compiled = run("g++", *flags, *sources, "-o", target)
    assert compiled.code == 0, compiled.error[-4000:]
    native = ctypes.CDLL(str(target))
    native.deploydcn_emulation_malloc.restype = ctypes.c_void_p
    native.deploydcn_emulation_malloc.argtypes = [ctypes.c_size_t]
    native.deploydcn_emulation_free.argtypes = [ctypes.c_void_p]
    native.deploydcn_emulation_upload.argtypes = native.deploydcn_emulation_download.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_size_t,
    ]
    native.deploydcn_emulation_error.restype = ctypes.c_char_p
    return Library(native, {name: index for index, name in enumerate(names)})


def launcher(names: Sequence[str]) -> str:
    stubs = "\n".join(f'extern "C" void {name}(void*, const void*, const void*, const void*) {{}}' for name in names)
    table = ", ".join(names)
    return f"""#include "emulation/cuda_headers.h"
#include "emulation/launch.h"
{stubs}
using Kernel = void (*)(void*, const void*, const void*, const void*);
static const Kernel kernels[] = {{{table}}};
extern "C" int run_kernel(int index, unsigned blocks, unsigned threads, void* const* arguments) {{
  return deploydcn::emulation::launch("ptx test", kernels[index], dim3(blocks), dim3(threads), 1024, nullptr, arguments[0], arguments[1],
                                      arguments[2], arguments[3]);
}}
"""


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: " ".join(CASES[index].text.split())[:60] + f"-{CASES[index].kinds}")
def test_instruction(index: int) -> None:
    case = CASES[index]
    result, *sources = case.kinds.split()
    columns = [samples(kind, THREADS, seed) for seed, kind in enumerate(sources)]
    got = library().run(f"case_{index}", [np.array(column, np.uint64) for column in columns])
    for bits, *operands in zip(got.tolist(), *columns, strict=True):
        values = [decode(kind, operand) for kind, operand in zip(sources, operands, strict=True)]
        wanted = case.expected(*values)
        shown = f"{case.text} of {values}: got {decode(result, bits)}, wanted {wanted}"
        if case.approximate and np.isfinite(wanted) and abs(wanted) > 2.0**-126:
            assert abs(decode(result, bits) - wanted) <= case.approximate * abs(wanted), shown
        else:
            assert same(result, bits, wanted), shown
            if case.register:  # the upper bits are the sign's, or zero
                assert same(f"{result[0]}{case.register[1:]}", bits, wanted), shown


def halves(result: np.ndarray) -> tuple[list[int], list[int]]:
    pairs = result.view(np.uint32).reshape(-1, 2)
    return pairs[:, 0].tolist(), pairs[:, 1].tolist()


def shuffled(mode: str, lane: int, argument: int, clamp: int) -> tuple[int, bool]:
    """Source lane and predicate: the pseudo code of the PTX ISA for shfl.sync."""
    argument, segment, limit = argument & 31, clamp >> 8 & 31, clamp & 31
    most = (lane & segment) | (limit & ~segment)
    least = lane & segment
    source = {"up": lane - argument, "down": lane + argument, "bfly": lane ^ argument, "idx": least | (argument & ~segment)}[mode]
    in_range = source >= most if mode == "up" else source <= most
    return (source if in_range else lane), in_range


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width_of_segment", [32, 16, 8, 1])
def test_shuffle(mode: str, width_of_segment: int) -> None:
    segment = (32 - width_of_segment) << 8
    clamp = segment | (0 if mode == "up" else 31)
    random = np.random.default_rng(0)
    values, arguments = random.integers(0, 2**32, 64), random.integers(0, 40, 64)
    triples = np.stack([values, arguments, np.full(64, clamp)], axis=1).astype(np.uint64)
    got, predicates = halves(library().run(f"shfl_{mode}", [triples], threads=64))
    for thread in range(64):
        source, in_range = shuffled(mode, thread % 32, int(arguments[thread]), clamp)
        assert (got[thread], predicates[thread]) == (values[thread // 32 * 32 + source], in_range), thread


def test_special_registers() -> None:
    got = library().run("special_registers", [], threads=96, blocks=2).tolist()
    assert got == [2000000 + 10000 * block + 100 * (thread // 32) + thread % 32 for block in range(2) for thread in range(96)]


def test_block_and_warp_reductions() -> None:
    assert halves(library().run("block_reduction", [], threads=64)) == ([40] * 64, [1] * 64)
    ballots, flags = halves(library().run("votes", [], threads=64))
    assert ballots == [8] * 32 + [0] * 32
    assert flags == [16 + 1] * 32 + [16 + 2] * 32  # an active mask of one lane; any in the first warp, all (of not) in the second


def test_atomics() -> None:
    words = library().run("atomics", [], threads=64, blocks=2, output=8).view(np.uint32)
    assert words[:2].tolist() == [2 * sum(range(64)), 63]
    assert words[2:3].view(np.float32)[0] == 64
    assert words[3:4].view(np.float16).tolist() == [64, 128]
    assert words[4:7].tolist() == [128 % 10, 63, 7]
    assert words[8:11].tolist() == [2**32 - 128, 2**32 - 1, 5]


def test_memory_spaces_and_branches() -> None:
    run_kernel = library().run
    assert run_kernel("local_memory", [], threads=8).tolist() == [8 if thread else 0 for thread in range(8)]
    assert run_kernel("constant_table", [], threads=8).tolist() == [2, 3, 5, 65521] * 2
    assert run_kernel("branch_table", [], threads=8).tolist() == [100, 200, 300, 200] * 2
    assert halves(run_kernel("shared_memory", [], threads=64)) == (list(range(64)), [63] * 64)
    assert run_kernel("scopes", [], threads=2).tolist() == [1, 1]
    assert run_kernel("narrow_memory", [], threads=1).view(np.int32)[1] == -2 + 254 - 3


@pytest.mark.parametrize(
    ("name", "threads", "text"),
    [
        ("misaligned_vector", 1, r"thread \(0,0,0\): PTX line \d+: 8 bytes at 0x\w+, which is not a multiple"),
        ("shared_out_of_bounds", 1, "4 bytes at shared address 1024, but the block has 1024"),
        ("null_pointer", 1, r"kernel ptx test block \(0,0,0\) thread \(0,0,0\): illegal memory access at"),
        ("division_by_zero", 1, "division by zero at PTX line"),
        ("launch_bounds", 65, "more threads than its __launch_bounds__"),
        ("bad_branch_index", 2, r"thread \(1,0,0\): brx.idx at PTX line \d+: index out of range"),
    ],
)
def test_failures_say_what_and_where(name: str, threads: int, text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        library().run(name, [np.zeros(8, np.uint64)], threads=threads)
