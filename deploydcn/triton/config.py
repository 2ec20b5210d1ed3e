"""The text of a config.pbtxt.

Fields: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto. `default_queue_policy` is never written: it
holds the batcher up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.text_encoding import CEscape

from deploydcn.runners import TensorInfo

TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "string": "TYPE_STRING",
}
"""Triton's names of element types; those of other tensors (float8, sequences, maps) do not exist."""


@dataclass(frozen=True)
class Config:
    """What a config.pbtxt says. batch: max_batch_size. delay: microseconds. labels: the outputs whose classes have names. warmup: run once
    when loaded."""

    name: str
    backend: str
    batch: int
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    instances: int
    gpu: bool
    dynamic_batching: bool
    delay: int
    libraries: Sequence[Path]
    labels: Sequence[str] = ()
    warmup: bool = False

    def text(self) -> str:
        """The file."""
        kind = "KIND_GPU" if self.gpu else "KIND_CPU"
        lines = [f"name: {_quoted(self.name)}", f"backend: {_quoted(self.backend)}", f"max_batch_size: {self.batch}"]
        lines += _block("input", [self._tensor(info) for info in self.inputs])
        lines += _block("output", [self._tensor(info) for info in self.outputs])
        lines += _block("instance_group", [[f"count: {self.instances}", f"kind: {kind}"]])
        if self.dynamic_batching:
            lines.append(f"dynamic_batching {{ {f'max_queue_delay_microseconds: {self.delay} ' if self.delay else ''}}}")
        if self.libraries:
            names = " ".join(f"op_library_filename: {_quoted(str(library))}" for library in self.libraries)
            lines.append(f"model_operations {{ {names} }}")
        if self.warmup:
            feeds = [_feed(info.name, TYPES[info.dtype], self.dims(info)) for info in self.inputs]
            lines += _block("model_warmup", [['name: "zeros"', "batch_size: 1", *feeds]])
        return "\n".join(lines) + "\n"

    def dims(self, info: TensorInfo) -> list[int]:
        """Sizes as configurations have them, -1 for dynamic ones: without the batch where there is one."""
        return [size if isinstance(size, int) else -1 for size in (info.shape or ())[1 if self.batch else 0 :]]

    def _tensor(self, info: TensorInfo) -> list[str]:
        dims = self.dims(info)
        fields = [f"name: {_quoted(info.name)}", f"data_type: {TYPES[info.dtype]}", f"dims: [ {', '.join(map(str, dims or [1]))} ]"]
        if not dims and self.batch:  # one value per item: a request has shape (batch, 1), the model's tensor (batch,)
            fields.append("reshape { shape: [ ] }")
        if info.name in self.labels:
            fields.append(f"label_filename: {_quoted(LABELS)}")
        return fields


LABELS = "labels.txt"


def _block(name: str, elements: Sequence[Sequence[str]]) -> list[str]:
    """A repeated field; an element per list of fields."""
    blocks = ["\n".join(["  {", *(f"    {field}" for field in fields), "  }"]) for fields in elements]
    return [f"{name} [", ",\n".join(blocks), "]"]


def _feed(name: str, data_type: str, dims: Sequence[int]) -> str:
    sizes = ", ".join(map(str, dims or [1]))
    return f"inputs {{ key: {_quoted(name)} value {{ data_type: {data_type} dims: [ {sizes} ] zero_data: true }} }}"


def _quoted(text: str) -> str:
    return f'"{CEscape(text, True)}"'
