"""Deprecated alias for one release: import from `providers.compatible`."""

from __future__ import annotations

import warnings

from providers.compatible.adapter import CompatibleAdapter as RowAdapter
from providers.compatible.adapter import adapter_named, adapter_of
from providers.compatible.dialect import DialectError as RowError

__all__ = ["RowAdapter", "RowError", "adapter_named", "adapter_of"]

warnings.warn(
    "providers.adapters.rows is deprecated and goes in the next release: import from providers.compatible",
    DeprecationWarning,
    stacklevel=2,
)
