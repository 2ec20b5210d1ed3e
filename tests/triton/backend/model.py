"""What tritonserver runs in place of its ONNX Runtime backend: the model in ONNX Runtime, with the libraries of its configuration.

Each request is run by itself.
"""

from __future__ import annotations

import json
import os
from typing import Any

import onnxruntime
import triton_python_backend_utils as pb_utils  # the server brings it


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        options = onnxruntime.SessionOptions()
        for library in config.get("model_operations", {}).get("op_library_filename", []):
            options.register_custom_ops_library(library)
        path = os.path.join(args["model_repository"], args["model_version"], config["default_model_filename"])
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._outputs = [output["name"] for output in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        feeds = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        values = [value.reshape(value.shape or 1) for value in self._session.run(self._outputs, feeds)]  # scalars travel as one value
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in zip(self._outputs, values, strict=True)])
