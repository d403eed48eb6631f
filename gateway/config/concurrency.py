"""How much at once, and whom beside whom: what deployments and assistants say of load, compiled."""

from __future__ import annotations

from gateway.config.findings import Findings
from gateway.config.problems import Path
from gateway.config.scalars import seconds
from gateway.config.sections.routing import ConcurrencySection, HedgeSection
from gateway.model.deployment import Concurrency
from gateway.model.table import Hedge

__all__ = ["compile_concurrency", "compile_hedge"]


def compile_concurrency(findings: Findings, path: Path, section: ConcurrencySection | None) -> Concurrency | None:
    """The bound of one deployment; None is none."""
    if section is None:
        return None
    given = section.model_fields_set
    if not section.adaptive:
        if section.limit is None:
            findings.error(path, "bounds nothing", "give it a `limit`, or `adaptive: true`")
        for name in sorted({"min", "max"} & given):
            findings.error((*path, name), "belongs to `adaptive: true`", "remove it, or let the limit adapt")
        return Concurrency(section.limit or 1, section.queue, seconds(section.wait))
    if section.limit is not None:
        findings.error((*path, "limit"), "an adaptive limit has `min` and `max`", "remove `limit`, or `adaptive`")
    if section.min > section.max:
        findings.error((*path, "min"), f"is more than `max` ({section.max})", "it must be at most that")
    return Concurrency(section.max, section.queue, seconds(section.wait), least=min(section.min, section.max))


def compile_hedge(section: HedgeSection | None) -> Hedge | None:
    """When a second attempt is made; None is never."""
    if section is None:
        return None
    if section.after.startswith("p"):
        return Hedge(share=int(section.after[1:]) / 100)
    return Hedge(after_s=seconds(section.after))
