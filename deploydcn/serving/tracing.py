"""OpenTelemetry spans, where its API is installed; nothing otherwise.

What becomes of the spans is configured as for every OpenTelemetry program: `opentelemetry-instrument deploydcn serve ...`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

try:
    from opentelemetry import propagate, trace
except ImportError:
    _tracer: trace.Tracer | None = None
else:
    _tracer = trace.get_tracer("deploydcn.serving")


def span(name: str, headers: Mapping[str, str], attributes: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """A server's span around a call, a child of the caller's if `headers` carry one (W3C trace context)."""
    if _tracer is None:
        return contextlib.nullcontext()
    return _tracer.start_as_current_span(name, context=propagate.extract(headers), kind=trace.SpanKind.SERVER, attributes=dict(attributes))
