"""A configuration's inputs and outputs against those of the model, by the rules of Triton's backends.

The rules are those of onnxruntime_backend (2026): all inputs are listed; an input may fix a size that is dynamic in the model, an
output says what the model says; with max_batch_size the first axis of all is dynamic, and left out; the dims of a scalar are ones;
`reshape`, where given, is what the model gets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploydcn.runners import TensorInfo
from deploydcn.triton.config import TYPES
from deploydcn.triton.signature import Signature

if TYPE_CHECKING:
    from deploydcn.triton.check import ModelFolder


def sizes(message: Any) -> dict[str, list[int]]:
    """Per input the sizes that the configuration gives the model, -1 for open ones, the batch included."""
    batch = [-1] if message.max_batch_size > 0 else []
    return {item.name: batch + _model_dims(item) for item in message.input}


def check(model: ModelFolder, signature: Signature, file: Path) -> None:
    """Compare a configuration with a model's signature and with what it did when it was run."""
    message, before = model.config.message, len(model.problems)
    known = {"input": (*signature.inputs, *signature.optional), "output": signature.outputs}
    for kind, infos in known.items():
        items = getattr(message, kind)
        _names(model, kind, [item.name for item in items], infos, signature)
        of_model = {info.name: info for info in infos}
        for index, item in enumerate(items):
            if _shape_itself(model, kind, index, item) and item.name in of_model:
                _tensor(model, kind, index, item, of_model[item.name])
    for index, item in enumerate(message.output):
        if item.label_filename and not (model.path / item.label_filename).is_file():
            model.report_field(f"label file {item.label_filename!r} is not in {model.path}", "output", index, "label_filename")
    if len(model.problems) == before:
        _runs(model, signature, file)


def _names(model: ModelFolder, kind: str, names: Sequence[str], infos: Sequence[TensorInfo], signature: Signature) -> None:
    known = [info.name for info in infos]
    listed = ", ".join(map(repr, known)) or "none"
    for index, name in enumerate(names):
        if name not in known:
            model.report_field(f"the model has no {kind} {name!r}; it has {listed}", kind, index, "name")
    for name, count in Counter(names).items():
        if count > 1:
            model.report_field(f"{kind} {name!r} is given {count} times", kind, names.index(name))
    if kind == "input":
        missing = [info.name for info in signature.inputs if info.name not in names]
        if missing:
            model.report_field(f"input {', '.join(map(repr, missing))} of the model is missing; all must be given", "input", 0)
    elif not names:
        model.report_field(f"gives no output; the model has {listed}")


def _shape_itself(model: ModelFolder, kind: str, index: int, item: Any) -> bool:
    """Whether dims and reshape can be right for any model."""
    before = len(model.problems)
    if not item.dims:
        model.report_field(
            f"{kind} {item.name!r} has no dims; wanted one or more; [ 1 ] with reshape {{ shape: [ ] }} for one value per item", kind, index
        )
    for what, dims in (("dims", item.dims), ("reshape", item.reshape.shape)):
        if any(size < 1 and size != -1 for size in dims):
            model.report_field(f"{what} are {_text(dims)}; wanted sizes of 1 or more, or -1", kind, index, what)
    if item.HasField("reshape"):
        if not item.reshape.shape and model.config.message.max_batch_size < 1:
            model.report_field("an empty reshape needs max_batch_size; leave it out: a scalar has dims [ 1 ]", kind, index, "reshape")
        if _product(item.dims) != _product(item.reshape.shape) or _open(item.dims) != _open(item.reshape.shape):
            text = f"dims {_text(item.dims)} and reshape {_text(item.reshape.shape)} hold different numbers of values"
            model.report_field(text, kind, index, "reshape")
    return len(model.problems) == before


def _tensor(model: ModelFolder, kind: str, index: int, item: Any, info: TensorInfo) -> None:
    message = model.config.message
    given = item.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[item.data_type].name
    if info.dtype not in TYPES:
        model.report_field(f"{kind} {info.name!r} is {info.dtype} in the model, a type that Triton does not have", kind, index)
    elif given != TYPES[info.dtype]:
        model.report_field(f"{kind} {info.name!r} is {given}; the model has {TYPES[info.dtype]}", kind, index, "data_type")
    if info.shape is None:
        model.report_field(f"{kind} {info.name!r} has no known rank in the model; Triton takes it for a scalar", kind, index)
        return
    ragged = kind == "input" and item.allow_ragged_batch
    computed = any(item.name in batch.target_name for batch in (message.batch_input if kind == "input" else message.batch_output))
    if not ragged and not computed:
        _dims(model, kind, index, item, info)


def _dims(model: ModelFolder, kind: str, index: int, item: Any, info: TensorInfo) -> None:
    batch = model.config.message.max_batch_size
    shape = [size if isinstance(size, int) else -1 for size in info.shape or ()]
    dims = _model_dims(item)
    if batch > 0 and shape[:1] != [-1]:
        text = (
            f"max_batch_size is {batch}, and {kind} {info.name!r} is {_text(shape)} in the model: its first axis is not dynamic; "
            "wanted max_batch_size 0 with all dims, or a model exported with a dynamic batch"
        )
        model.report_field(text, "max_batch_size")
        return
    wanted = shape[1:] if batch > 0 else shape
    fits = len(dims) == len(wanted) and all(got == size or (size == -1 and kind == "input") for got, size in zip(dims, wanted, strict=True))
    if not fits and (shape or any(size != 1 for size in dims)):
        aside = " behind the batch" if batch > 0 else ""
        model.report_field(f"{kind} {info.name!r} has dims {_text(dims)}; the model has {_text(wanted)}{aside}", kind, index, "dims")


def _runs(model: ModelFolder, signature: Signature, file: Path) -> None:
    message = model.config.message
    if not signature.runs:
        return
    if reason := signature.runs[0].error:
        model.notes.append(f"{file}: opened, and not run on random numbers: {reason.strip().partition(chr(10))[0]}")
        return
    for run in signature.runs:
        if run.error:
            text = f"the model runs at a batch of 1 and fails at {run.batch}: {run.error.strip().partition(chr(10))[0]}"
            model.report_field(text, "max_batch_size")
            continue
        for index, item in enumerate(message.output):
            shape = list(run.shapes.get(item.name, ()))
            if message.max_batch_size > 0 and item.name in run.shapes and shape[:1] != [run.batch] and message.batch_output == []:
                model.report_field(f"output {item.name!r} is {_text(shape)} for a batch of {run.batch}", "output", index)


def _model_dims(item: Any) -> list[int]:
    return list(item.reshape.shape if item.HasField("reshape") else item.dims)


def _text(sizes: Sequence[int]) -> str:
    return f"[ {', '.join(map(str, sizes))} ]" if sizes else "[ ]"


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= 1 if size == -1 else size
    return product


def _open(sizes: Sequence[int]) -> int:
    return sum(size == -1 for size in sizes)
