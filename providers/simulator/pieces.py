"""Deprecated alias for one release: import from `providers.testkit`."""

from __future__ import annotations

import warnings

from providers.testkit.answer_pieces import arguments_of, cut, cut_in_two, with_stop_left_in

__all__ = ["arguments_of", "cut", "cut_in_two", "with_stop_left_in"]

warnings.warn(
    "providers.simulator.pieces is deprecated and goes in the next release: import from providers.testkit",
    DeprecationWarning,
    stacklevel=2,
)
