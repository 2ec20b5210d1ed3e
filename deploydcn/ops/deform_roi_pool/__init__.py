from deploydcn.ops.deform_roi_pool.cases import CASES
from deploydcn.ops.deform_roi_pool.reference import reference
from deploydcn.ops.deform_roi_pool.spec import SPEC

__all__ = ["CASES", "SPEC", "reference"]
