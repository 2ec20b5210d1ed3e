"""A whole model: as it is, with the runtime's own operators, and as if its deformable convolutions were plain ones."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from deploydcn.bench.contenders import NATIVE, NATIVE_SINCE, OURS, OURS_BFLOAT16, Contender, session, version
from deploydcn.errors import UserError
from deploydcn.libraries import BFLOAT16_ISAS, cpu_isa

PLAIN = "plain convolutions"


def contenders(path: Path, arrays: Mapping[str, np.ndarray], folder: Path) -> tuple[dict[str, Contender], list[str]]:
    """By label; and notes that say why one is missing. Files are written to `folder`."""
    import onnxruntime as ort

    from deploydcn.export import convert

    found, notes = {OURS: session(str(path), arrays)}, []
    if cpu_isa() in BFLOAT16_ISAS:
        found[OURS_BFLOAT16] = session(str(path), arrays, bfloat16=True)
    standard, plain = folder / "standard.onnx", folder / "plain.onnx"
    try:
        convert(path, standard, target="standard", check=False)
    except UserError as error:
        return found, [f"the model has no form in standard operators to compare with: {error}"]
    if version(ort) >= NATIVE_SINCE:
        found[NATIVE] = session(str(standard), arrays)
    else:
        notes.append(f"onnxruntime {ort.__version__} has no DeformConv of its own; {'.'.join(map(str, NATIVE_SINCE))} and newer have")
    onnx.save(with_plain_convolutions(onnx.load(standard)), plain)
    found[PLAIN] = session(str(plain), arrays)
    return found, notes


def with_plain_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with Conv in place of every standard DeformConv.

    Offsets and masks are still computed: they become outputs. What such a model takes is what the network costs without
    deforming.
    """
    graph, kept = model.graph, {}
    for node in graph.node:
        if node.op_type != "DeformConv" or node.domain:
            continue
        x, weight, offset, bias, mask = [*node.input, "", ""][:5]
        kept.update(dict.fromkeys(name for name in (offset, mask) if name))
        attributes = [attribute for attribute in node.attribute if attribute.name != "offset_group"]
        del node.input[:], node.attribute[:]
        node.op_type = "Conv"
        node.input.extend([x, weight, bias] if bias else [x, weight])
        node.attribute.extend(attributes)
    given = {value.name for value in (*graph.output, *graph.input)} | {tensor.name for tensor in graph.initializer}
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in kept if name not in given)
    return model


def operator_seconds(path: Path, arrays: Mapping[str, np.ndarray], *, threads: int, runs: int = 10) -> dict[str, float]:
    """Seconds per run and operator type, by ONNX Runtime's profiler, most first."""
    import onnxruntime as ort

    from deploydcn.libraries import register_ort_ops

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        register_ort_ops(options)
        running = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            running.run(None, dict(arrays))
        events = json.loads(Path(running.end_profiling()).read_text())
    seconds: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            seconds.setdefault(event["args"]["op_name"], []).append(event["dur"] * 1e-6)
    totals = {name: sum(values) / runs for name, values in seconds.items()}
    return dict(sorted(totals.items(), key=lambda item: -item[1]))
