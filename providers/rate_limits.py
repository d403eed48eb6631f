"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.reading.rate_limits import MOST_WAIT_S, LimitHeaders, RateLimit, read_limits, reset_s, wait_s

__all__ = ["MOST_WAIT_S", "LimitHeaders", "RateLimit", "read_limits", "reset_s", "wait_s"]

warnings.warn(
    "providers.rate_limits is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
