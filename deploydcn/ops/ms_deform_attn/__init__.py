from deploydcn.ops.ms_deform_attn.cases import CASES
from deploydcn.ops.ms_deform_attn.reference import reference
from deploydcn.ops.ms_deform_attn.spec import SPEC

__all__ = ["CASES", "SPEC", "reference"]
