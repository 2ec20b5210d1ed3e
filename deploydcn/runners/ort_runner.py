"""ONNX Runtime, with deploydcn's operators registered."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from deploydcn._lazy import lazy_import
from deploydcn.errors import InvalidArgument, InvalidModel, RuntimeFailure
from deploydcn.libraries import register_ort_ops
from deploydcn.runners.base import Inputs, TensorInfo, arrays_for

_DTYPES = {"float": "float32", "double": "float64"}

LARGEST_MESSAGE = 1_800_000_000
"""Bytes of weights that a model in memory may have: a protobuf message holds at most 2 GiB."""


class OrtRunner:
    """An ONNX model in ONNX Runtime. Several threads may call `run` at once.

    Args:
        model: a path, an onnx.ModelProto, or a serialized model.
        threads: threads of the session's pool; ONNX Runtime's default when None.
        replace_standard: run the standard DeformConv with our kernel too (see `register_ort_ops`).
        bfloat16: faster, less precise products with AMX or AVX512-BF16 (see `register_ort_ops`).
        precise: slower, more precise products (see `register_ort_ops`).
        providers: execution providers in order of preference.

    Raises:
        InvalidModel: the file is missing or is not an ONNX model.
        RuntimeFailure: ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | onnx.ModelProto | bytes,
        *,
        threads: int | None = None,
        replace_standard: bool = False,
        bfloat16: bool = False,
        precise: bool = False,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        lazy_import("onnxruntime", extra="cpu")
        self._threads, self._bfloat16, self._precise = threads, bfloat16, precise
        self.replace_standard, self._providers = replace_standard, list(providers)
        source, label = _source(model)
        self.weights_folder = None if isinstance(source, bytes) else Path(source).resolve().parent
        self._open(source, label)

    def _open(self, source: str | bytes, label: str) -> None:
        ort = lazy_import("onnxruntime", extra="cpu")
        missing = [provider for provider in self._providers if provider not in ort.get_available_providers()]
        if missing:
            raise InvalidArgument(
                f"no execution provider {', '.join(missing)}; this onnxruntime has {', '.join(ort.get_available_providers())}"
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised, not printed as well
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        if isinstance(source, bytes) and self.weights_folder is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(self.weights_folder))
        register_ort_ops(options, replace_standard=self.replace_standard, bfloat16=self._bfloat16, precise=self._precise)
        try:
            self._session = ort.InferenceSession(source, options, providers=self._providers)
        except Exception as error:  # ONNX Runtime's exception classes share no base of their own
            raise _load_error(label, error) from error
        self._source = source
        self.name = f"ort {ort.__version__} ({label})"
        self.inputs = tuple(_info(node) for node in self._session.get_inputs())
        self.outputs = tuple(_info(node) for node in self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def onnx_model(self) -> onnx.ModelProto:
        """The graph that this runner runs; weights in files beside it stay there."""
        if isinstance(self._source, bytes):
            return onnx.load_from_string(self._source)
        return onnx.load(self._source, load_external_data=False)

    def reopen(self, model: onnx.ModelProto) -> OrtRunner:
        """A runner with the same options for an edited copy of `onnx_model`, or a part of it."""
        if self.weights_folder is not None and _external_bytes(model) < LARGEST_MESSAGE:
            # Older runtimes look for the weights of a model in memory in the working directory only.
            whole = onnx.ModelProto()
            whole.CopyFrom(model)
            onnx.load_external_data_for_model(whole, str(self.weights_folder))
            model = whole
        other = copy.copy(self)
        other._open(*_source(model))
        return other

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """See Runner.run."""
        feeds = arrays_for(self.inputs, inputs)
        names = [info.name for info in self.outputs]
        try:
            values = self._session.run(names, feeds)
        except Exception as error:
            raise RuntimeFailure(f"{self.name} failed: {error}") from error
        return dict(zip(names, values, strict=True))


def _source(model: str | os.PathLike[str] | onnx.ModelProto | bytes) -> tuple[str | bytes, str]:
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString(), model.graph.name or "model"
    if isinstance(model, bytes):
        return model, f"{len(model)} bytes"
    if not isinstance(model, str | os.PathLike):
        raise InvalidModel(
            f"got a {type(model).__name__}; wanted an ONNX file, a ModelProto or its bytes; PyTorch models need backend='torch'"
        )
    path = Path(model)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidModel(f"{path} {state}; wanted an ONNX file")
    return str(path), path.name


def _external_bytes(model: onnx.ModelProto) -> int:
    """Of the weights that lie in other files, as their types and sizes tell."""
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    return sum(math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize for tensor in tensors)


def _load_error(label: str, error: Exception) -> InvalidModel | RuntimeFailure:
    text = str(error)
    if "Protobuf parsing failed" in text or "INVALID_PROTOBUF" in text or "No graph was found" in text or "does not have a graph" in text:
        return InvalidModel(f"{label} is not an ONNX model, or is truncated: {text}")
    return RuntimeFailure(f"onnxruntime refuses {label}: {text}")


def _info(node: object) -> TensorInfo:
    # An unknown rank and a scalar both arrive as an empty list.
    shape = tuple(size if isinstance(size, int | str) else None for size in node.shape)  # type: ignore[attr-defined]
    dtype = node.type.removeprefix("tensor(").removesuffix(")")  # type: ignore[attr-defined]
    return TensorInfo(node.name, _DTYPES.get(dtype, dtype), shape or None)  # type: ignore[attr-defined]
