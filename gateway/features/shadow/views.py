"""Show the shadows of a configuration, and the shadow of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gateway.features.shadow.model import Shadow
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.record import AttemptRecord, FeatureNote
from gateway.policy.feature_view import FeatureView, nothing
from providers.value import Value


def _recipients(assistant: Assistant, region: str) -> Iterator[tuple[tuple[str | int, ...], Deployment]]:
    if (shadow := assistant.parts_in(region).of(Shadow)) is not None:
        yield ("assistants", assistant.name, "shadow", region, "deployment"), shadow.deployment


def _report(assistant: Assistant, region: str) -> Iterator[str | Deployment]:
    if (shadow := assistant.parts_in(region).of(Shadow)) is not None:
        kept = "; prompts, its answers and the answers to the clients are kept" if shadow.keep_text else ""
        yield f"shadow of {shadow.share * 100:.3g}% of the requests{kept}"
        yield shadow.deployment


def _plan_words(assistant: Assistant, region: str) -> Iterator[str]:
    if (shadow := assistant.parts_in(region).of(Shadow)) is not None:
        yield f"shadow {shadow.deployment.name}: {shadow.share * 100:.6g}%{', texts kept' if shadow.keep_text else ''}"


def _off_without_state(config: ConfigVersion) -> Iterator[tuple[str, str]]:
    if any(parts.of(Shadow) for it in config.assistants.values() for parts in it.route_parts.values()):
        yield "shadows_off", "shadows need GATEWAY_STATE_DIR: no request is sent to one"


class ShadowNote(FeatureNote, Value, frozen=True):
    """The attempt on the route's shadow, which begins after the request ends. Its outcome is not known yet."""

    attempt: AttemptRecord

    def log_fields(self) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"shadow": self.attempt.deployment}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"shadow": recipient(self.attempt)}


SHADOW_VIEW = FeatureView(
    recipients=_recipients,
    report_region=nothing,
    report_route=_report,
    plan_names={},
    plan_words=_plan_words,
    off_without_state=_off_without_state,
    explain=nothing,
    receipt=("shadow",),
    receipt_recipients=("shadow",),
)
