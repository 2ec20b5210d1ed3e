"""One plugin file under the genuine TensorRT 10, TensorRT 11 and TensorRT-RTX: it loads, creates, and refuses with its reason."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from deploydcn import plugin_library_path
from deploydcn.ops import GPU_OPS
from tests.tensorrt.runtimes import RUNTIMES, runtime_environment

pytestmark = [pytest.mark.backend("emulation"), pytest.mark.backend("rtx"), pytest.mark.slow]

PROGRAM = """
import importlib, json, sys
import numpy as np
trt = importlib.import_module(sys.argv[1])

class Log(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []
    def log(self, severity, message):
        self.messages.append(message)

log = Log()
try:
    runtime = trt.Runtime(log)  # fails without a GPU, but makes the log known
except Exception:
    pass
registry = trt.get_plugin_registry()
facts = {"version": trt.__version__, "loaded": registry.load_library(sys.argv[2]) is not None}
ours = [c for c in registry.all_creators if c.plugin_namespace == "deploydcn" or c.name == "DeformConv"]
facts["creators"] = sorted([c.name, c.plugin_version, c.plugin_namespace] for c in ours)

def create(name, phase, **fields):
    creator = registry.get_creator(name, "1", "" if name == "DeformConv" else "deploydcn")
    given = [trt.PluginField(key, np.array(value, np.int32), trt.PluginFieldType.INT32) for key, value in fields.items()]
    return creator.create_plugin("the_node", trt.PluginFieldCollection(given), phase)

good = {"strides": [1, 1], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3], "group": [1]}
for name in ("DeformConv2d", "DeformConv", "GroupedConv2d"):
    plugin = create(name, trt.TensorRTPhase.BUILD, **good)
    sides = [plugin.get_capability_interface(getattr(trt.PluginCapabilityType, side)) for side in ("CORE", "BUILD", "RUNTIME")]
    facts[name] = [plugin is not None, all(side is not None for side in sides), sides[0].plugin_name]
facts["zero_stride"] = create("DeformConv2d", trt.TensorRTPhase.BUILD, **{**good, "strides": [0, 1]}) is None
facts["other_format"] = create("DeformConv2d", trt.TensorRTPhase.RUNTIME, **good, deploydcn_format=[9]) is None
facts["logged"] = [m for m in log.messages if m.startswith("deploydcn:")]
print(json.dumps(facts))
"""


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_same_file_serves_every_runtime(name: str) -> None:
    command = [sys.executable, "-c", PROGRAM, RUNTIMES[name].module, str(plugin_library_path())]
    done = subprocess.run(command, env=runtime_environment(name), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    assert name.rpartition("-")[2] in facts["version"]
    assert facts["loaded"]
    assert facts["creators"] == sorted([["DeformConv", "1", ""], *([op.spec.name, "1", "deploydcn"] for op in GPU_OPS)])
    for op in ("DeformConv2d", "DeformConv", "GroupedConv2d"):
        assert facts[op] == [True, True, op]
    assert facts["zero_stride"]
    assert facts["other_format"]
    # TensorRT-RTX knows its log without a GPU; the lean runtimes do not, and the plugin falls back to standard error.
    said = "\n".join(facts["logged"]) + done.stderr
    assert "deploydcn: node 'the_node': DeformConv2d attribute strides is [0, 1]; wanted every element at least 1" in said
    assert "in format 9; this plugin library reads format 1; rebuild the engine" in said
    if "rtx" in name:
        assert len(facts["logged"]) == 2


def test_the_library_exports_and_needs_what_it_promises() -> None:
    path = str(plugin_library_path())
    symbols = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    assert sorted(line.split()[-1] for line in symbols.splitlines()) == ["getCreators", "setLoggerFinder"]
    needed = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    assert "nvinfer" not in needed
    assert "cudart" not in needed
