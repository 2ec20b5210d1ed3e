from deploydcn.ops.qlinear_deform_conv2d.cases import CASES
from deploydcn.ops.qlinear_deform_conv2d.reference import reference
from deploydcn.ops.qlinear_deform_conv2d.spec import SPEC

__all__ = ["CASES", "SPEC", "reference"]
