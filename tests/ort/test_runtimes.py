"""The library on the oldest, the middle and the newest supported ONNX Runtime."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.cpp.driver import ROOT, build_target
from tests.ort.runtimes import BEFORE_SHAPE_FIX, FIRST_FIXED, OLDEST, runtime_environment

pytestmark = [pytest.mark.backend("ort"), pytest.mark.slow]


@pytest.mark.parametrize("version", [OLDEST, BEFORE_SHAPE_FIX, FIRST_FIXED])
def test_conformance_on_older_runtimes(version: str) -> None:
    environment = runtime_environment(version)
    found = subprocess.run(
        [sys.executable, "-c", "import onnxruntime; print(onnxruntime.__version__)"], env=environment, capture_output=True
    )
    assert found.stdout.decode().strip() == version
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance", "tests/ort/test_replace_standard.py"]
    done = subprocess.run(
        [*command, "-k", "ort and not torch and not without_us", "--require=ort"], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed.group(1)) > 900


PROBE = """
import sys, numpy as np, onnx, onnxruntime as ort
from onnx import TensorProto as T, helper as h
node = h.make_node("SlotProbe", ["x", "w"], ["y"], name="the_node", domain="probe", i=7, f=2.5, s="text", v=[3, 1, 4])
weight = onnx.numpy_helper.from_array(np.float32([1, 2]), "w")
graph = h.make_graph([node], "g", [h.make_tensor_value_info("x", T.FLOAT, ["n", 3])],
                     [h.make_tensor_value_info("y", T.INT64, None)], [weight])
model = h.make_model(graph, opset_imports=[h.make_opsetid("", 20), h.make_opsetid("probe", 1)], ir_version=10)
options = ort.SessionOptions()
options.add_session_config_entry("probe.key", "probe.value")
options.register_custom_ops_library(sys.argv[1])
session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
print(session.get_outputs()[0].shape)
print(session.run(None, {"x": np.full((2, 3), 42, np.float32)})[0].tolist())
"""


@pytest.mark.parametrize("version", [OLDEST, "newest"])
def test_every_bound_slot_has_its_effect(version: str) -> None:
    library = build_target("slot_probe") / "libslot_probe.so"
    environment = runtime_environment(version) if version != "newest" else None
    done = subprocess.run([sys.executable, "-c", PROBE, str(library)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    shape, flags = done.stdout.strip().splitlines()
    header = (ROOT / "plugins" / "ort" / "api.h").read_text()
    slots = re.findall(r"SLOT\(\d+, (\w+)", header)
    results = dict(zip(slots, eval(flags), strict=True))
    assert len(slots) > 35
    assert shape == "['slots']"
    assert [name for name, worked in results.items() if not worked] == []


def test_library_exports_its_entry_points_only_and_needs_an_old_glibc() -> None:
    from deploydcn.libraries import ort_library_path

    library = ort_library_path()
    exported = subprocess.run(["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in exported.splitlines()] == ["RegisterCustomOps", "deploydcn_cpu_isa"]
    needed = subprocess.run(["objdump", "-T", str(library)], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", needed)}
    assert max(versions) <= (2, 34)
    assert "GLIBCXX" not in needed  # libstdc++ is inside
