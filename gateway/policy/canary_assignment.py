"""Assign each user to a variant of a weighted step, and each conversation to a key: rendezvous hashing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import blake2b

from gateway.model.config_version import Client
from gateway.model.decision import Decision, Exclusion, Lane, Plan, SkipReason, Step, Verdict
from gateway.model.deployment import Deployment
from gateway.model.route import Route, RouteStep, WeightedSet
from providers.chat import ChatRequest, SystemMessage, UserMessage, text_of
from providers.value import replace

# These values must never change: another value would assign every user anew.
_USER_DOMAIN, _VARIANT_DOMAIN = b"gateway.person", b"gateway.side"
_BITS = 53
_NO_WEIGHT = Exclusion(SkipReason.WEIGHT, "its weight is 0")


def sticky_key(*parts: str) -> bytes:
    """Return the sticky key of a user who is identified by these texts. It is a hash and does not reveal them."""
    digest = blake2b(digest_size=32, person=_USER_DOMAIN)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def choose(sticky: bytes, weights: Mapping[str, float]) -> str | None:
    """Return the name that is assigned to the sticky key, or None if no weight is above 0.

    Weighted rendezvous hashing: a changed weight moves only as many users as necessary.
    """
    scored = [(_draw(sticky, name) / weight, name) for name, weight in weights.items() if weight > 0]
    return min(scored)[1] if scored else None


def _draw(sticky: bytes, name: str) -> float:
    """Return an exponentially distributed number, always the same for this key and name."""
    digest = blake2b(name.encode(), digest_size=8, key=sticky, person=_VARIANT_DOMAIN).digest()
    return -math.log(((int.from_bytes(digest, "big") >> (64 - _BITS)) + 0.5) / 2.0**_BITS)


def user_of_chat(request: ChatRequest, subject: str | None) -> str:
    """Return the end user of a chat, or an empty text: the one that headers name, else the one of its fields."""
    identifier = request.extra.get("safety_identifier")
    return subject or (identifier if isinstance(identifier, str) else "") or request.user or ""


def sticky_key_of(
    client: Client | None, subject: str | None, request: ChatRequest, session: str | None = None
) -> bytes:
    """Return the sticky key of the user of a request.

    Without a user the key depends on the session that an agent names, else on the client and the first user message,
    which is repeated in every turn.
    """
    if name := user_of_chat(request, subject):
        return named_sticky_key(name)
    if session is not None:
        return sticky_key("session", session)
    first = next((text_of(message.content) for message in request.messages if isinstance(message, UserMessage)), "")
    return sticky_key("conversation", client.name if client is not None else "", first)


def conversation_key_of(
    client: Client | None, subject: str | None, request: ChatRequest, session: str | None = None
) -> bytes:
    """Return the sticky key of a conversation, which its turns repeat: the session that an agent names.

    Without one it depends on the client, the end user, the texts of the system before the first message of the user,
    and on that message. It never depends on `prompt_cache_key`, which some apps share among all users.
    """
    if session is not None:
        return sticky_key("session", session)
    texts: list[str] = []
    for message in request.messages:
        if isinstance(message, SystemMessage | UserMessage):
            texts.append(text_of(message.content))
        if isinstance(message, UserMessage):
            break
    return sticky_key("turns", client.name if client is not None else "", user_of_chat(request, subject), *texts)


def named_sticky_key(name: str) -> bytes:
    """Return the sticky key of a user with this name, independent of where the name was sent."""
    return sticky_key("name", name)


Verdicts = tuple[tuple[Deployment, Verdict], ...]


def weigh(route: Route, judged: Verdicts) -> tuple[Verdicts, tuple[Lane, ...]]:
    """Return the verdicts, in which deployments with a weight of 0 only are skipped, and the lanes of the route.

    A route without a weighted step has no lanes.
    """
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


def _lane(step: RouteStep, verdicts: Mapping[str, Verdict]) -> Lane:
    is_set = isinstance(step, WeightedSet)
    weights = step.weights if isinstance(step, WeightedSet) else {step.name: 1.0}
    able: dict[str, Step] = {}
    unavailable: set[str] = set()
    for name, weight in weights.items():
        verdict = verdicts[name]
        if weight <= 0:
            continue
        if isinstance(verdict, Step):
            able[name] = verdict
        elif verdict[0] is SkipReason.HEALTH:
            unavailable.add(name)
    return Lane(weights, able, frozenset(unavailable), is_set)


def assign_variant(decision: Decision, key_of_user: Callable[[], bytes] | None) -> Decision:
    """Return the decision for one user: one member of each weighted set, and no deployment twice.

    The sticky key of the user is asked for only if there is a weighted set. Without it, the member with the highest
    weight is chosen.
    """
    plan = decision.outcome
    if not decision.lanes or not isinstance(plan, Plan):
        return decision
    sticky = key_of_user() if key_of_user is not None else None
    steps: dict[str, Step] = {}
    for lane in decision.lanes:
        able = {name: lane.weights[name] for name in lane.able if name not in steps}
        chosen = _one_of(able, sticky)
        if chosen is not None:
            steps[chosen] = lane.able[chosen]
    first = decision.lanes[0]
    variant = None
    if first.is_set and sticky is not None:
        variant = choose(sticky, {name: first.weights[name] for name in (*first.able, *first.unavailable)})
    return replace(decision, outcome=replace(plan, steps=tuple(steps.values()), variant=variant))


def _one_of(weights: Mapping[str, float], sticky: bytes | None) -> str | None:
    if len(weights) < 2:
        return next(iter(weights), None)
    return choose(sticky, weights) if sticky is not None else max(weights, key=lambda name: weights[name])
