"""Exceptions by cause. A user's mistake (`UserError`) and a bug of ours (`InternalError`) never share a class.

Every message follows one form: what it is about, what was got, what was wanted, and how to fix it.
"""

from __future__ import annotations


class DeployDcnError(Exception):
    """Base of every exception this package raises on purpose."""


class UserError(DeployDcnError):
    """The caller can fix this: an argument, a file, a model or the environment is not usable as given."""


class InvalidArgument(UserError, ValueError):
    """A shape, dtype, attribute or option is outside what the called function accepts."""


class InvalidModel(UserError):
    """A model file or factory cannot be read as what it claims to be."""


class ExportError(UserError):
    """A PyTorch model cannot be written as ONNX, or the written file does not compute what PyTorch does."""


class RuntimeFailure(UserError):
    """A runtime (ONNX Runtime, PyTorch ...) refused to load or to run a model."""


class MissingDependency(UserError, ImportError):
    """An optional package is needed for this and is not installed."""


class InternalError(DeployDcnError):
    """A bug in deploydcn: an invariant that no input should be able to break is broken."""
