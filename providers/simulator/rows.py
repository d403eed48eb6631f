"""Deprecated alias for one release: import from `providers.compatible`."""

from __future__ import annotations

import warnings

from providers.compatible.simulator import CompatibleSimulator as RowDialect
from providers.compatible.simulator import simulator_named as dialect_named
from providers.compatible.simulator import simulator_of as dialect_of

__all__ = ["RowDialect", "dialect_named", "dialect_of"]

warnings.warn(
    "providers.simulator.rows is deprecated and goes in the next release: import from providers.compatible",
    DeprecationWarning,
    stacklevel=2,
)
