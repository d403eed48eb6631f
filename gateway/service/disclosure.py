"""The disclosure that an app must show to its user.

It lists the deployments that may answer, the public names and numbers of their valid approvals, and the text of the
region's labels.
"""

from __future__ import annotations

from gateway.model.approval import Approval, days_at
from gateway.model.config_version import Region
from gateway.model.decision import Refusal, RefusalCode, Refused, SkipReason, Step
from gateway.model.deployment import Deployment
from gateway.model.region_text import NO_PREFERENCES
from gateway.model.wrapper import kinds_of
from gateway.policy.fence import wrapper_of
from gateway.policy.hand_off import every_hand_off
from gateway.policy.location.resolution import resolve
from gateway.policy.region_text import choose_locale
from gateway.policy.routing import decide
from gateway.policy.territory_answers import NO_NEEDS
from gateway.service.explain import PlainRequest, consent_of, labels_of


def disclose(request: PlainRequest, accept_language: str | None = None) -> dict[str, object]:
    """Return each deployment that may answer a request now, in order; raises Refused if none may.

    Deployments that need the user's consent are included: an app must show them before it asks for consent.
    """
    config, assistant, now_s = request.config, request.assistant, request.now_s
    location = resolve(config, request.client, request.reports)
    decision = decide(config, assistant, location, NO_NEEDS, request.health, now_s)
    outcome, region, sides = decision.outcome, location.region, [(assistant, decision)]
    barrier = assistant.barriers.get(region.name) if region is not None and location.may_hand_off else None
    if region is not None and decision.verdicts and barrier is not None:
        after = assistant.behind(region.name, every_hand_off(barrier.rule)[0])
        sides.append((after, decide(config, after, location, NO_NEEDS, request.health, now_s)))
    may_answer = [
        (item, wrapper_of(config, region, item, view.wrapper) if region is not None else None)
        for view, one in sides
        for item, verdict in one.verdicts
        if isinstance(verdict, Step) or verdict[0] is SkipReason.CONSENT
    ]
    if isinstance(outcome, Refusal) and outcome.code is not RefusalCode.CONSENT_REQUIRED and not may_answer:
        raise Refused(outcome)
    return {
        "object": "disclosure",
        "assistant": assistant.name,
        "region": region.name if region is not None else "",
        "labels": _labels(region, accept_language),
        "data": [
            _deployment(item, region, now_s, reveal_model=assistant.reveal_model) | {"redacts": kinds_of(rules)}
            for item, rules in may_answer
        ],
    }


def _labels(region: Region | None, accept_language: str | None) -> list[dict[str, object]]:
    if region is None or region.texts is None:
        return []
    locale = choose_locale(region.texts, accept_language, NO_PREFERENCES)
    return labels_of(locale)


def _deployment(offered: Deployment, region: Region | None, now_s: float, *, reveal_model: bool) -> dict[str, object]:
    name, days = region.name if region is not None else "", days_at(now_s)
    valid = [approval for approval in offered.approvals_on(days, name) if name and approval.counts_on(days)]
    return {
        "deployment": offered.name,
        "model": offered.model if reveal_model else None,
        "redirected_to": offered.redirected_to(now_s) if reveal_model else None,
        "model_name": valid[0].model_name if valid else None,
        "approvals": [_approval(approval) for approval in valid],
        "consent": consent_of(offered),
    }


def _approval(approval: Approval) -> dict[str, object]:
    return {
        "authority": approval.authority,
        "kind": approval.kind,
        "number": approval.number,
        "model_name": approval.model_name,
        "document": approval.document,
    }
