"""Switch the faults of a demo's simulated providers while they run, show what they got, and move its clock."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from gateway.api.admin_control import SimulatorFaults
from gateway.api.errors import ApiError
from gateway.model.config_version import ConfigVersion
from gateway.model.status import SimulatedSite
from providers.testkit.scenario import Fault, Scenario, ScenarioError, parse_fault
from providers.testkit.server import SimulatorServer
from providers.value import replace

Site = tuple[str, str]


@dataclass(eq=False, repr=False)
class FaultSwitch(SimulatorFaults):
    """The faults of the simulators of this process, and with `move_clock` the time of its users."""

    _servers: Mapping[Site, SimulatorServer]
    _current: Callable[[], ConfigVersion]
    _move_clock: Callable[[int], None] | None = None
    _ahead_s: int = 0
    _words: dict[Site, str] = field(default_factory=dict)

    def sites(self) -> tuple[SimulatedSite, ...]:
        by_site: dict[Site, list[str]] = {site: [] for site in self._servers}
        for name, deployment in self._current().deployments.items():
            site = deployment.provider, deployment.simulates or ""
            if deployment.simulates is not None and site in by_site:
                by_site[site].append(name)
        return tuple(
            SimulatedSite(*site, tuple(names), self._words.get(site, ""), describe(self._servers[site].scenario))
            for site, names in by_site.items()
        )

    def set(self, name: str, words: str) -> None:
        site = self._site_of(name)
        faults: tuple[tuple[Fault, float], ...] = ()
        if words:
            try:
                faults = (parse_fault(words),)
            except ScenarioError as error:
                raise ApiError("invalid_request", str(error), "fault") from None
        self._apply(site, words, replace(self._servers[site].scenario, faults=faults))

    def clear(self) -> None:
        for site, server in self._servers.items():
            if server.scenario.faults:
                self._apply(site, "", replace(server.scenario, faults=()))

    def arrived(self, name: str) -> str | None:
        server, model = self._servers[self._site_of(name)], self._current().deployments[name].model
        # Several deployments may be at one site. Their models are named in the path or in the body.
        for request in reversed(server.requests):
            if model in request.path or model.encode() in request.body:
                return request.body.decode("utf-8", "replace")
        return None

    def clock(self, ahead_s: int | None) -> int:
        if self._move_clock is None:
            raise ApiError("not_found", "the clock of users can be moved in `gateway demo` and `simulate` only")
        if ahead_s is not None:
            self._move_clock(ahead_s)
            self._ahead_s = ahead_s
        return self._ahead_s

    def _apply(self, site: Site, words: str, scenario: Scenario) -> None:
        self._servers[site].scenario = scenario
        self._words[site] = words

    def _site_of(self, name: str) -> Site:
        deployment = self._current().deployments.get(name)
        if deployment is not None and deployment.simulates is None:
            message = f"{name} is real: only simulated deployments can have a fault"
            raise ApiError("invalid_request", message, "deployment")
        if deployment is None or (site := (deployment.provider, deployment.simulates or "")) not in self._servers:
            known = ", ".join(sorted(name for site in self.sites() for name in site.deployments))
            message = f"there is no simulated deployment with this name; there are: {known}"
            raise ApiError("invalid_request", message, "deployment")
        return site


def describe(scenario: Scenario) -> str:
    """Return the faults of a scenario as text; empty if there are none."""
    return "; ".join(
        f"{share:.0%} {fault_text(fault)}" if share < 1 else fault_text(fault) for fault, share in scenario.faults
    )


def fault_text(fault: Fault) -> str:
    """Return a fault as text: its name, and its values with their units, such as `http error: status 503`."""
    name = re.sub("(?<!^)(?=[A-Z])", " ", type(fault).__name__).lower()
    values = []
    for member, value in asdict(fault).items():
        if value is None or value == "":
            continue
        words = member.removesuffix("_s").replace("_", " ")
        unit = " s" if member.endswith("_s") else ""
        values.append(f"{words} {value:g}{unit}" if isinstance(value, int | float) else f"{words} {value}")
    return f"{name}: {', '.join(values)}" if values else name
