"""The documents about decisions for operators: one request explained, and who answers in each territory."""

from __future__ import annotations

from typing import NamedTuple

from gateway.api.admin_control import unavailable_by_deployment, unavailable_everywhere
from gateway.api.errors import ApiError
from gateway.api.public_routes import named_assistant
from gateway.execution.failure_observations import Asker, asker_of
from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.location import Reports
from gateway.model.served import Use
from gateway.model.status import Status
from gateway.policy.territory_answers import answers_of, territories_of
from gateway.service.assistants import AssistantNotFound, assistants_of
from gateway.service.explain import PlainRequest, explain_text, explain_with_facts, reports_from, why_not_supposed
from providers.json_values import as_map
from providers.territories import TerritoryError


class Wishes(NamedTuple):
    """The wishes of a request: the intent of a chat, a choice, the age band that a claim names, and the use."""

    intent: str | None = None
    prefer: str | None = None
    age_band: str | None = None
    use: Use = "chat"


NO_WISHES = Wishes()


def supposed_request(
    status: Status,
    assistant: str | None,
    territory: str | None,
    client: str | None,
    user: str | None,
    wishes: Wishes = NO_WISHES,
) -> PlainRequest:
    """Return the request that these names describe, with the health of the running gateway. Raises ApiError."""
    config = status.config
    caller = _client(config, client)
    named = _assistant(config, caller, assistant).for_use(wishes.use)
    named = named.for_intent(wishes.intent) if wishes.intent is not None else named
    # A deployment that only some workers skip is still used by the others.
    health, reports = unavailable_everywhere(status.workers), _reports(territory, wishes.age_band)
    return PlainRequest(config, caller, reports, named, status.at_s, health, user, prefer=wishes.prefer)


def explain_document(status: Status, supposed: PlainRequest, territory: str | None) -> dict[str, object]:
    """Return how a request would be routed, as `explain` does, with who is unavailable in the running gateway."""
    config, client = supposed.config, supposed.client
    explained = explain_with_facts(supposed)
    unavailable = {
        "benched": unavailable_by_deployment(status.workers, by_breaker=False),
        "breakers": unavailable_by_deployment(status.workers, by_breaker=True),
    }
    note = {"note": text} if (text := _note(config, territory)) else {}
    return {
        **_with_uses(explained, status),
        "client": client.name if client is not None else None,
        **unavailable,
        **note,
    }


def supposed_text(supposed: PlainRequest, territory: str | None) -> str:
    """Return how a request would be routed as text."""
    note = _note(supposed.config, territory)
    return f"{explain_text(supposed)}\n" + (f"note         {note}\n" if note else "")


def _note(config: ConfigVersion, territory: str | None) -> str:
    """Return why a territory has no effect, or an empty text."""
    why_not = why_not_supposed(config, territory) if territory is not None else ""
    return f"`territory` has no effect: {why_not}" if why_not else ""


def _with_uses(explained: dict[str, object], status: Status) -> dict[str, object]:
    """Return the document with what is used of the quotas of each step of the plan."""
    outcome = as_map(explained.get("outcome"))
    plan = outcome.get("plan")
    if not status.quotas or not isinstance(plan, list):
        return explained
    uses: dict[str, list[dict[str, object]]] = {}
    for it in status.quotas:
        for name in it.deployments:
            uses.setdefault(name, []).append(it.explained())
    steps = [{**step, "quota": uses[step["deployment"]]} if step["deployment"] in uses else step for step in plan]
    return {**explained, "outcome": {**outcome, "plan": steps}}


def explained_asker(config: ConfigVersion, client: str | None, user: str | None) -> Asker:
    """Return who would ask, so that a deployment that is unavailable for them alone is skipped. Raises ApiError."""
    caller = _client(config, client)
    return asker_of(config.has_one_client, caller.name if caller is not None else None, user)


def _client(config: ConfigVersion, name: str | None) -> Client | None:
    if name is None:
        return None
    match = next((client for client in config.clients.values() if client.name == name), None)
    if match is None:
        known = ", ".join(sorted({client.name for client in config.clients.values()})) or "none"
        raise ApiError("invalid_request", f"there is no client with this name; the clients are: {known}", "client")
    return match


def _assistant(config: ConfigVersion, caller: Client | None, name: str | None) -> Assistant:
    """Return the assistant as `named_assistant` does. The error lists the names: operators have no `GET /v1/models`."""
    try:
        return named_assistant(config, caller, name)
    except AssistantNotFound as error:
        known = ", ".join(sorted({one.name for one in assistants_of(config, caller).values()}))
        hint = error.question or f"the assistants are: {known or 'none'}"
        scope = f" for the client {caller.name!r}" if caller is not None else ""
        raise ApiError("model_not_found", f"there is no assistant with this name{scope}; {hint}", "assistant") from None


def _reports(territory: str | None, age_band: str | None) -> Reports:
    try:
        return reports_from(territory, age_band) if territory is not None else Reports()
    except TerritoryError as error:
        raise ApiError("invalid_request", str(error), "territory") from None


def territories_document(config: ConfigVersion, assistant: str | None, now_s: float) -> dict[str, object]:
    """Return the regions, and for each territory its region and the deployments that would be asked, in order.

    Deployments that are unavailable at the moment are included. A territory that gets no answer has the refusal's code.
    """
    named = _assistant(config, None, assistant)
    return {
        "config_version": config.version,
        "assistant": named.name,
        "regions": [
            {
                "name": region.name,
                "territories": str(region.territories),
                "boundary": str(region.boundary),
                "approvals_required": region.approvals_required,
            }
            for region in config.regions.values()
        ],
        "blocked": str(config.blocked),
        "territories": {
            code: {"region": answer.region, "deployments": list(answer.deployments), "refusal": answer.refusal}
            for code, answer in answers_of(config, named, now_s, territories_of(config)).items()
        },
    }
