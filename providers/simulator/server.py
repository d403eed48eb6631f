"""Deprecated alias for one release: import from `providers.testkit`."""

from __future__ import annotations

import warnings

from providers.testkit.server import SimulatorServer, SimulatorThread

__all__ = ["SimulatorServer", "SimulatorThread"]

warnings.warn(
    "providers.simulator.server is deprecated and goes in the next release: import from providers.testkit",
    DeprecationWarning,
    stacklevel=2,
)
