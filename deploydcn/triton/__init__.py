"""Model repositories for Triton Inference Server: written, checked, and tried on the server where there is one."""

from deploydcn.triton.check import check_triton_repository
from deploydcn.triton.report import Problem, TritonCheck, TritonRepository, WrittenModel
from deploydcn.triton.repository import write_triton_repository

__all__ = ["Problem", "TritonCheck", "TritonRepository", "WrittenModel", "check_triton_repository", "write_triton_repository"]
