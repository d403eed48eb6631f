"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.reading.errors import Phrases

__all__ = ["Phrases"]

warnings.warn(
    "providers.phrases is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
