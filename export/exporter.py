"""The export pipeline: trace, translate, rewrite for the target, check, write."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from deploydcn.errors import ExportError, InternalError, InvalidArgument
from deploydcn.export import graph
from deploydcn.export.check import check_file
from deploydcn.export.dynamic import DynamicShapes, grown, parse_dynamic_shapes
from deploydcn.export.finish import IR_VERSION, check_model, deformable_operators, finish, tensor_info
from deploydcn.export.frontends.substitution import Substitution
from deploydcn.export.report import ExportReport
from deploydcn.export.symbolic import symbolic_sizes
from deploydcn.export.targets import TARGETS
from deploydcn.export.translation import explain_capture_failure, explain_translation_failure, lower_to_onnx_ops
from deploydcn.files import replace_on_success
from deploydcn.onnx_schema import register_schemas
from deploydcn.runners.deployed import deployed
from deploydcn.runners.signature import in_signature_order, name_outputs, positional_names
from deploydcn.runners.torch_runner import TorchRunner


class Export:
    """One export; see `deploydcn.export_onnx` for the arguments."""

    def __init__(
        self,
        model: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        dynamic_shapes: Any,
        target: str,
        opset: int,
        output_names: Sequence[str] | None,
    ) -> None:
        self.target, self.opset, self.output_names = target, opset, output_names
        self.reference = TorchRunner(model, example_args=args, example_kwargs=kwargs)
        self.module = self.reference.model
        arguments = {**dict(zip(positional_names(self.module, len(args)), args, strict=True)), **in_signature_order(self.module, kwargs)}
        self.dynamic = parse_dynamic_shapes(dynamic_shapes, arguments, self.reference.signature.names)
        self.notes: list[str] = []

    def run(self, path: str | os.PathLike[str], *, check: bool) -> ExportReport:
        """Write the file; see `deploydcn.export_onnx`."""
        start = time.perf_counter()
        register_schemas()
        _refuse_scripts(self.module)
        if self.module.training:
            self.notes.append("exported in eval mode; the model itself stays in training mode")
        with deployed(self.module), replace_on_success(path) as temporary, contextlib.ExitStack() as stack:
            substitution = Substitution(self.module)
            outputs = self._call_reference(substitution, stack)
            self.notes += substitution.prove()
            model = self._translate(self._capture(substitution))
            self._name(model, outputs)
            self.notes += TARGETS[self.target].rewrite(model)
            graph.name_nodes_by_module(model)
            graph.strip_private_metadata(model)
            model.ir_version = IR_VERSION
            finish(model, self.opset)
            graph.save(model, temporary)
            check_model(temporary)
            checks = tuple(check_file(temporary, self.reference, self.dynamic.axes)) if check else ()
        return ExportReport(
            Path(path),
            self.target,
            self.opset,
            tuple(tensor_info(value) for value in model.graph.inputs),
            tuple(tensor_info(value) for value in model.graph.outputs),
            sum(1 for _ in model.graph.all_nodes()),
            dict(deformable_operators(model)),
            checks,
            time.perf_counter() - start,
            tuple(self.notes),
        )

    def _call_reference(self, substitution: Substitution, stack: contextlib.ExitStack) -> list[str]:
        """Names of the model's outputs, which must all be tensors or None. Where the model runs only with replacements for compiled
        kernels, these enter `stack`: that is then the reference."""
        try:
            with substitution.recording():
                result = self._call()
        except Exception as error:
            result = self._call_without_kernels(substitution, stack, error)
        names = list(name_outputs(result))
        for path, leaf in pytree.tree_flatten_with_path(result)[0]:
            if leaf is not None and not isinstance(leaf, torch.Tensor):
                where = pytree.keystr(path)
                raise ExportError(f"output {where} is a {type(leaf).__name__}; a file returns tensors only; leave it out or make it one")
        return names

    def _call_without_kernels(self, substitution: Substitution, stack: contextlib.ExitStack, error: Exception) -> Any:
        """Perhaps a compiled kernel is missing here: with replacements for kernels, then for modules too."""
        reason = f"{type(error).__name__}: {error}"
        for replace in (substitution.without_kernels, substitution.without_originals):
            with contextlib.ExitStack() as attempt:
                try:
                    self.module = self.reference.model = attempt.enter_context(replace())
                    result = self._call()
                except Exception:  # then the first error is the one to report
                    continue
                stack.enter_context(attempt.pop_all())
                self.notes.append(f"the model itself does not run on this machine ({reason}): checked against the model with replacements")
                return result
        raise ExportError(f"the model itself fails on the example: {reason}") from error

    def _call(self) -> Any:
        tensors = {name: tensor.clone() for name, tensor in self.reference.signature.tensors().items()}
        args, kwargs = self.reference.signature.call_arguments(tensors)
        with torch.no_grad():
            return self.module(*args, **kwargs)

    def _capture(self, substitution: Substitution) -> torch.export.ExportedProgram:
        tensors = self.reference.signature.tensors()
        example = grown(tensors, self.dynamic.axes)
        args, kwargs = self.reference.signature.call_arguments(example)
        try:
            with torch.no_grad(), substitution.installed() as module, symbolic_sizes(self.module), _quiet():
                shapes = _as_torch_wants(self.dynamic, self.module, module, len(args))
                program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise explain_capture_failure(error, self.module, substitution.unused()) from error
        return program

    def _translate(self, program: torch.export.ExportedProgram) -> ir.Model:
        with torch.no_grad(), _quiet():
            programs = [program]
            try:
                lowered = lower_to_onnx_ops(program)
                programs.append(lowered)
                _refuse_state(lowered)
                result = torch.onnx.export(lowered, dynamo=True, opset_version=self.opset, verbose=False)
            except ExportError:
                raise
            except Exception as error:
                raise explain_translation_failure(error, programs) from error
        if result is None:
            raise InternalError("torch.onnx.export returned no program")
        model: ir.Model = result.model
        graph.adopt_constants(model)
        return model

    def _name(self, model: ir.Model, outputs: list[str]) -> None:
        names = list(self.reference.signature.names)
        if len(model.graph.inputs) != len(names):
            raise ExportError(f"the traced graph takes {len(model.graph.inputs)} tensors; the model takes {len(names)}: {', '.join(names)}")
        if self.output_names is not None:
            if len(self.output_names) != len(model.graph.outputs):
                raise InvalidArgument(
                    f"output_names has {len(self.output_names)} names; the model returns {len(model.graph.outputs)} tensors"
                )
            outputs = list(self.output_names)
        if len(model.graph.outputs) != len(outputs):
            raise ExportError(f"the traced graph returns {len(model.graph.outputs)} tensors; the model returns {len(outputs)}")
        outputs = _distinct(outputs, taken=set(names))
        graph.name_inputs(model, names)
        graph.name_outputs(model, outputs)
        symbols: dict[str, str] = {}
        by_name = {value.name: value for value in model.graph.inputs}
        for axis in self.dynamic.axes:
            shape = by_name[axis.tensor].shape
            dimension = shape[axis.axis] if shape is not None else None
            if isinstance(dimension, ir.SymbolicDim) and dimension.value and dimension.value.isdigit():
                raise ExportError(
                    f"axis {axis} became {dimension.value} for good when the traced graph was translated: that may equal another "
                    "size of the model by chance; give an example of another size, or leave that axis static"
                )
            if isinstance(dimension, ir.SymbolicDim) and dimension.value and dimension.value.isidentifier() and axis.name:
                symbols[dimension.value] = axis.name
        graph.rename_dimensions(model, symbols)


def _refuse_scripts(model: torch.nn.Module) -> None:
    """torch.export reads Python, of which torch.jit leaves nothing."""
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            name = getattr(module, "original_name", type(module).__name__)
            raise ExportError(
                f"{path or 'the model'} ({name}) is a script of torch.jit, which torch.export cannot read; "
                "export the torch.nn.Module that it was made from, with its weights"
            )


def _refuse_state(program: torch.export.ExportedProgram) -> None:
    """A file keeps no state: buffers that forward changes would freeze at their present values."""
    changed = list(program.graph_signature.buffers_to_mutate.values())
    if changed:
        raise ExportError(
            f"forward changes {', '.join(changed)}; an ONNX file keeps no state between runs; "
            "make that conditional on self.training, or pass the state in and out"
        )


def _distinct(names: Sequence[str], *, taken: set[str]) -> list[str]:
    """Output names that repeat neither an input's nor each other's."""
    result: list[str] = []
    for name in names:
        unique, count = name, 1
        while unique in taken or unique in result or (unique != name and unique in names):
            unique = f"{name}_out" if count == 1 else f"{name}_out{count}"
            count += 1
        result.append(unique)
    return result


def _as_torch_wants(dynamic: DynamicShapes, original: torch.nn.Module, module: torch.nn.Module, positional: int) -> Any:
    """torch.export takes *args as one entry, a tuple under the parameter's name. A replacement of the model itself may have
    other names for its positional parameters."""
    if dynamic.for_torch is None:
        return None
    names = dict(zip(positional_names(original, positional), positional_names(module, positional), strict=True))
    shapes = {names.get(name, name): value for name, value in dynamic.for_torch.items()}
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            keys = [key for key in shapes if key.startswith(f"{parameter.name}_") and key[len(parameter.name) + 1 :].isdigit()]
            if not keys:
                continue
            rest = {key: value for key, value in shapes.items() if key not in keys}
            return {**rest, parameter.name: tuple(shapes[key] for key in keys)}
    return shapes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch prints progress and deprecation notes of its own; ours say what matters."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
