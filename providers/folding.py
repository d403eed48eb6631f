"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.reading.folding import Folding, expand, fold, text_of_run, unfold

__all__ = ["Folding", "expand", "fold", "text_of_run", "unfold"]

warnings.warn(
    "providers.folding is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
