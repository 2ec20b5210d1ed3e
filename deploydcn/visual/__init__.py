"""What deformable layers look at: sampling points, receptive fields and heat maps over an image, from torch models and ONNX files."""

from deploydcn.visual.visualize import VisualReport, visualize

__all__ = ["VisualReport", "visualize"]
