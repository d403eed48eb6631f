"""Compile `regions.X.moderation`, and check judges: they classify content inside the boundary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from gateway.config.problems import KeyPath, quoted
from gateway.config.regions import Regions, boundary_fix, outside_boundary
from gateway.config.validation import Draft, check_reference
from gateway.model.config_version import Region
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.moderation import Moderation
from gateway.model.section import members_of

RegionJudges: TypeAlias = Mapping[str, tuple[tuple[KeyPath, Deployment], ...]]
"""All judges of each region that has some, each with the path of the key that names it."""


def compile_moderation(draft: Draft, regions: Regions, deployments: Mapping[str, Deployment]) -> dict[str, Moderation]:
    """Return the moderation of each region that has one."""
    compiled: dict[str, Moderation] = {}
    for name, region in draft.config.regions.items():
        section = region.moderation
        if section is None:
            continue
        path: KeyPath = ("regions", name, "moderation")
        lists: dict[str, tuple[Deployment, ...]] = {}
        for direction, names in (("input", section.input_names), ("output", section.output_names)):
            judges: list[Deployment] = []
            for index, judge in enumerate(names):
                at = (*path, direction, index)
                valid = check_judge(draft, at, judge, regions.by_name.get(name), deployments)
                judges += [valid] if valid is not None else []
            lists[direction] = tuple(judges)
        if not section.input_names and not section.output_names:
            draft.error(path, "names no deployment", "add `input`, `output` or both, or remove it")
        if section.hold_chars < section.window_chars:
            message = f"must not be below `window_chars` ({section.window_chars})"
            draft.error((*path, "hold_chars"), message, "use a larger number")
        parts = regions.by_name[name].parts.every if name in regions.by_name else ()
        forbidden = frozenset().union(*(part.forbidden_claims() for part in parts))
        compiled[name] = Moderation(
            **members_of(section), input=lists["input"], output=lists["output"], forbidden=forbidden
        )
    return compiled


def check_judge(
    draft: Draft, at: KeyPath, judge: str, region: Region | None, deployments: Mapping[str, Deployment]
) -> Deployment | None:
    """Return the deployment with this name if it classifies content. Report an error at `at` for one that may not."""
    check_reference(draft, at, "deployments", judge)
    deployment = deployments.get(judge)
    if deployment is None:
        return None
    if moderations_of(deployment) is None:
        hint = "use OpenAI's moderation model, a server of your own with /moderations, or a guard model"
        draft.error(at, f"{quoted(judge)} classifies no content", hint)
        return None
    if region is not None and not deployment.within(region.boundary):
        judges = {name: one for name, one in deployments.items() if moderations_of(one) is not None}
        draft.error(at, outside_boundary(region, deployment), boundary_fix(region, judges))
    return deployment


def judges_of_regions(
    regions: Regions, moderation: Mapping[str, Moderation], deployments: Mapping[str, Deployment]
) -> RegionJudges:
    """Return all judges of each region that has some."""
    judges: dict[str, tuple[tuple[KeyPath, Deployment], ...]] = {}
    for name in {**regions.by_name, **moderation}:
        found: list[tuple[KeyPath, Deployment]] = []
        if (policy := moderation.get(name)) is not None:
            for direction, listed in (("input", policy.input), ("output", policy.output)):
                found += [(("regions", name, "moderation", direction, at), it) for at, it in enumerate(listed)]
        region = regions.by_name.get(name)
        for part in region.parts.every if region is not None else ():
            key, names = part.judging()
            judging = [(at, judge) for at, judge in enumerate(names) if judge in deployments]
            found += [(("regions", name, key, "judges", at), deployments[judge]) for at, judge in judging]
        if found:
            judges[name] = tuple(found)
    return judges
