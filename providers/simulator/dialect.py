"""Deprecated alias for one release: import from `providers.testkit`."""

from __future__ import annotations

import warnings

from providers.testkit.simulator import SERVER_SENT_EVENTS, IncomingRequest, Refused, stream_type_of, uncounted_by
from providers.testkit.simulator import Simulator as Dialect

__all__ = ["SERVER_SENT_EVENTS", "Dialect", "IncomingRequest", "Refused", "stream_type_of", "uncounted_by"]

warnings.warn(
    "providers.simulator.dialect is deprecated and goes in the next release: import from providers.testkit",
    DeprecationWarning,
    stacklevel=2,
)
