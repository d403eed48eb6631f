"""Choose the intent of a chat, and put a user's preferred deployments first in a route. Pure.

A preference changes the order of a route and nothing else: the same checks decide about each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from gateway.model.age import AgeBand
from gateway.model.assistant import DEFAULT_INTENT, Assistant, UserChoice
from gateway.model.caller import Caller
from gateway.model.config_version import Client
from gateway.model.decision import Decision, Plan, SkipReason, Step
from gateway.model.preference import Preference, PreferenceReason
from gateway.model.route import Route, RouteStep, WeightedSet, deployments_of
from gateway.policy.canary_assignment import choose
from providers.failures import InvalidRequest
from providers.value import replace

_WHY_SKIPPED: Mapping[SkipReason, PreferenceReason] = {
    SkipReason.BOUNDARY: PreferenceReason.BOUNDARY,
    SkipReason.AVAILABILITY: PreferenceReason.AVAILABILITY,
    SkipReason.APPROVAL: PreferenceReason.APPROVAL,
    SkipReason.CONSENT: PreferenceReason.CONSENT,
    SkipReason.CAPABILITY: PreferenceReason.CAPABILITY,
    SkipReason.REQUIREMENT: PreferenceReason.CAPABILITY,
    SkipReason.EXCEPTED: PreferenceReason.CAPABILITY,
    SkipReason.PARAMETER: PreferenceReason.CAPABILITY,
    SkipReason.MOVES_DATA: PreferenceReason.CAPABILITY,
    SkipReason.INFERENCE_GEO: PreferenceReason.CAPABILITY,
    SkipReason.REDACTION: PreferenceReason.CAPABILITY,
    SkipReason.HEALTH: PreferenceReason.HEALTH,
    SkipReason.DISABLED: PreferenceReason.HEALTH,
    SkipReason.ENDED: PreferenceReason.HEALTH,
    SkipReason.CREDENTIAL: PreferenceReason.HEALTH,
    SkipReason.WEIGHT: PreferenceReason.HEALTH,
}
_LASTING = frozenset({SkipReason.BOUNDARY, SkipReason.AVAILABILITY, SkipReason.APPROVAL})
"""The reasons that do not pass by themselves, so that an app shows a choice as unavailable."""


def may_assert_intent(client: Client | None) -> bool:
    """Return whether the key of a request may state its intent."""
    return client is not None and "intent" in client.may_assert


def intent_of(
    assistant: Assistant,
    client: Client | None,
    asserted: tuple[str, ...],
    tools: Iterable[str],
    age: AgeBand | None = None,
) -> str:
    """Return the intent of a chat.

    It is that of the user's age band, else the asserted one (every value of `x-gateway-intent`, if the client may
    assert one), else the first one with a pattern of a tool, else `default`. Raises InvalidRequest if two are asserted.
    """
    if age is not None and age.intent is not None:
        return _known_intent(assistant, age.intent)
    if asserted and may_assert_intent(client):
        names = set(asserted)
        if len(names) > 1:
            raise InvalidRequest("`x-gateway-intent` was sent more than once, with different values; send one")
        return _known_intent(assistant, names.pop())
    named = tuple(tools)
    for intent in assistant.intents:
        if any(fnmatchcase(tool, pattern) for pattern in intent.tools for tool in named):
            return intent.name
    return DEFAULT_INTENT


def seen_by_intent(
    assistant: Assistant, caller: Caller, named: str | None, age: AgeBand | None
) -> tuple[Assistant, dict[str, object]]:
    """Return the assistant as chats of an intent see it, and a note if the stated one has no effect.

    A question may name the intent in place of the caller. The rules for the age of the user come first. Raises
    InvalidRequest for an unknown name.
    """
    if named is not None and named != DEFAULT_INTENT and all(named != one.name for one in assistant.intents):
        known = ", ".join([one.name for one in assistant.intents]) or "none"
        raise InvalidRequest(f"there is no intent with this name; the intents are: {known}", "intent")
    note: dict[str, object] = {}
    stated = caller.values("x-gateway-intent")
    if stated and not may_assert_intent(caller.client):
        note = {"intent_note": "`x-gateway-intent` is ignored: this key may not assert an intent"}
    if age is not None and age.intent is not None:
        note = {"intent_note": "the age band of the user decides the intent"} if named or stated else {}
        named = None
    intent = named or intent_of(assistant, caller.client, stated, (), age)
    return assistant.for_intent(intent), note


def _known_intent(assistant: Assistant, name: str) -> str:
    return name if any(intent.name == name for intent in assistant.intents) else DEFAULT_INTENT


def preference_of_age(assistant: Assistant, name: str) -> Preference:
    """Return a preference that has no effect because of the user's age."""
    return Preference(name if name in assistant.choices else None, reason=PreferenceReason.AGE)


def preferred_name(values: tuple[str, ...]) -> str:
    """Return the choice that a request prefers. Raises InvalidRequest if it names two."""
    names = set(values)
    if len(names) > 1:
        raise InvalidRequest("`x-gateway-prefer` was sent more than once, with different values; send one")
    return next(iter(names))


def decide_preferring(
    assistant: Assistant,
    region: str,
    name: str,
    decide: Callable[[Assistant], Decision],
    sticky: Callable[[], bytes] | None,
) -> tuple[Decision, Preference]:
    """Return the decision for a request whose user prefers a choice, and what became of the preference.

    `decide` decides for an assistant, with the user's own member of each weighted step. `sticky` returns the sticky key
    of the user.
    """
    plain, route = decide(assistant), assistant.routes.get(region, ())
    choice = assistant.choices.get(name)
    if choice is None:
        return plain, Preference(None, reason=PreferenceReason.UNKNOWN)
    own = [step for step in route if member_of(step, plain, sticky) in choice.deployments]
    if not own:
        reason, barrier = _why_not_theirs(plain, choice), assistant.barriers.get(region)
        if barrier is not None and choice.deployments.isdisjoint(it.name for it in deployments_of(route)):
            is_behind = not choice.deployments.isdisjoint(it.name for it in deployments_of(barrier.listed))
            reason = PreferenceReason.HAND_OFF if is_behind else reason
        return plain, Preference(name, choice.deployments, reason)
    decision, reordered = plain, (*own, *(step for step in route if step not in own))
    if reordered != route:
        members = ",".join(it.name for it in deployments_of(reordered))
        routes = {**assistant.routes, region: reordered}
        decision = decide(replace(assistant, routes=routes, order=f"{name}: {members}"))
    is_reordered = _planned(decision) != _planned(plain)
    preference = Preference(name, choice.deployments, _why_not(decision, own, choice, sticky), is_reordered)
    if not isinstance(decision.outcome, Plan):
        return decision, preference
    if not is_reordered:
        # Its weighted step may have become the first one of the route, which alone would set a variant.
        return plain, preference
    # A user with a preference is not a user of a canary.
    return replace(decision, outcome=replace(decision.outcome, variant=None)), preference


def _planned(decision: Decision) -> tuple[str, ...]:
    plan = decision.outcome
    return tuple(step.deployment.name for step in plan.steps) if isinstance(plan, Plan) else ()


def member_of(step: RouteStep, decision: Decision, sticky: Callable[[], bytes] | None) -> str | None:
    """Return the deployment that this user has at a step of the route."""
    if not isinstance(step, WeightedSet):
        return step.name
    weights = step.weights
    planned = next((name for name in _planned(decision) if name in weights), None)
    if planned is not None:
        return planned
    return choose(sticky(), weights) if sticky is not None else max(weights, key=lambda name: weights[name])


def members_of(route: Route, decision: Decision, sticky: Callable[[], bytes] | None) -> frozenset[str | None]:
    """Return the deployments that this user has at the steps of the route."""
    return frozenset([member_of(step, decision, sticky) for step in route])


def _why_not_theirs(decision: Decision, choice: UserChoice) -> PreferenceReason:
    """Return why this user has no deployment of the choice on the route."""
    for deployment, verdict in decision.verdicts:
        if deployment.name in choice.deployments and not isinstance(verdict, Step):
            return _WHY_SKIPPED[verdict.reason]
        if deployment.name in choice.deployments:
            break  # it is for other users
    return PreferenceReason.ROUTE


def _why_not(
    decision: Decision, own: list[RouteStep], choice: UserChoice, sticky: Callable[[], bytes] | None
) -> PreferenceReason | None:
    """Return why the first deployment of the choice on the route is not in the plan. None if it is."""
    first = member_of(own[0], decision, sticky)
    for deployment, verdict in decision.verdicts:
        if deployment.name == first:
            return None if isinstance(verdict, Step) else _WHY_SKIPPED[verdict.reason]
    return PreferenceReason.ROUTE


def availability(
    choice: UserChoice,
    route: Route,
    reasons: Mapping[str, SkipReason | None],
    theirs: frozenset[str | None] | None = None,
) -> tuple[str | None, PreferenceReason | None]:
    """Return the first deployment of a choice that the law allows here; else the first one on the route, and why not.

    `reasons` has by deployment why it is skipped, or None. `theirs` are the deployments that this user has at the steps
    of the route, or None if the user is unknown.
    """
    named = [it.name for it in deployments_of(route) if it.name in choice.deployments]
    own = [name for name in named if theirs is None or name in theirs]
    for name in own:
        if reasons.get(name) not in _LASTING:
            return name, None
    if not named:
        return None, PreferenceReason.ROUTE
    first = (own or named)[0]
    reason = reasons[first]
    if reason is None:
        return first, PreferenceReason.ROUTE  # it is for other users
    return first, _WHY_SKIPPED[reason] if reason in _LASTING else None
