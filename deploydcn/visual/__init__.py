"""What deformable layers look at: sampling points, receptive fields and heat maps over an image, from torch models and ONNX files."""

from deploydcn.visual.differences import SamplingDifference, sampling_differences
from deploydcn.visual.layers import Layer
from deploydcn.visual.sources import watch
from deploydcn.visual.visualize import VisualReport, visualize

__all__ = ["Layer", "SamplingDifference", "VisualReport", "sampling_differences", "visualize", "watch"]
