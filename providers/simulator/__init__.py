"""Every provider as a real HTTP server on this machine: no key, no network, and failures on demand.

A `Dialect` speaks a provider's wire format, `respond` is the model behind it, a `Scenario` says what goes wrong, and
`SimulatorServer` puts them on a loopback port.
"""

from providers.simulator.dialect import Dialect, IncomingRequest, Refused
from providers.simulator.fault_words import ScenarioError, parse_fault
from providers.simulator.model import respond
from providers.simulator.registry import load_dialects
from providers.simulator.scenario import Scenario
from providers.simulator.server import SimulatorServer, SimulatorThread

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
