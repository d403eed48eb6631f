"""The simulated providers of a process: those of a demo, and those at which a real config is rehearsed.

Each simulated site is a real HTTP server on its own loopback port, so that a request takes the same path as in
production.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from gateway.api.admin_control import SimulatorFaults
from gateway.changes.compile_job import CompileJob
from gateway.changes.initial_config import InitialConfig, with_simulators
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import CommandError
from gateway.server.fault_switch import FaultSwitch, Site
from gateway.server.start import Simulate
from gateway.telemetry.log import logger
from providers.testkit.scenario import Fault, Scenario, ScenarioError, parse_fault
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import NoSimulator, load_simulators
from providers.value import Value, replace


class SimulatedPace(Value, frozen=True):
    """The speed of the simulated providers, and the seed that draws their faults. See `Scenario`."""

    first_token_s: float = 0.0
    between_events_s: float = 0.0
    seed: int = 0


_SIMULATED = "every provider is simulated on this machine: no answer is of a model, and no request leaves"
_STREAM_PACE = SimulatedPace(between_events_s=0.03)
"""The pace without other orders: a reader sees that an answer streams, and one without a stream loses no time."""


class Rehearsal(Value, frozen=True):
    """The faults of all sites, such as `429:0.2`, and the speed of simulated providers (None: that of the demo).

    `faults_at` names a deployment, and a fault of its site. All deployments at that site share it. Such a site has only
    its own faults.
    """

    faults: Sequence[str] = ()
    faults_at: Sequence[tuple[str, str]] = ()
    pace: SimulatedPace | None = None

    def scenarios(self, config: ConfigVersion) -> Mapping[Site, Scenario]:
        """Return the scenario of each simulated site. Raises CommandError."""
        shared = tuple(_fault(text) for text in self.faults)
        own: dict[Site, tuple[tuple[Fault, float], ...]] = dict.fromkeys(simulated_sites(config), ())
        for name, text in self.faults_at:
            own[_site_of(config, name)] += (_fault(text),)
        pace = self.pace or _STREAM_PACE
        return {site: _scenario(site, faults or shared, pace) for site, faults in sorted(own.items())}


def simulated_sites(config: ConfigVersion) -> set[Site]:
    """Return the provider and site of every simulated deployment."""
    return {(item.provider, item.simulates) for item in config.deployments.values() if item.simulates is not None}


def _fault(text: str) -> tuple[Fault, float]:
    try:
        return parse_fault(text)
    except ScenarioError as error:
        raise CommandError(str(error)) from None


def _site_of(config: ConfigVersion, name: str) -> Site:
    deployment = config.deployments.get(name)
    if deployment is None or deployment.simulates is None:
        known = ", ".join(sorted(name for name, item in config.deployments.items() if item.simulates is not None))
        raise CommandError(f"there is no simulated deployment {name[:80]!r}; there are: {known}")
    return deployment.provider, deployment.simulates


def _scenario(site: Site, faults: tuple[tuple[Fault, float], ...], pace: SimulatedPace) -> Scenario:
    try:
        return Scenario(
            first_token_s=pace.first_token_s, between_events_s=pace.between_events_s, faults=faults, seed=pace.seed
        )
    except ValueError as error:
        raise CommandError(f"{' '.join(site)}: {error}") from None


class Simulation(Value, frozen=True):
    """The running simulators of a config, the version to serve, and the job that compiles later ones."""

    initial: InitialConfig
    job: CompileJob
    servers: Mapping[Site, SimulatorServer]

    def faults(self, current: Callable[[], ConfigVersion]) -> FaultSwitch:
        """Return the switch of their faults."""
        return FaultSwitch(self.servers, current)

    def announce(self, faults: SimulatorFaults) -> None:
        """Log where each simulator listens, and its faults."""
        logger().warning("simulated", detail=_SIMULATED)
        for site in faults.sites():
            at = self.servers[site.provider, site.site].origin
            logger().info("simulator", provider=site.provider, site=site.site, at=at, faults=site.description)


def simulators_of(config: ConfigVersion, rehearsal: Rehearsal) -> dict[Site, SimulatorServer]:
    """Return the simulator of each site that the version simulates. They are not started. Raises CommandError."""
    scenarios, simulators = rehearsal.scenarios(config), load_simulators()
    try:
        return {
            site: SimulatorServer(simulators.named(site[0]), " ".join(site), scenario)
            for site, scenario in scenarios.items()
        }
    except NoSimulator as error:
        raise CommandError(str(error)) from None


@contextmanager
def simulating(first: InitialConfig, job: CompileJob, servers: Mapping[Site, SimulatorServer]) -> Iterator[Simulation]:
    """Run the simulators of a version, and compile it again with their ports. Raises CommandError."""
    with SimulatorThread({" ".join(site): server for site, server in servers.items()}):
        job = replace(job, simulators={site: server.origin for site, server in servers.items()})
        yield Simulation(with_simulators(first, job), job, servers)


def simulating_with(rehearsal: Rehearsal) -> Simulate:
    """Return `simulating` for the simulators of a version with these faults and this pace."""
    return lambda initial, job: simulating(initial, job, simulators_of(initial.config, rehearsal))
