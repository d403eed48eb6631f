"""Compile `regions.X.moderation`: judges inside the boundary."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.problems import KeyPath, quoted
from gateway.config.regions import Regions, boundary_fix, outside_boundary
from gateway.config.validation import Draft, Findings, check_reference
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.moderation import Moderation


def compile_moderation(
    draft: Draft, findings: Findings, regions: Regions, deployments: Mapping[str, Deployment]
) -> dict[str, Moderation]:
    """Return the moderation of each region that has one."""
    compiled: dict[str, Moderation] = {}
    for name, region in draft.config.regions.items():
        section = region.moderation
        if section is None:
            continue
        path: KeyPath = ("regions", name, "moderation")
        lists: dict[str, tuple[Deployment, ...]] = {}
        for direction, names in (("input", section.input), ("output", section.output)):
            judges: list[Deployment] = []
            for index, judge in enumerate(names):
                at = (*path, direction, index)
                check_reference(draft, findings, at, "deployments", judge)
                deployment = deployments.get(judge)
                if deployment is None:
                    continue
                if moderations_of(deployment) is None:
                    hint = "use OpenAI's moderation model, a server of your own with /moderations, or a guard model"
                    findings.error(at, f"{quoted(judge)} classifies no content", hint)
                    continue
                compiled_region = regions.by_name.get(name)
                if compiled_region is not None and not deployment.within(compiled_region.boundary):
                    hint = boundary_fix(compiled_region, deployments)
                    findings.error(at, outside_boundary(compiled_region, deployment), hint)
                judges.append(deployment)
            lists[direction] = tuple(judges)
        if not section.input and not section.output:
            findings.error(path, "names no deployment", "add `input`, `output` or both, or remove it")
        if section.hold_chars < section.window_chars:
            message = f"must not be below `window_chars` ({section.window_chars})"
            findings.error((*path, "hold_chars"), message, "use a larger number")
        compiled[name] = Moderation(
            lists["input"],
            lists["output"],
            section.on_failure,
            section.controversial == "pass",
            section.window_chars,
            section.hold_chars,
            section.media == "pass",
        )
    return compiled
