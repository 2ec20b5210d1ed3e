from deploydcn.ops.dcnv4.cases import CASES
from deploydcn.ops.dcnv4.reference import reference
from deploydcn.ops.dcnv4.spec import SPEC

__all__ = ["CASES", "SPEC", "reference"]
