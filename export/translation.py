"""From torch to ONNX: torch.ops.deploydcn calls become nodes of our domain; what cannot be translated is explained."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import deploydcn
from deploydcn.errors import ExportError
from deploydcn.export.frontends import frontends
from deploydcn.nn import torch_ops
from deploydcn.onnx_schema import DOMAIN, VERSION
from deploydcn.ops import OPS
from deploydcn.spec import OpSpec

# Folders, not names: a user's model may well lie under a checkout called deploydcn.
_LIBRARY_FOLDERS = (
    *torch.__path__,
    *deploydcn.__path__,
    Path(__file__).parent,
    Path(__file__).resolve().parent,  # deploydcn/export is a link in a checkout
)


def lower_to_onnx_ops(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Foreign operators -> ours, by the frontends, and torch's that have no translation -> others; ours -> symbolic ONNX nodes."""
    foreign = {operator: function for frontend in frontends() for operator, function in frontend.decompositions().items()}
    foreign |= {torch.ops.aten._is_all_true.default: torch.all, torch.ops.aten.clamp.default: _clamp}
    own = {getattr(torch.ops.deploydcn, op.spec.snake_name).default: _symbolic(op.spec) for op in OPS}
    # What was learnt of sizes would be asserted at every step: nothing for a file, and torch cannot always write it down.
    program._guards_code = []
    lowered: torch.export.ExportedProgram = program.run_decompositions({**foreign, **own})
    lowered._guards_code = []
    return lowered


def _clamp(x: torch.Tensor, lowest: Any = None, highest: Any = None) -> Any:
    """clamp(min=0.1, max=1): PyTorch's ONNX exporter has no form of it with a float and an int."""
    if isinstance(lowest, float) and isinstance(highest, int):
        return torch.clamp(x, lowest, float(highest))
    if isinstance(lowest, int) and isinstance(highest, float):
        return torch.clamp(x, float(lowest), highest)
    return NotImplemented


def _symbolic(spec: OpSpec) -> Callable[..., Any]:
    """A function of the torch operator's arguments that yields one ONNX node."""

    def node(*arguments: Any) -> Any:
        inputs, attributes = torch_ops.split_arguments(spec, arguments)
        tensors = [inputs.get(tensor.name) for tensor in spec.inputs]
        while tensors[-1] is None:
            tensors.pop()
        shapes = spec.output_shapes({name: value.shape for name, value in inputs.items()}, attributes)
        given = {name: list(value) if isinstance(value, tuple) else value for name, value in attributes.items() if value != ""}
        results = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{spec.name}",
            tensors,
            attrs={**_window(spec, inputs), **given},
            dtypes=[inputs[spec.inputs[0].name].dtype] * len(shapes),
            shapes=shapes,
            version=VERSION,
        )
        return tuple(results) if len(results) > 1 else results[0]

    return node


def _window(spec: OpSpec, inputs: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    """kernel_shape of a convolution, which torch reads from the weight."""
    for tensor in spec.inputs:
        if tensor.axes[-2:] == ("KH", "KW") and tensor.name in inputs:
            return {"kernel_shape": [int(size) for size in inputs[tensor.name].shape[2:]]}
    return {}


def explain_capture_failure(error: Exception, model: torch.nn.Module, unused: Sequence[str] = ()) -> ExportError:
    """torch.export failed: name the line of the model at fault. unused: registered frontends that met nothing."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    line = _user_line(error)
    advice = "rewrite that line without a Python branch, loop or conversion that depends on tensor values, or export the part around it"
    if "Constraints violated" in str(error) or "specialized it to be a constant" in str(error):
        detail = re.sub(r"\s+", " ", str(error))[:600]
        return ExportError(f"{type(model).__name__} cannot take the dynamic shapes asked for: {detail}; leave that axis static")
    where = f" at {line}" if line else ""
    hint = f"; nothing in the model has the registered name {' or '.join(unused)}" if unused else ""
    return ExportError(f"torch.export cannot trace {type(model).__name__}{where}: {type(error).__name__}: {reason}; {advice}{hint}")


def explain_translation_failure(error: Exception, programs: Sequence[torch.export.ExportedProgram]) -> ExportError:
    """torch.onnx failed: name the operator, the module that uses it and the line."""
    text = "".join(str(cause) for cause in _causes(error))
    match = re.search(r"OpOverload\(op='([\w:.]+)'", text) or re.search(r"No decompositions registered for.*?([\w]+\.[\w.]+)", text)
    if match is None:
        reason = next((line for cause in list(_causes(error))[::-1] for line in str(cause).splitlines() if line.strip()), "")
        return ExportError(f"PyTorch's ONNX exporter failed: {reason}; try a newer torch and onnxscript")
    operator = match.group(1).replace("::", ".")
    nodes = [node for program in programs for node in program.graph.nodes if node.op == "call_function"]
    uses = [node for node in nodes if str(node.target).startswith(operator)]
    places = sorted({describe_node(node) for node in uses})
    return ExportError(
        f"operator {operator} has no ONNX translation; used by {'; '.join(places) or 'the model'}; "
        "replace it in the model by operators that have one, or export the parts around it"
    )


def describe_node(node: torch.fx.Node) -> str:
    """'backbone.attention (MyAttention), model.py line 12: y = torch.cummax(x)'."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    module = f"{path or 'the model'} ({str(kind).rpartition('.')[2]})" if kind else "the model"
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]+\n\s*(.*)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if _is_users(frame[0])]
    if not own:
        return module
    file, number, source = own[-1]
    return f"{module}, {file.rpartition('/')[2]} line {number}: {source.strip()}"


def _is_users(file: str) -> bool:
    """Whether a source file is neither torch's, nor this package's, nor generated code ("<string>")."""
    return not file.startswith("<") and not any(file.startswith(f"{folder}/") for folder in _LIBRARY_FOLDERS)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _user_line(error: Exception) -> str:
    """The deepest frame outside torch: 'model.py line 12: if x.sum() > 0:'."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(frame.filename)]
    mentioned = re.findall(r'File "([^"]+)", line (\d+), in [^\n]+\n\s*(.*)', str(error))
    if own:
        frame = own[-1]
        return f"{frame.filename.rpartition('/')[2]} line {frame.lineno}: {frame.line}"
    outside = [item for item in mentioned if _is_users(item[0])]
    return f"{outside[-1][0].rpartition('/')[2]} line {outside[-1][1]}: {outside[-1][2].strip()}" if outside else ""
