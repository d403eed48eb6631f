"""Assign each user to a variant of a weighted step: sticky key and rendezvous hashing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import blake2b

from gateway.model.config_version import Client
from gateway.model.decision import Decision, Lane, Plan, SkipReason, Step
from gateway.model.deployment import Deployment
from gateway.model.route import Route, RouteStep, WeightedSet
from providers.chat import ChatRequest, UserMessage, text_of

# Constant for ever: another one would move everybody.
_PERSON, _SIDE = b"gateway.person", b"gateway.side"


_BITS = 53


def sticky_key(*parts: str) -> bytes:
    """The key of whoever is known by these words; they can't be read from it."""
    digest = blake2b(digest_size=32, person=_PERSON)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def choose(person: bytes, weights: Mapping[str, float]) -> str | None:
    """The name that is this person's; None where no weight is above 0."""
    scored = [(_draw(person, name) / weight, name) for name, weight in weights.items() if weight > 0]
    return min(scored)[1] if scored else None


def _draw(person: bytes, name: str) -> float:
    """An exponentially distributed number, always the same for this person and name."""
    drawn = int.from_bytes(blake2b(name.encode(), digest_size=8, key=person, person=_SIDE).digest(), "big")
    return -math.log(((drawn >> (64 - _BITS)) + 0.5) / 2.0**_BITS)


def sticky_key_of(client: Client | None, subject: str | None, request: ChatRequest) -> bytes:
    """The key of the person behind a request: the subject of the signed claim or a backend's word for it, else what
    the request says of its user, else the client and the conversation's first words, which come again each turn."""
    said = request.extra.get("safety_identifier")
    name = subject or (said if isinstance(said, str) else "") or request.user
    if name:
        return named_sticky_key(name)
    first = next((text_of(message.content) for message in request.messages if isinstance(message, UserMessage)), "")
    return sticky_key("conversation", client.name if client is not None else "", first)


def named_sticky_key(name: str) -> bytes:
    """The key of a person who is known by this name, wherever it was said."""
    return sticky_key("name", name)


Verdicts = tuple[tuple[Deployment, Step | tuple[SkipReason, str]], ...]


_NO_WEIGHT = (SkipReason.WEIGHT, "its weight is 0")


def weigh(route: Route, judged: Verdicts) -> tuple[Verdicts, tuple[Lane, ...]]:
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


def _lane(step: RouteStep, verdicts: Mapping[str, Step | tuple[SkipReason, str]]) -> Lane:
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
        elif verdict[0] is SkipReason.HEALTH:
            unwell.add(name)
    return Lane(weights, able, frozenset(unwell), is_set)


def assign_variant(decision: Decision, key_of_user: Callable[[], bytes] | None) -> Decision:
    """Return the decision for one user: one member of each weighted set, and no deployment twice.

    key_of_user: returns the user's key, and is called only if there is a weighted set. Without one, the heaviest member
    of each set is chosen.
    """
    plan = decision.outcome
    if not decision.lanes or not isinstance(plan, Plan):
        return decision
    person = key_of_user() if key_of_user is not None else None
    steps: dict[str, Step] = {}
    for lane in decision.lanes:
        able = {name: lane.weights[name] for name in lane.able if name not in steps}
        chosen = _one_of(able, person)
        if chosen is not None:
            steps[chosen] = lane.able[chosen]
    first = decision.lanes[0]
    side = None
    if first.is_set and person is not None:
        side = choose(person, {name: first.weights[name] for name in (*first.able, *first.unavailable)})
    return replace(decision, outcome=replace(plan, steps=tuple(steps.values()), side=side))


def _one_of(weights: Mapping[str, float], person: bytes | None) -> str | None:
    if len(weights) < 2:
        return next(iter(weights), None)
    return choose(person, weights) if person is not None else max(weights, key=lambda name: weights[name])
