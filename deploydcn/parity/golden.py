"""Golden files: what a reference computed once, kept beside a test, so that candidates are compared with it without the reference.

A golden is one compressed .npz file: the inputs and outputs of every case, and `metadata`, a JSON text with the format's version, the
names and types of all arrays, the tolerance and its reason, and the provenance (command, date, versions, hash of the model).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from deploydcn.errors import InternalError, InvalidArgument
from deploydcn.files import read_npz, replace_on_success
from deploydcn.parity.repro import environment
from deploydcn.parity.tolerance import Tolerance
from deploydcn.runners import Runner, TensorInfo
from deploydcn.runners.base import Inputs, as_array, named_inputs

FORMAT, VERSION = "deploydcn golden", 1


@dataclass(frozen=True)
class GoldenCase:
    """One set of inputs and what the reference made of it, by name."""

    label: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Golden:
    """What is recorded. provenance: "command", "date" (UTC), "versions" by package, "reference", and
    "model": a SHA-256, see `model_hash`."""

    cases: tuple[GoldenCase, ...]
    tolerance: Tolerance
    provenance: Mapping[str, Any]


class GoldenRunner:
    """A golden in the place of the reference: knows the recorded inputs, and answers with the recorded outputs."""

    def __init__(self, golden: Golden, name: str) -> None:
        self.golden = golden
        self.name = f"golden {name} ({golden.provenance['reference']})"
        first = golden.cases[0]
        self.inputs, self.outputs = (
            tuple(TensorInfo(key, array.dtype.name, array.shape) for key, array in arrays.items())
            for arrays in (first.inputs, first.outputs)
        )
        self.example = next((dict(case.inputs) for case in golden.cases if case.label == "example"), None)

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """The outputs recorded for these inputs."""
        arrays = named_inputs(self.inputs, inputs)
        for case in self.golden.cases:
            if all(same_bytes(array, as_array(arrays[key])) for key, array in case.inputs.items()):
                return dict(case.outputs)
        raise InternalError(f"{self.name} was asked for inputs that are not recorded")


def same_bytes(first: np.ndarray, second: np.ndarray) -> bool:
    """Equal in type, shape and every bit: NaN equals itself."""
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def write_golden(path: Path, golden: Golden) -> None:
    """Write all of it, or nothing; several processes may write the same file at once.

    Raises:
        InvalidArgument: the folder cannot be made or written.
    """
    arrays: dict[str, np.ndarray] = {}
    cases = [
        {
            "label": case.label,
            "inputs": _store(f"input_{index}", case.inputs, arrays),
            "outputs": _store(f"output_{index}", case.outputs, arrays),
        }
        for index, case in enumerate(golden.cases)
    ]
    tolerance = {"relative": golden.tolerance.relative, "reason": golden.tolerance.reason}
    metadata = {"format": FORMAT, "version": VERSION, "tolerance": tolerance, "provenance": golden.provenance, "cases": cases}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(f"cannot write {path}: {error.strerror}; goldens need the folder {path.parent}") from error
    with replace_on_success(path) as scratch, scratch.open("wb") as file:
        np.savez_compressed(file, metadata=np.array(json.dumps(metadata)), **arrays)  # type: ignore[arg-type]


def read_golden(path: Path) -> Golden:
    """What `write_golden` wrote.

    Raises:
        InvalidArgument: the file is no golden, is damaged, or has another version of the format.
    """
    arrays = read_npz(path)
    try:
        metadata = json.loads(str(arrays["metadata"]))
        form, version = metadata["format"], metadata["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"{path} is no golden: it has no readable metadata; wanted a file that --parity-record wrote") from error
    if (form, version) != (FORMAT, VERSION):
        raise InvalidArgument(f"{path} is {form!r} version {version}; wanted {FORMAT!r} version {VERSION}; record it again")
    try:
        cases = tuple(
            GoldenCase(case["label"], _restore(case["inputs"], arrays), _restore(case["outputs"], arrays)) for case in metadata["cases"]
        )
        golden = Golden(cases, Tolerance(**metadata["tolerance"]), metadata["provenance"])
        complete = bool(cases) and {"command", "date", "versions", "reference", "model"} <= set(golden.provenance)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(f"{path} is a damaged golden ({type(error).__name__}: {error}); record it again") from error
    if not complete:
        raise InvalidArgument(f"{path} is a damaged golden: no cases, or a part of its provenance is missing; record it again")
    return golden


def record_golden(reference: Any, runner: Runner, sets: Iterable[tuple[str, Mapping[str, np.ndarray]]], command: str) -> Golden:
    """Run the reference on labelled inputs. The tolerance is left for who compares.

    reference: as it was given, for its hash. runner: what it was loaded as. command: what records it.
    """
    cases = tuple(GoldenCase(label, inputs, runner.run(inputs)) for label, inputs in sets)
    provenance = {
        "command": command,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {key: value for key, value in environment().items() if key != "system"},
        "reference": runner.name,
        "model": model_hash(reference, runner),
    }
    return Golden(cases, Tolerance(0.0, "not compared yet"), provenance)


def model_hash(model: Any, runner: Runner) -> str:
    """SHA-256 of a model file, of an ONNX model in memory, or of a module's parameters and buffers with names; "" of other runners."""
    digest = hashlib.sha256()
    if isinstance(model, str | Path) and Path(model).is_file():
        digest.update(Path(model).read_bytes())
    elif hasattr(runner, "onnx_model"):
        digest.update(runner.onnx_model().SerializeToString(deterministic=True))
    elif hasattr(runner, "model") and hasattr(runner.model, "state_dict"):
        for name, tensor in runner.model.state_dict().items():
            digest.update(name.encode())
            digest.update(as_array(tensor).tobytes())
    else:
        return ""
    return digest.hexdigest()


def _store(prefix: str, named: Mapping[str, np.ndarray], arrays: dict[str, np.ndarray]) -> list[dict[str, str]]:
    """Add the arrays under keys of ours (a tensor's name is no file name); what `_restore` needs to find them."""
    records = []
    for index, (name, array) in enumerate(named.items()):
        key = f"{prefix}_{index}"
        # NumPy's file format knows no bfloat16: its bits are stored.
        arrays[key] = array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array
        records.append({"name": name, "key": key, "dtype": array.dtype.name})
    return records


def _restore(records: list[dict[str, str]], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    restored = {}
    for record in records:
        stored, dtype = arrays[record["key"]], np.dtype(record["dtype"])
        if stored.dtype != dtype and stored.dtype != np.dtype(f"u{dtype.itemsize}"):
            raise ValueError(f"{record['name']} is stored as {stored.dtype}, declared as {dtype}")
        restored[record["name"]] = stored.view(dtype)
    return restored
