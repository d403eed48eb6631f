"""The disclosure that an app must show to its user.

It lists the deployments that may answer, the public names and numbers of their valid approvals, and the text of the
region's labels.
"""

from __future__ import annotations

from gateway.features.redaction.model import kinds_of
from gateway.model.approval import Approval, Days, days_at
from gateway.model.config_version import Region
from gateway.model.decision import Refusal, RefusalCode, Refused, SkipReason, Step, Verdict
from gateway.model.deployment import Deployment
from gateway.model.region_text import NO_PREFERENCES
from gateway.policy.fence import redaction_of
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
    assistant, now_s = request.assistant, request.now_s
    location = resolve(request.config, request.client, request.reports)
    decision = decide(request.config, assistant, location, NO_NEEDS, request.health, now_s)
    outcome, region, verdicts = decision.outcome, location.region, decision.verdicts
    after, after_barrier = None, verdicts[:0]
    if region is not None and verdicts and (barrier := assistant.barriers.get(region.name)) is not None:
        after = assistant.behind(region.name, every_hand_off(barrier.rule)[0])
        after_barrier = decide(request.config, after, location, NO_NEEDS, request.health, now_s).verdicts
        verdicts += after_barrier
    may_answer = [item for item, verdict in verdicts if _may_answer(verdict)]
    rules = {item.name: redaction_of(request.config, region, item) for item, _ in verdicts if region is not None}
    if region is not None and after is not None:
        behind = {item.name for item, _ in after_barrier}
        rules |= {
            it.name: redaction_of(request.config, region, it, after.redaction) for it in may_answer if it.name in behind
        }
    if isinstance(outcome, Refusal) and outcome.code is not RefusalCode.CONSENT_REQUIRED and not may_answer:
        raise Refused(outcome)
    days = days_at(now_s)
    return {
        "object": "disclosure",
        "assistant": assistant.name,
        "region": region.name if region is not None else "",
        "labels": _labels(region, accept_language),
        "data": [
            _deployment(item, region, days, reveal_model=assistant.reveal_model)
            | {"redacts": kinds_of(rules.get(item.name))}
            for item in may_answer
        ],
    }


def _labels(region: Region | None, accept_language: str | None) -> list[dict[str, object]]:
    if region is None or region.texts is None:
        return []
    locale = choose_locale(region.texts, accept_language, NO_PREFERENCES)
    return labels_of(locale)


def _may_answer(verdict: Verdict) -> bool:
    return isinstance(verdict, Step) or verdict[0] is SkipReason.CONSENT


def _deployment(deployment: Deployment, region: Region | None, days: Days, *, reveal_model: bool) -> dict[str, object]:
    name = region.name if region is not None else ""
    valid = [approval for approval in deployment.approvals if approval.region == name and approval.counts_on(days)]
    return {
        "deployment": deployment.name,
        "model": deployment.model if reveal_model else None,
        "model_name": valid[0].model_name if valid else None,
        "approvals": [_approval(approval) for approval in valid],
        "consent": consent_of(deployment),
    }


def _approval(approval: Approval) -> dict[str, object]:
    return {
        "authority": approval.authority,
        "kind": approval.kind,
        "number": approval.number,
        "model_name": approval.model_name,
        "document": approval.document,
    }
