"""Prove plugins and kernels without a GPU: runs the real TensorRT plugin objects on emulated device memory."""

from deploydcn.testing.plugins import PluginFailure, PluginRun, run_plugin

__all__ = ["PluginFailure", "PluginRun", "run_plugin"]
