"""A folder that shows one layer's mismatch without the model and without this package's tests."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from deploydcn.errors import InvalidArgument
from deploydcn.files import folder_on_success
from deploydcn.onnx_schema import DOMAIN
from deploydcn.parity.location import Evidence, Location
from deploydcn.parity.taps import OnnxPart, TorchPart

MARKER = "finding.json"

PACKAGES = ("deploydcn", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "torch", "torchvision")

SCRIPT = '''"""Exit code 1 while the layer's result differs from the reference by more than rounding explains, else 0."""

import json
import sys
from pathlib import Path

import numpy as np
{imports}
FOLDER = Path(__file__).resolve().parent
LIMIT = json.loads((FOLDER / "finding.json").read_text())["finding"]["layer"]["limit"]
FLOOR = 1e-2  # of the tensor's scale: the least that a channel's scale counts for


def compute(inputs):
{compute}

def worst_error(expected, got):
    """Largest error over the scale of its channel (axis 1 of three or more dimensions)."""
    if expected.shape != got.shape:
        return np.inf
    expected, got = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return np.inf
    expected, got = np.where(finite, expected, 0), np.where(finite, got, 0)
    axes = tuple(axis for axis in range(expected.ndim) if axis != 1) if expected.ndim >= 3 else None
    scale = np.maximum(np.ptp(expected, axis=axes, keepdims=True), np.abs(expected).max(axis=axes, keepdims=True))
    scale = np.maximum(scale, FLOOR * scale.max()) if scale.any() else max(np.abs(got).max(), np.finfo(np.float64).tiny)
    return float(np.max(np.abs(got - expected) / scale))


inputs = dict(np.load(FOLDER / "inputs.npz"))
expected = np.load(FOLDER / "reference.npz")["result"]
got = compute(inputs)
error = worst_error(expected, got)
print(f"reference: {{expected.dtype}}{{list(expected.shape)}} {{expected.min()}} to {{expected.max()}}")
print(f"here:      {{got.dtype}}{{list(got.shape)}} {{got.min()}} to {{got.max()}}")
print(f"largest error: {{error:.3g}} of a channel's scale; rounding explains {{LIMIT:.3g}}")
sys.exit(1 if error > LIMIT else 0)
'''

ONNX_COMPUTE = """    options = onnxruntime.SessionOptions()
{register}    session = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]
"""

TORCH_COMPUTE = """    call = torch.load(FOLDER / "call.pt", weights_only=False)  # a whole module: run it only if you trust its source
    with torch.no_grad():
        result = call["module"].eval()(*call["args"], **call["kwargs"])
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return tensors[{index}].numpy()
"""

README = """{explanation}

What is here
  {content}
  inputs.npz       what the layer was fed with: the reference's tensors
  reference.npz    the reference's result
  candidate.npz    the candidate's result, where it gave one
  finding.json     the layer, its attributes on both sides, errors, statistics of both tensors
  environment.json versions
  reproduce.py     {script}

The other errors along the network are not here: deploydcn verify --locate --json prints them.
"""


def write_repro(location: Location, folder: str | os.PathLike[str]) -> Path:
    """Write the finding of a search to a new folder: all of it, or nothing.

    Raises:
        InvalidArgument: nothing was found, or the folder cannot be written or is not one of ours.
    """
    finding = location.finding
    if finding is None:
        raise InvalidArgument(f"there is no layer to write: {location.explanation}")
    evidence = finding.evidence
    with folder_on_success(folder, MARKER) as path:
        content, script = _write_part(path, evidence, finding.layer.name)
        _save(path / "inputs.npz", **_arguments(evidence))
        _save(path / "reference.npz", result=evidence.expected)
        if evidence.got is not None:
            _save(path / "candidate.npz", result=evidence.got)
        found = {**location.to_json(), "layers": []}
        (path / MARKER).write_text(json.dumps(found, indent=2) + "\n")
        (path / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
        text = README.format(explanation=location.explanation, content=content, script=script)
        (path / "README.txt").write_text(text)
    return Path(folder)


def environment() -> dict[str, str]:
    """Versions of what computes."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {"python": platform.python_version(), "system": platform.platform(), "machine": platform.machine(), **versions}


def _write_part(path: Path, evidence: Evidence, name: str) -> tuple[str, str]:
    """The layer itself and the script; what to say of them."""
    part = evidence.part
    if isinstance(part, OnnxPart):
        onnx.save(part.model, str(path / "model.onnx"))
        own = part.replace_standard or any(node.domain == DOMAIN for node in part.model.graph.node)
        register = f"    deploydcn.register_ort_ops(options, replace_standard={part.replace_standard})\n" if own else ""
        imports = ("import deploydcn\n" if own else "") + "import onnxruntime\n"
        (path / "reproduce.py").write_text(SCRIPT.format(imports=imports, compute=ONNX_COMPUTE.format(register=register)))
        needs = "numpy, onnxruntime and deploydcn's operators" if own else "numpy and onnxruntime"
        return "model.onnx       the layer's nodes and weights", f"shows the mismatch; needs {needs}"
    if part.complete and _pickle(part, path / "call.pt"):
        index = int(name.rpartition("[")[2].rstrip("]")) if name.endswith("]") else 0
        (path / "reproduce.py").write_text(SCRIPT.format(imports="import torch\n", compute=TORCH_COMPUTE.format(index=index)))
        return (
            "call.pt          the torch module and the arguments of its call",
            "shows the mismatch; needs numpy and the module's own package",
        )
    weights = {key: value.detach().cpu().numpy() for key, value in part.module.state_dict().items()}
    _save(path / "weights.npz", **weights)
    compute = '    return np.load(FOLDER / "candidate.npz")["result"]\n'
    if evidence.got is None:
        compute = '    sys.exit("the candidate gave no result: README.txt says why")\n'
    (path / "reproduce.py").write_text(SCRIPT.format(imports="", compute=compute))
    return (
        "weights.npz      the weights of the layer's last module, which cannot be saved to run by itself",
        "compares the two results that are stored here: the layer itself cannot be run without its model",
    )


def _pickle(part: TorchPart, path: Path) -> bool:
    import torch

    try:
        torch.save({"module": part.module, "args": part.args, "kwargs": dict(part.kwargs)}, path)
    except Exception:  # whatever the classes inside raise when they are pickled
        path.unlink(missing_ok=True)
        return False
    return True


def _arguments(evidence: Evidence) -> dict[str, np.ndarray]:
    return dict(evidence.part.inputs if isinstance(evidence.part, OnnxPart) else evidence.inputs)


def _save(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
