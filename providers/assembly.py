"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.reading.assembler import MAX_CHOICES, Assembler

__all__ = ["MAX_CHOICES", "Assembler"]

warnings.warn(
    "providers.assembly is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
