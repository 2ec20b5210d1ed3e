from deploydcn.ops.deform_psroi_pool.cases import CASES
from deploydcn.ops.deform_psroi_pool.reference import reference
from deploydcn.ops.deform_psroi_pool.spec import SPEC

__all__ = ["CASES", "SPEC", "reference"]
