"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.reading.event_stream import EventStreamParser, ReadChunk, ReadComment, ReadRun

__all__ = ["EventStreamParser", "ReadChunk", "ReadComment", "ReadRun"]

warnings.warn(
    "providers.streaming is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
