"""Show the redactions of a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.features.redaction.model import RedactionRules
from gateway.model.assistant import Assistant
from gateway.model.config_version import Region
from gateway.policy.feature_view import FeatureView, nothing


def _report(region: Region) -> Iterator[tuple[str, str]]:
    if region.redaction is not None:
        yield "redaction", str(region.redaction)


def _barriers(assistant: Assistant, region: str) -> Iterator[tuple[str, RedactionRules]]:
    for view in assistant.views:
        barrier = view.barriers.get(region)
        if barrier is not None and barrier.redaction is not None:
            yield view.intent, barrier.redaction


def _plan_words(assistant: Assistant, region: str) -> Iterator[str]:
    for intent, rules in _barriers(assistant, region):
        yield f"redaction after the barrier ({intent}): {rules} [{rules.digest.hex()[:6]}]"


REDACTION_VIEW = FeatureView(
    recipients=nothing,
    report_region=_report,
    report_route=nothing,
    plan_names={"redaction": "redaction", "in_clear": "redact: false"},
    plan_words=_plan_words,
    off_without_state=nothing,
    explain=nothing,
    receipt=(),
    receipt_recipients=(),
)
