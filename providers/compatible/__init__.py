"""Compatible vendors: vendors whose API is OpenAI's with differences. One engine reads a TOML file for each vendor.

A package outside this repository builds an adapter and its simulator from the text of such a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.compatible.adapter import CompatibleAdapter, adapter_of
from providers.compatible.dialect import DialectError

if TYPE_CHECKING:
    from providers.compatible.simulator import CompatibleSimulator

__all__ = ["CompatibleAdapter", "DialectError", "adapter_of", "simulator_of"]


def simulator_of(toml: str) -> CompatibleSimulator:
    """Return the simulator of the compatible vendor that a TOML text describes. Raises DialectError with the place."""
    from providers.compatible import simulator  # imported here because an adapter in production needs no simulator

    return simulator.simulator_of(toml)
