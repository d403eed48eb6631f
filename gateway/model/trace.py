"""The trace that a request belongs to, in the terms of W3C Trace Context."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Ids are lower-case hexadecimal.

    parent_id: the caller's span, empty where the trace begins here. sampled: whether the caller records it, None where
    the trace begins here. state: the caller's `tracestate`, sound and short, or empty.
    """

    trace_id: str
    parent_id: str = ""
    sampled: bool | None = None
    state: str = ""
