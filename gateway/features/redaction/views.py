"""Show the redactions of a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.features.redaction.wrapper import Redaction
from gateway.model.assistant import Assistant
from gateway.model.config_version import Region
from gateway.model.wrapper import InClear
from gateway.policy.feature_view import FeatureView, nothing


def _report(region: Region) -> Iterator[tuple[str, str]]:
    if (wrapper := region.parts.of(Redaction)) is not None:
        yield "redaction", str(wrapper)


def _barriers(assistant: Assistant, region: str) -> Iterator[tuple[str, Redaction]]:
    for view in assistant.views:
        barrier = view.barriers.get(region)
        if barrier is not None and isinstance(barrier.wrapper, Redaction):
            yield view.intent, barrier.wrapper


def _plan_words(assistant: Assistant, region: str) -> Iterator[str]:
    for intent, wrapper in _barriers(assistant, region):
        yield f"redaction after the barrier ({intent}): {wrapper} [{wrapper.rules.digest.hex()[:6]}]"


REDACTION_VIEW = FeatureView(
    recipients=nothing,
    report_region=_report,
    report_route=nothing,
    plan_names={Redaction: "redaction", InClear: "redact: false"},
    plan_words=_plan_words,
    off_without_state=nothing,
    explain=nothing,
    receipt=(),
    receipt_recipients=(),
)
