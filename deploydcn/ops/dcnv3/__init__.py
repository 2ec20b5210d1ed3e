from deploydcn.ops.dcnv3.cases import CASES
from deploydcn.ops.dcnv3.reference import reference
from deploydcn.ops.dcnv3.spec import SPEC

__all__ = ["CASES", "SPEC", "reference"]
