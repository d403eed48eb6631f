"""A route: steps in order, each one deployment or a weighted set, of which every person has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from gateway.model.deployment import Deployment


@dataclass(frozen=True, slots=True)
class WeightedSet:
    """A weighted step (a canary): each member with its weight. A member of weight 0 is nobody's."""

    members: tuple[tuple[Deployment, float], ...]

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights by name."""
        return {deployment.name: weight for deployment, weight in self.members}

    @property
    def shares(self) -> Mapping[str, float]:
        """Which share (0 to 1) of the people each member has, by its name, while all can be asked."""
        total = sum(weight for _, weight in self.members)
        return {deployment.name: weight / total for deployment, weight in self.members}


@dataclass(frozen=True, slots=True)
class Shadow:
    """Who gets a share (0 to 1) of a route's requests too, when they have been answered; nobody sees what it says.

    keep_text: whether prompt and answer are kept with the outcome, and the answer that the client got.
    """

    deployment: Deployment
    share: float
    keep_text: bool = False


RouteStep: TypeAlias = "Deployment | WeightedSet"
Route: TypeAlias = "tuple[RouteStep, ...]"


def deployments_of(route: Route) -> tuple[Deployment, ...]:
    """Every deployment that a route names, once, in order."""
    found: dict[str, Deployment] = {}
    for step in route:
        members = [member for member, _ in step.members] if isinstance(step, WeightedSet) else [step]
        for deployment in members:
            found.setdefault(deployment.name, deployment)
    return tuple(found.values())


def step_text(step: RouteStep) -> str:
    """A step as a config has it: a name, or several with their weights."""
    if isinstance(step, WeightedSet):
        return f"{{{', '.join(f'{name}: {weight:g}' for name, weight in step.weights.items())}}}"
    return step.name
