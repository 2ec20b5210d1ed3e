"""What ptxas made of the kernels, read from the built library, against the checked-in table.

    python -m tests.gates.gates            # check; exit 1 on any difference for the worse
    python -m tests.gates.gates --write    # rewrite the rows of the architectures in the library

No GPU says these numbers: they are the compiler's. A kernel may not spill, use more registers or lose occupancy, tensor-core
products, 16-byte loads, asynchronous copies or matrix loads against its row in kernels.csv.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from deploydcn import plugin_library_path

TABLE = Path(__file__).with_name("kernels.csv")

# Prefixes of the SASS instructions that a regression would lose, as columns of the table.
COUNTED = {"hmma": ("HMMA",), "load16": ("LDG.E.128",), "async_copy": ("LDGSTS",), "matrix_load": ("LDSM",)}

# (threads, dynamic shared bytes) of a block, by kernel name: plugins/gpu/multiply.cuh, direct_convolution.cuh, deformable_attention.cuh.
BLOCKS = (
    (r"implicit_gemm<TensorCoreMultiply<\w+, 128>", 256, 2 * (64 + 128) * 72 * 2),
    (r"implicit_gemm<TensorCoreMultiply<\w+, 64>", 128, 2 * (64 + 64) * 72 * 2),
    (r"implicit_gemm<(Tf32|Fma)Multiply", 128, 2 * (64 + 64) * 36 * 4),
    (r"direct_", 128, 0),
    (r"pack_", 256, 0),
    (r"deformable_attention", 128, 0),
    (r"deform_(ps)?roi_pool::", 256, 0),
)

# Threads and shared KiB of a multiprocessor (CUDA C++ Programming Guide, technical specifications).
MULTIPROCESSORS = {
    75: (1024, 64),
    80: (2048, 164),
    86: (1536, 100),
    87: (1536, 164),
    89: (1536, 100),
    90: (2048, 228),
    100: (2048, 228),
    103: (2048, 228),
    110: (1536, 228),
    120: (1536, 100),
    121: (1536, 100),
}

# bfloat16 products do not run before compute capability 8.0: those kernels trap, and their figures mean nothing.
TRAPS = re.compile(r"TensorCoreMultiply<__nv_bfloat16|Tf32Multiply")


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture. registers: per thread. occupancy: resident threads, percent. The rest: SASS counts."""

    sm: int
    name: str
    registers: int
    spilled: int
    shared: int
    occupancy: int
    hmma: int
    load16: int
    async_copy: int
    matrix_load: int


def tool(name: str) -> str:
    """cuobjdump or nvdisasm: from PATH, the toolkit, or the PyPI package nvidia-cuda-<name>."""
    packages = Path(sysconfig.get_paths()["purelib"]).glob("nvidia/cu*/bin")
    path = os.pathsep.join([*map(str, packages), os.environ.get("PATH", ""), "/usr/local/cuda/bin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise SystemExit(f"{name} not found; pip install nvidia-cuda-{name}")
    return found


def dump(library: Path, *options: str) -> str:
    """The output of cuobjdump, with nvdisasm beside it on PATH."""
    path = os.pathsep.join([str(Path(tool("nvdisasm")).parent), os.environ.get("PATH", "")])
    command = [tool("cuobjdump"), *options, str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}).stdout


def architectures(library: Path) -> list[int]:
    return sorted({int(sm) for sm in re.findall(r"sm_(\d+)", dump(library, "-lelf"))})


def readable(mangled: list[str]) -> dict[str, str]:
    """Mangled name -> the kernel and its template arguments, without namespaces."""
    done = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True)
    texts = done.stdout.splitlines()
    short = [re.sub(r"^void |\(deploydcn::\w+::\w+Arguments\)$|deploydcn::gpu::|deploydcn::| (?=>)", "", text) for text in texts]
    layouts = {"(Layout)0": "linear", "(Layout)1": "channels_last"}
    return {name: re.sub(r"\(Layout\)[01]", lambda m: layouts[m.group()], text) for name, text in zip(mangled, short, strict=True)}


def occupancy(sm: int, registers: int, threads: int, shared: int) -> int:
    """Resident threads of a multiprocessor with 65536 registers, in percent of its limit."""
    most_threads, shared_kib = MULTIPROCESSORS[sm]
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // per_warp // (threads // 32)
    by_shared = shared_kib * 1024 // (shared + (1024 if sm >= 80 else 0)) if shared else by_registers
    return 100 * min(by_registers, by_shared, most_threads // threads) * threads // most_threads


def measure(library: Path, sm: int) -> list[Kernel]:
    """Every kernel of the library on one architecture, sorted by name."""
    usage = re.findall(
        r"Function (\w+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", dump(library, "-res-usage", "-arch", f"sm_{sm}")
    )
    counts: dict[str, Counter[str]] = {}
    current: Counter[str] = Counter()
    for line in dump(library, "-sass", "-arch", f"sm_{sm}").splitlines():
        if "Function : " in line:
            current = counts[line.rpartition(" ")[2]] = Counter()  # a kernel that several operators share is there several times
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)", line):
            current.update(column for column, starts in COUNTED.items() if instruction.group(1).startswith(starts))
    names = readable([name for name, *_ in usage])
    kernels = []
    for name, registers, stack, static, local in usage:
        threads, shared = next((t, s) for pattern, t, s in BLOCKS if re.match(pattern, names[name]))
        total = shared + int(static)
        resident = occupancy(sm, int(registers), threads, total)
        found = [counts[name][column] for column in COUNTED]
        kernels.append(Kernel(sm, names[name], int(registers), int(stack) + int(local), total, resident, *found))
    return sorted(set(kernels), key=lambda kernel: kernel.name)


def problems(kernel: Kernel, limit: Kernel | None) -> list[str]:
    """What got worse against the table, in words."""
    where = f"sm_{kernel.sm} {kernel.name}"
    if kernel.sm < 80 and TRAPS.search(kernel.name):
        return []
    if limit is None:
        return [f"{where} is not in {TABLE.name}; run python -m tests.gates.gates --write and look at the row"]
    found = [f"{where}: {kernel.spilled} bytes of stack; wanted at most {limit.spilled}"] if kernel.spilled > limit.spilled else []
    for column in ("registers", "shared"):
        got, wanted = getattr(kernel, column), getattr(limit, column)
        if got > wanted:
            found.append(f"{where}: {column} {got}; wanted at most {wanted}")
    for column in ("occupancy", *COUNTED):
        got, wanted = getattr(kernel, column), getattr(limit, column)
        if got < wanted:
            found.append(f"{where}: {column} {got}; wanted at least {wanted}")
    return found


def read_table() -> dict[tuple[int, str], Kernel]:
    """The checked-in rows by (sm, name)."""
    with TABLE.open(newline="") as file:
        rows = [Kernel(*(row[f.name] if f.name == "name" else int(row[f.name]) for f in fields(Kernel))) for row in csv.DictReader(file)]  # type: ignore[arg-type]
    return {(row.sm, row.name): row for row in rows}


def write_table(kernels: list[Kernel]) -> None:
    """Replace the rows of these kernels' architectures."""
    measured = {kernel.sm for kernel in kernels}
    kept = [row for row in (read_table() if TABLE.exists() else {}).values() if row.sm not in measured]
    rows = sorted([*kept, *kernels], key=lambda kernel: (kernel.sm, kernel.name))
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Kernel)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main(arguments: list[str]) -> int:
    """Check, or with --write record, every architecture in the built library. Returns the exit code."""
    library = Path(arguments[-1]) if arguments and not arguments[-1].startswith("-") else plugin_library_path()
    found = architectures(library)
    kernels = [kernel for sm in found for kernel in measure(library, sm)]
    if "--write" in arguments:
        write_table(kernels)
        print(f"wrote {len(kernels)} rows for {', '.join(f'sm_{sm}' for sm in found)} to {TABLE}")
        return 0
    table = read_table()
    worse = [text for kernel in kernels for text in problems(kernel, table.get((kernel.sm, kernel.name)))]
    for text in worse:
        print(text)
    print(f"{len(kernels)} kernels on {', '.join(f'sm_{sm}' for sm in found)}: {len(worse)} problems")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
