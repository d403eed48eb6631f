"""Deprecated alias for one release: import from `providers.testkit`."""

from __future__ import annotations

import warnings

from providers.testkit import (
    IncomingRequest,
    Refused,
    Scenario,
    ScenarioError,
    SimulatorServer,
    SimulatorThread,
    parse_fault,
    respond,
)
from providers.testkit import Simulator as Dialect
from providers.testkit import load_simulators as load_dialects

__all__ = [
    "Dialect",
    "IncomingRequest",
    "Refused",
    "Scenario",
    "ScenarioError",
    "SimulatorServer",
    "SimulatorThread",
    "load_dialects",
    "parse_fault",
    "respond",
]

warnings.warn(
    "providers.simulator is deprecated and goes in the next release: import from providers.testkit",
    DeprecationWarning,
    stacklevel=2,
)
