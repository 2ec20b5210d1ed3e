"""What a lower precision would cost a float32 file, layer by layer, and which layers are worth keeping in float32."""

from deploydcn.precision.api import DTYPES, drift
from deploydcn.precision.report import DriftReport, LayerDrift, Proposal

__all__ = ["DTYPES", "DriftReport", "LayerDrift", "Proposal", "drift"]
