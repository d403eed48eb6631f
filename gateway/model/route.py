"""A route: ordered steps, each of them one deployment or a weighted set that divides users between its members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from gateway.model.hand_off import BarrierRule
from gateway.model.wrapper import Wrapper
from providers.value import Value

if TYPE_CHECKING:
    from gateway.model.deployment import Deployment


class WeightedSet(Value, frozen=True):
    """A weighted step (a canary): members with weights. A member with weight 0 gets no users."""

    members: tuple[tuple[Deployment, float], ...]

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights by the name of the deployment."""
        return {deployment.name: weight for deployment, weight in self.members}

    @property
    def shares(self) -> Mapping[str, float]:
        """The share of users (0 to 1) of each member by its name, while all members are available."""
        total = sum(weight for _, weight in self.members)
        return {deployment.name: weight / total for deployment, weight in self.members}


RouteStep: TypeAlias = "Deployment | WeightedSet"
Route: TypeAlias = "tuple[RouteStep, ...]"


class Barrier(Value, frozen=True):
    """The barrier after the private steps of a route, with the causes that open it.

    Routing does not see the steps after it. `listed` is for those who show or check a config; `Assistant.behind` gives
    these steps to routing. The wrapper changes all that is sent after it.
    """

    rule: BarrierRule
    listed: Route
    wrapper: Wrapper | None = None


def deployments_of(route: Iterable[RouteStep]) -> tuple[Deployment, ...]:
    """Return every deployment of a route once, in order."""
    by_name: dict[str, Deployment] = {}
    for step in route:
        members = [member for member, _ in step.members] if isinstance(step, WeightedSet) else [step]
        for deployment in members:
            by_name.setdefault(deployment.name, deployment)
    return tuple(by_name.values())


def step_text(step: RouteStep) -> str:
    """Return a step as it is written in a config: a name, or several names with weights."""
    if isinstance(step, WeightedSet):
        return f"{{{', '.join(f'{name}: {weight:g}' for name, weight in step.weights.items())}}}"
    return step.name
