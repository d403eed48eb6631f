"""Whether a step that was planned by one table may still be taken once another table is the active one.

A request plans by the table that it began with. A new attempt must be allowed by the current one too, so that a kill
switch, a narrowed boundary or a territory that has moved takes effect in the middle of a retry. The current table is
asked by the same decision that plans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, Consents
from gateway.model.decision import Step
from gateway.model.edge import LocationRules
from gateway.model.location import Location
from gateway.policy.fence import still_permitted
from gateway.policy.location import resolve_again
from gateway.policy.parts import blocked_among
from gateway.policy.routing import decide
from providers.needs import IDENTITY, Needs

ConsentsUnder = Callable[[ConfigVersion, Region], Consents]
"""What a request's person has agreed to, as a table has it."""


def why_not_now(
    step: Step,
    current: ConfigVersion,
    assistant: str,
    client: Client | None,
    location: Location,
    needs: Needs,
    now_s: float,
    consents: ConsentsUnder | None = None,
    planned: ConfigVersion | None = None,
    same_edge: bool | None = None,
) -> str | None:
    """None if the current table lets this step be taken now for that caller and request, else why not.

    planned: the table that made the step, where it may have believed other signals and asked for no key. same_edge: see
    `LocationRules.believes`.
    """
    reason = still_permitted(step.permit, current, assistant, now_s)
    if reason is not None or step.permit.table == current.version:
        return reason
    planned = planned or current
    if current.clients and not planned.clients:
        return "the current config asks for a key, and the caller had none to show"
    now = _client_now(current, client)
    if client is not None and (now is None or not now.may_ask(assistant)):
        return "the current config doesn't let this client ask"
    place = _place_now(current, location, now, planned.location, same_edge)
    region = place.region if place is not None else None
    if place is None or region is None or region.name != step.permit.region:
        return "the current config has the caller in another region, or in none"
    found = current.assistants[assistant]
    agreed = NO_CONSENT
    if consents is not None:
        agreed = _still_agreed(consents(current, region), current, now, planned.location)
    decision = decide(current, found, place, needs, {}, now_s, consents=agreed)
    # What the table thinks of this step, even where it would begin with another, ask the person something first, or has
    # another member of a weighted set for this person by now.
    for item, verdict in decision.judged:
        if isinstance(verdict, Step) and item.name == step.deployment.name:
            return "the current config sends it less of this request" if _sends_more(step, verdict, needs) else None
    told = {item.deployment: item.detail for item in decision.considered if item.reason is not None}
    return f"not by the current config: {told.get(step.deployment.name) or 'the caller is refused'}"


def _sends_more(step: Step, now: Step, needs: Needs) -> bool:
    """Whether a step as it was planned tells the provider what the current table's takes out, or hides."""
    return not (now.dropped <= step.dropped and _named_by(step, needs) <= _named_by(now, needs))


def _named_by(step: Step, needs: Needs) -> frozenset[str]:
    """The fields that tell its provider who asks, in the client's own words."""
    told = needs.parameters & IDENTITY - step.dropped
    return told if step.deployment.identity == "pass" else told & step.deployment.target.passthrough


def _client_now(current: ConfigVersion, client: Client | None) -> Client | None:
    """The same client, by the same key: one that was revoked opens nothing any more."""
    if client is None:
        return None
    now = current.clients.get(client.key_hash)
    return now if now is not None and now.name == client.name else None


def _still_agreed(agreed: Consents, current: ConfigVersion, client: Client | None, heard_by: LocationRules) -> Consents:
    """Without the word of those whom the current table doesn't let speak for the person any more."""
    asserted = agreed.asserted and client is not None and "consent" in client.may_assert
    believed = current.location.believes("claim", heard_by)
    standing = agreed.standing if believed else frozenset[str]()
    return replace(agreed, standing=standing, asserted=asserted)


def _place_now(
    current: ConfigVersion, location: Location, client: Client | None, heard_by: LocationRules, same_edge: bool | None
) -> Location | None:
    """Where the current table has a caller of whom no more is known than the location says; None where nowhere."""
    if blocked_among(current, location.evidence) is not None:
        return None
    again = resolve_again(current, client, location, heard_by, same_edge)
    return replace(again, preferences=location.preferences)
