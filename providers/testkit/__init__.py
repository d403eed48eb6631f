"""Simulated providers for tests: real HTTP servers on this machine, with failures on demand.

A `Simulator` implements a provider's side of its wire format, `respond` is its model, a `Scenario` sets delays and
faults, and `SimulatorServer` serves it on a loopback port. The server is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from providers.openai_json import decode_request
from providers.testkit.answer_pieces import arguments_of, cut, cut_in_two
from providers.testkit.prefix_cache import CacheRead, PrefixCache
from providers.testkit.scenario import Scenario, ScenarioError, parse_fault
from providers.testkit.simulated_model import respond
from providers.testkit.simulator import (
    IncomingRequest,
    RequestRejected,
    SimulatesAudio,
    SimulatesCounts,
    SimulatesDecisions,
    SimulatesInputs,
    SimulatesModerations,
    SimulatesRerank,
    Simulator,
    load_simulators,
)

if TYPE_CHECKING:
    from providers.testkit.issuers import SimulatedIssuers
    from providers.testkit.server import SimulatorServer, SimulatorThread

__all__ = [
    "CacheRead",
    "IncomingRequest",
    "PrefixCache",
    "RequestRejected",
    "Scenario",
    "ScenarioError",
    "SimulatedIssuers",
    "SimulatesAudio",
    "SimulatesCounts",
    "SimulatesDecisions",
    "SimulatesInputs",
    "SimulatesModerations",
    "SimulatesRerank",
    "Simulator",
    "SimulatorServer",
    "SimulatorThread",
    "arguments_of",
    "cut",
    "cut_in_two",
    "decode_request",
    "load_simulators",
    "parse_fault",
    "respond",
]


def __getattr__(name: str) -> Any:
    """Import the server when one of its classes is first used: simulators alone need no web server."""
    if name in ("SimulatorServer", "SimulatorThread"):
        from providers.testkit import server

        return {"SimulatorServer": server.SimulatorServer, "SimulatorThread": server.SimulatorThread}[name]
    if name == "SimulatedIssuers":
        from providers.testkit.issuers import SimulatedIssuers

        return SimulatedIssuers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
