"""What an operator says of how one server speaks, where it differs from others that speak the same dialect."""

from __future__ import annotations

from dataclasses import replace

from gateway.config.findings import Findings
from gateway.config.problems import Path
from gateway.config.sections.routing import DeploymentSection
from providers.adapter import STREAM_OPTIONS, Adapter, AsksForUsage
from providers.catalogue.models import ModelFacts

__all__ = ["as_spoken"]


def as_spoken(
    findings: Findings, path: Path, section: DeploymentSection, adapter: Adapter, facts: ModelFacts
) -> ModelFacts:
    """The facts of the model as this server gives it."""
    if section.stream_options:
        return facts
    if not isinstance(adapter, AsksForUsage) or not adapter.asks_for_usage:
        findings.warn((*path, STREAM_OPTIONS), f"{section.provider} is never sent this field", "remove it")
        return facts
    return replace(facts, without=facts.without | {STREAM_OPTIONS})
