"""The one way optional packages are imported: `torch = lazy_import("torch", extra="export")`.

`import deploydcn` needs numpy, onnx, typer and rich only. Everything else is imported inside the function that
uses it, through here, so that its absence ends in a sentence that names the extra to install.
"""

from __future__ import annotations

import importlib
from typing import Any

from deploydcn.errors import MissingDependency


def lazy_import(module: str, *, extra: str, package: str = "") -> Any:
    """Import `module`; raise `MissingDependency` naming `extra` when it is not installed. package: its name, if not the module's.

    An installed package that fails to import (a broken binary, a missing shared library) keeps its own traceback
    as the cause, because the fix is then not to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        package = package or module.partition(".")[0]
        state = "not installed" if absent else f"installed but does not import ({error})"
        message = f"{package} is {state}; this needs it: pip install 'deploydcn[{extra}]'"
        raise MissingDependency(message) from error
