"""Which faults a demo's simulated providers are to have: what `gateway simulate` was told, by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.model.config_version import ConfigVersion
from providers.simulator.fault_words import ScenarioError, parse_fault
from providers.simulator.scenario import Fault, Scenario


class RehearsalError(ValueError):
    """The faults can't be had; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the simulated providers are, in seconds, and which faults are drawn. See Scenario."""

    first_token_s: float = 0.0
    between_events_s: float = 0.0
    seed: int = 0


def simulated_sites(table: ConfigVersion) -> set[tuple[str, str]]:
    """The provider and site of every simulated deployment."""
    return {(item.provider, item.simulates) for item in table.deployments.values() if item.simulates is not None}


def rehearse(
    table: ConfigVersion, everywhere: Sequence[str], at: Sequence[tuple[str, str]], pace: Pace
) -> Mapping[tuple[str, str], Scenario]:
    """The scenario of each simulated site; raises RehearsalError.

    everywhere: faults of all of them, as `429:0.2`. at: a deployment's name with a fault of its site, which deployments
    at the same site share; such a site has its own faults only.
    """
    shared = tuple(_fault(text) for text in everywhere)
    own: dict[tuple[str, str], tuple[tuple[Fault, float], ...]] = dict.fromkeys(simulated_sites(table), ())
    for name, text in at:
        own[_site_of(table, name)] += (_fault(text),)
    return {site: _scenario(site, faults or shared, pace) for site, faults in own.items()}


def _fault(text: str) -> tuple[Fault, float]:
    try:
        return parse_fault(text)
    except ScenarioError as error:
        raise RehearsalError(str(error)) from None


def _site_of(table: ConfigVersion, name: str) -> tuple[str, str]:
    deployment = table.deployments.get(name)
    if deployment is None or deployment.simulates is None:
        known = ", ".join(sorted(name for name, item in table.deployments.items() if item.simulates is not None))
        raise RehearsalError(f"there is no simulated deployment {name[:80]!r}; there are: {known}")
    return deployment.provider, deployment.simulates


def _scenario(site: tuple[str, str], faults: tuple[tuple[Fault, float], ...], pace: Pace) -> Scenario:
    try:
        return Scenario(
            first_token_s=pace.first_token_s,
            between_events_s=pace.between_events_s,
            faults=faults,
            seed=pace.seed,
        )
    except ValueError as error:
        raise RehearsalError(f"{' '.join(site)}: {error}") from None
