"""Vendors that speak OpenAI's dialect with differences: one engine, and one TOML file for each vendor.

A package outside this repository makes an adapter and its simulator from the text of such a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.compatible.adapter import CompatibleAdapter, adapter_of
from providers.compatible.dialect import DialectError

if TYPE_CHECKING:
    from providers.compatible.simulator import CompatibleSimulator

__all__ = ["CompatibleAdapter", "DialectError", "adapter_of", "simulator_of"]


def simulator_of(toml: str) -> CompatibleSimulator:
    """Return the simulator of a vendor that a TOML text describes. Raises DialectError."""
    from providers.compatible import simulator  # not at the top: an adapter in production needs no simulator

    return simulator.simulator_of(toml)
