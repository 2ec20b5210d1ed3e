"""transformers: its checks on tensor values are left out while tracing, by the switch it has for that; a file holds no checks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from deploydcn.export.frontends import Frontend

_SWITCH = "TRANSFORMERS_DISABLE_TORCH_CHECK"


@contextlib.contextmanager
def _without_checks() -> Iterator[None]:
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before


FRONTEND = Frontend("transformers", patch=_without_checks)
