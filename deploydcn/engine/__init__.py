"""ONNX -> TensorRT engines: `build_engine` checks and completes a file, then builds it in a process of its own."""

from deploydcn.engine.build import build_engine
from deploydcn.engine.report import BuildProgress, EngineReport, PluginLayer, TensorLayout

__all__ = ["BuildProgress", "EngineReport", "PluginLayer", "TensorLayout", "build_engine"]
