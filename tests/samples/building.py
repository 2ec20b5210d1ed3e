"""Builds the C++ samples as a user would: from a copy of their folder, against runtimes laid out like their releases."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STANDINS = Path(__file__).with_name("standins")


def build(folder: Path, *definitions: str, sanitize: bool = False) -> Path:
    """Configure and build a copy of samples/cpp in `folder`, warnings being errors; returns where the programs are."""
    shutil.copytree(ROOT / "samples" / "cpp", folder / "cpp")
    flags = "-Werror" + (" -fsanitize=address,undefined -fno-sanitize-recover=all" if sanitize else "")
    options = [f"-D{entry}" for entry in (f"CMAKE_CXX_FLAGS={flags}", *definitions)]
    configure = ["cmake", "-S", str(folder / "cpp"), "-B", str(folder / "build"), *options]
    for command in (configure, ["cmake", "--build", str(folder / "build")]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build"


def release(folder: Path, include: Path, library: Path, name: str, soname: str) -> Path:
    """A folder like an unpacked release: include/, and lib/ with the library under both of its names."""
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(include)
    for link in {name, soname}:
        (folder / "lib" / link).symlink_to(library)
    return folder


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A run that must not crash, hang or be reported by a sanitizer, whatever it is given."""
    done = subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1, 2), f"{done.returncode}: {done.stderr}"
    assert "Sanitizer" not in done.stderr, done.stderr
    assert "runtime error" not in done.stderr, done.stderr
    return done
