"""Rules of the house: dependencies point one way, and the base installation stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each room of the package may import, besides the leaf modules at the top.
ALLOWED = {
    "ops": {"ops"},
    "nn": {"ops", "nn"},
    "runners": {"ops", "runners"},
    "parity": {"runners", "parity", "vision"},
    "export": {"ops", "nn", "runners", "parity", "export"},
    "engine": {"ops", "runners", "export", "engine"},
    "vision": {"vision"},
    "quantization": {"ops", "export", "parity", "runners", "vision", "quantization"},
    "precision": {"export", "quantization", "runners", "precision"},
    "testing": {"ops", "runners", "parity", "report", "testing"},
    "visual": {"ops", "nn", "runners", "export", "vision", "visual"},
    "report": {"parity", "vision", "visual", "report"},
    "triton": {"runners", "parity", "triton"},
    "bench": {"ops", "export", "bench"},
    "serving": {"runners", "parity", "vision", "visual", "serving"},
}
ALLOWED["cli"] = {*ALLOWED, "cli"} - {"nn", "testing"}

LEAVES = {"tensorrt_runtimes", "errors", "_lazy", "files", "spec", "libraries", "onnx_schema", "doctor", "tables"}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "deploydcn" else [node.module]
        rooms |= {name.split(".")[1] for name in names if name.startswith("deploydcn.")}
    return rooms


@pytest.mark.parametrize("room", ALLOWED)
def test_rooms_import_only_what_lies_below(room: str) -> None:
    files = list((ROOT / "deploydcn" / room).rglob("*.py"))
    assert files
    for path in files:
        foreign = imported_rooms(path) - ALLOWED[room] - LEAVES
        assert not foreign, f"{path.relative_to(ROOT)} imports {foreign}"


PROCESSOR = {"cpuid.h", "immintrin.h", "sys/syscall.h", "unistd.h"}


def test_kernels_know_no_runtime() -> None:
    """core, gpu and ops include neither ONNX Runtime, TensorRT nor torch, and not the adapters above them; CUDA by one door."""
    below = {"core": ("core/",), "gpu": ("core/", "gpu/"), "ops": ("core/", "gpu/", "ops/")}
    files = [(room, path) for room in below for path in (ROOT / "plugins" / room).rglob("*") if path.is_file() and path.suffix != ".md"]
    assert len(files) > 30
    for room, path in files:
        for include in re.findall(r'#include [<"]([^>"]+)[>"]', path.read_text()):
            standard = "/" not in include and not include.endswith(".h")
            door = path.name == "gpu.cuh" and (include.startswith("cuda_") or include == "emulation/device.h")
            inside = include.startswith((*below[room], "sanitizer/"))
            emulated = path.name == "tensor_core.cuh" and include.startswith("emulation/")
            processor = path.name in ("tile_kernels.cc", "tile_matrices.inl") and include in PROCESSOR
            assert standard or inside or door or emulated or processor, f"{path.relative_to(ROOT)} includes {include}"


LIGHT = """
import sys
allowed = {"numpy", "onnx", "google", "ml_dtypes", "typing_extensions", "typer", "click", "rich", "markdown_it", "mdurl", "pygments",
           "shellingham", "annotated_doc", "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "deploydcn"}
refused = []
class Gate:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in allowed or top in sys.stdlib_module_names or top.startswith("_"):
            return None
        refused.append(top)
        raise ModuleNotFoundError(f"No module named {top!r}", name=top)
sys.meta_path.insert(0, Gate())
import deploydcn
heavy = {"torch", "onnxruntime", "torchvision", "onnx_ir", "tensorrt", "tensorrt_rtx_bindings"} & set(sys.modules)
assert not heavy, heavy
from deploydcn.cli import app
from typer.testing import CliRunner
commands = "export convert inspect quantize drift build verify run serve triton visualize doctor".split()
for command in (None, *commands):
    result = CliRunner().invoke(app, [*([command] if command else []), "--help"])
    assert result.exit_code == 0, (command, result.output, result.exception)
for call, extra in ((lambda: deploydcn.load("m.onnx"), "cpu"), (lambda: deploydcn.load("m.py:f", "torch"), "export"),
                    (lambda: deploydcn.export_onnx(None, None, "m.onnx"), "export"),
                    (lambda: deploydcn.build_engine("m.onnx", "m.engine"), "gpu"),
                    (lambda: deploydcn.build_engine("m.onnx", "m.engine", runtime="tensorrt-rtx"), "rtx"),
                    (lambda: deploydcn.convert_precision("m.onnx", "h.onnx"), "export"),
                    (lambda: deploydcn.convert("m.onnx", "h.onnx", target="ort"), "export"),
                    (lambda: deploydcn.quantize("m.onnx", "h.onnx", {}), "export"),
                    (lambda: deploydcn.drift("m.onnx", {}, dtype="int8"), "export"),
                    (lambda: deploydcn.inspect("m.onnx"), "export"),
                    (lambda: deploydcn.check_triton_repository("."), "triton"),
                    (lambda: deploydcn.visualize("m.onnx", "photo.jpg"), "report")):
    try:
        call()
    except deploydcn.MissingDependency as error:
        assert f"pip install 'deploydcn[{extra}]'" in str(error), error
    else:
        raise AssertionError("no MissingDependency")
print("light")
"""


def test_import_and_help_need_the_base_dependencies_only() -> None:
    """The same in a real bare environment: tests/test_packaging.py."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.stdout.strip() == "light", done.stderr


def test_files_stay_short() -> None:
    sources = [*(ROOT / "deploydcn").rglob("*.py"), *(ROOT / "export").rglob("*.py"), *(ROOT / "plugins").rglob("*.cc")]
    long = {path.name: count for path in sources if (count := len(path.read_text().splitlines())) > 420}
    assert not long


def test_nothing_tells_where_it_was_made() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(b"/" + b"work/|/" + b"root/|/" + b"home/")
    for name in files:
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path.suffix not in (".npz", ".onnx", ".png", ".jpg"):
            assert not pattern.search(path.read_bytes()), name
