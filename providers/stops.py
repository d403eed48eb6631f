"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.reading.stop_sequences import StopTrimmer, stops_left_in, trimmed

__all__ = ["StopTrimmer", "stops_left_in", "trimmed"]

warnings.warn(
    "providers.stops is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
