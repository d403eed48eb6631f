"""Compile the shadows of an assistant (`assistants.X.shadow`)."""

from __future__ import annotations

from pydantic import Field

from gateway.config.approvals import warn_if_unapproved
from gateway.config.feature_compiler import AssistantScope, FeatureCompiler
from gateway.config.field_types import Name, Section
from gateway.config.problems import KeyPath, quoted
from gateway.config.regions import boundary_fix, is_cell_inside, outside_boundary
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.routing import AssistantSection
from gateway.config.validation import check_reference
from gateway.features.shadow.model import Shadow
from gateway.model.assistant import Assistant
from gateway.model.units import Share
from providers.value import replace


class ShadowSection(Section):
    """A deployment that also receives a share of the answered requests. Clients never see its answers."""

    deployment: str = Field(description="The deployment that receives the copies.")
    share: Share = Field("1%", validate_default=True, description="The share of the requests.")
    keep_text: bool = Field(
        False,
        description="true: prompts, its answers and the clients' answers are stored. The cell must run inside the "
        "boundary of the region.",
    )


SHADOW_KEY = FeatureKey(
    "assistants",
    "shadow",
    dict[Name, ShadowSection],
    Field(
        {},
        description="For each region, a deployment that receives a copy of a share of the requests after the answer.",
    ),
)


def _with_shadows(scope: AssistantScope, section: AssistantSection, assistant: Assistant) -> Assistant:
    """Return the assistant with its valid shadows, as parts of its routes."""
    parts = dict(assistant.route_parts)
    for region, shadow in section.written("shadow").items():
        path: KeyPath = ("assistants", assistant.name, "shadow", region)
        has_route = scope.has_route(path, section, assistant.name, region)
        if has_route and (valid := _shadow(scope, path, region, shadow)) is not None:
            parts[region] = assistant.parts_in(region).having(valid)
    return replace(assistant, route_parts=parts)


def _shadow(scope: AssistantScope, path: KeyPath, name: str, section: ShadowSection) -> Shadow | None:
    draft, at = scope.draft, (*path, "deployment")
    region, deployment = scope.regions.by_name.get(name), scope.deployments.get(section.deployment)
    check_reference(draft, at, "deployments", section.deployment)
    if region is None or deployment is None:
        return None
    if not deployment.within(region.boundary):
        draft.error(at, outside_boundary(region, deployment), boundary_fix(region, scope.deployments))
    warn_if_unapproved(draft, at, deployment, region, scope.days)
    if deployment.consent is not None:
        message = "requires consent, which shadow traffic never has: it is skipped here"
        hint = "use a deployment without `consent`, or remove the shadow"
        draft.warn(at, f"{quoted(deployment.name)} {message}", hint)
    if region.transit.included:
        message = f"{quoted(name)} has `transit`, so that no result may be kept here: it is skipped"
        draft.warn(path, message, "remove the shadow")
    if section.keep_text and not is_cell_inside(scope.regions.cell, region.boundary):
        draft.error(
            (*path, "keep_text"),
            "the gateway stores the text where it runs, "
            f"which is not known to be inside the boundary ({region.boundary})",
            "set `cell: {territory: …}`, or remove this key",
        )
    return Shadow(deployment, section.share, section.keep_text)


SHADOW_COMPILER = FeatureCompiler(
    name="shadow",
    keys=(SHADOW_KEY,),
    of_draft=None,
    of_region=None,
    of_deployment=None,
    of_assistant=_with_shadows,
    of_config=None,
    check=None,
)
