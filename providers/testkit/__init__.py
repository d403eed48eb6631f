"""Every provider as a real HTTP server on this machine: no key, no network, and failures on demand.

A `Dialect` speaks a provider's wire format, `respond` is the model behind it, a `Scenario` says what goes wrong, and
`SimulatorServer` puts them on a loopback port.
"""

from providers.testkit.scenario import Scenario, ScenarioError, parse_fault
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulated_model import respond
from providers.testkit.simulator import IncomingRequest, Refused, Simulator, load_simulators

__all__ = [
    "IncomingRequest",
    "Refused",
    "Scenario",
    "ScenarioError",
    "Simulator",
    "SimulatorServer",
    "SimulatorThread",
    "load_simulators",
    "parse_fault",
    "respond",
]
