"""Float32 ONNX files -> files with 8-bit weights and activations, by ranges measured on calibration data."""

from deploydcn.quantization.api import quantize
from deploydcn.quantization.ranges import METHODS
from deploydcn.quantization.report import LayerChoice, OutputAgreement, QuantizeReport

__all__ = ["METHODS", "LayerChoice", "OutputAgreement", "QuantizeReport", "quantize"]
