"""Decide whether a planned step may still be taken after another config version has become active.

A request plans under the version with which it began. A further attempt must be allowed by the active version too, so
that a kill switch, a narrowed boundary or a territory that has moved takes effect in the middle of a retry. The active
version is asked by the same decision function that plans.

The location of a running request is not decided again: its headers may have left out what only the active version
asks for. The request keeps its location while everything that decides one is equal in both versions, and gets no
further attempt otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from gateway.model.assistant import DEFAULT_INTENT, Use
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, Consents
from gateway.model.decision import Step
from gateway.model.location import Location
from gateway.policy.fence import still_permitted
from gateway.policy.location.resolution import location_inputs
from gateway.policy.routing import decide
from providers.matching.requirements import IDENTITY, Requirements

ConsentsUnder = Callable[[ConfigVersion, Region], Consents]
"""Return the consents of a request's user under a config version."""


class RunningRequest(msgspec.Struct, frozen=True):
    """A request that is being answered, with the config version that planned it.

    Attributes:
        assistant: The name of the assistant.
        consents: None if no deployment requires consent.
        use: The kind of the request.
        intent: The intent of a chat.
    """

    config: ConfigVersion
    assistant: str
    client: Client | None
    location: Location
    needs: Requirements
    consents: ConsentsUnder | None = None
    use: Use = "chat"
    intent: str = DEFAULT_INTENT


def why_not_now(request: RunningRequest, step: Step, active: ConfigVersion, now_s: float) -> str | None:
    """Return why the active config version does not allow this step for the request, or None if it does."""
    named = active.assistants.get(request.assistant)
    assistant = named.for_use(request.use).for_intent(request.intent) if named is not None else None
    reason = still_permitted(step.permit, active, assistant, now_s)
    is_unchanged = step.permit.config_version == active.version and request.config.clients is active.clients
    if reason is not None or is_unchanged:
        return reason
    client, location, needs = request.client, request.location, request.needs
    if active.requires_key and not request.config.requires_key:
        return "the current config requires a key, and this request has none"
    now = _client_now(active, client)
    if client is not None and (now is None or not now.may_ask(request.assistant)):
        return "the current config does not allow this client to use the assistant"
    if location.region is None or location_inputs(active, now) != location_inputs(request.config, client):
        return "the current config has other rules for the location of a caller"
    region = active.regions[location.region.name]
    agreed = request.consents(active, region) if request.consents is not None else NO_CONSENT
    if assistant is None:
        return "the current config has no such assistant"
    decision = decide(active, assistant, replace(location, region=region), needs, {}, now_s, agreed)
    # Only the verdict on this step counts. The active version may begin with another step, ask the user first, or
    # assign the user to another member of a weighted set.
    for item, verdict in decision.verdicts:
        if isinstance(verdict, Step) and item.name == step.deployment.name:
            return "the current config sends less of this request to it" if _sends_more(step, verdict, needs) else None
    details = {item.deployment: item.detail for item in decision.considered if item.reason is not None}
    return f"not allowed by the current config: {details.get(step.deployment.name) or 'the caller is refused'}"


def _sends_more(step: Step, now: Step, needs: Requirements) -> bool:
    """Return whether the planned step sends the provider something that the active version's step drops or hides."""
    if now.emulates and not step.emulates:
        return True  # the schema, for which the site gives no promise
    return not (now.dropped <= step.dropped and _named_by(step, needs) <= _named_by(now, needs))


def _named_by(step: Step, needs: Requirements) -> frozenset[str]:
    """Return the fields that identify the user to the provider as the client wrote them."""
    fields = needs.parameters & IDENTITY - step.dropped
    return fields if step.deployment.identity == "pass" else fields & step.deployment.target.passthrough


def _client_now(active: ConfigVersion, client: Client | None) -> Client | None:
    """Return the same client by the same key, or None if the key was revoked or now belongs to another client."""
    if client is None:
        return None
    now = active.clients.get(client.key_hash)
    return now if now is not None and now.name == client.name else None
