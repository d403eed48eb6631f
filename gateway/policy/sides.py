"""The side of a canary that a person is on: of each weighted step one member that can answer, by `rendezvous`.

What a deployment may and can do is judged before, and the same for everybody; this is the part that differs by person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gateway.model.decision import Decision, Lane, PassedOver, Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.route import Route, RouteStep, WeightedSet
from gateway.policy.rendezvous import choose

__all__ = ["Judged", "take_side", "weigh"]

Judged = tuple[tuple[Deployment, Step | tuple[PassedOver, str]], ...]
_NO_WEIGHT = (PassedOver.WEIGHT, "its weight is 0")


def weigh(route: Route, judged: Judged) -> tuple[Judged, tuple[Lane, ...]]:
    """What was judged, with the deployments passed over that only have a weight of 0; and the lanes of a route that has
    a weighted step, none of another."""
    if not any(isinstance(step, WeightedSet) for step in route):
        return judged, ()
    verdicts = {deployment.name: verdict for deployment, verdict in judged}
    lanes = tuple([_lane(step, verdicts) for step in route])
    reachable = {name for lane in lanes for name in lane.able}
    weighed = tuple(
        [
            (deployment, verdict if deployment.name in reachable or not isinstance(verdict, Step) else _NO_WEIGHT)
            for deployment, verdict in judged
        ]
    )
    return weighed, lanes


def _lane(step: RouteStep, verdicts: Mapping[str, Step | tuple[PassedOver, str]]) -> Lane:
    is_set = isinstance(step, WeightedSet)
    weights = step.weights if isinstance(step, WeightedSet) else {step.name: 1.0}
    able: dict[str, Step] = {}
    unwell: set[str] = set()
    for name, weight in weights.items():
        verdict = verdicts[name]
        if weight <= 0:
            continue
        if isinstance(verdict, Step):
            able[name] = verdict
        elif verdict[0] is PassedOver.HEALTH:
            unwell.add(name)
    return Lane(weights, able, frozenset(unwell), is_set)


def take_side(decision: Decision, person: bytes | None) -> Decision:
    """The decision for this person: of each weighted set one member, and no deployment twice. Without a person, each
    set's heaviest."""
    plan = decision.outcome
    if not decision.lanes or not isinstance(plan, Plan):
        return decision
    steps: dict[str, Step] = {}
    for lane in decision.lanes:
        able = {name: lane.weights[name] for name in lane.able if name not in steps}
        chosen = _one_of(able, person)
        if chosen is not None:
            steps[chosen] = lane.able[chosen]
    first = decision.lanes[0]
    side = None
    if first.is_set and person is not None:
        side = choose(person, {name: first.weights[name] for name in (*first.able, *first.unwell)})
    return replace(decision, outcome=replace(plan, steps=tuple(steps.values()), side=side))


def _one_of(weights: Mapping[str, float], person: bytes | None) -> str | None:
    if len(weights) < 2:
        return next(iter(weights), None)
    return choose(person, weights) if person is not None else max(weights, key=lambda name: weights[name])
