"""The face of a feature in the compiler of the configuration, which asks every feature in order.

No field has a default, so that a feature states what it has not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.config.deployments import DeploymentPart
from gateway.config.problems import KeyPath, quoted
from gateway.config.regions import RegionPart, Regions
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.routing import AssistantSection
from gateway.config.validation import Draft
from gateway.model.approval import Days
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment


@dataclass(slots=True)
class AssistantScope:
    """The parts of a draft with which an assistant is compiled."""

    draft: Draft
    regions: Regions
    deployments: Mapping[str, Deployment]
    days: Days

    def has_route(self, path: KeyPath, section: AssistantSection, name: str, region: str) -> bool:
        """Return whether the assistant has a route in the region. Report an error at `path` if not."""
        # An assistant without any route is an error itself.
        draft = self.draft
        is_broken = draft.is_broken("assistants", name) or draft.is_broken("assistants", name, "routes", region)
        if section.routes and region not in section.routes and not is_broken:
            hint = f"there are: {', '.join(section.routes)}"
            self.draft.error(path, f"the assistant has no route for {quoted(region)}", hint)
        return region in section.routes


@dataclass(frozen=True, slots=True, eq=False)
class FeatureCompiler:
    """The parts of a configuration that one feature compiles.

    `of_draft` compiles a section before all others, and keeps the result in the draft. The other functions return a
    compiled value with the values of the feature. `check` reports mistakes that only the whole configuration shows.
    """

    name: str
    keys: tuple[FeatureKey, ...]
    of_draft: Callable[[Draft], None] | None
    of_region: RegionPart | None
    of_deployment: DeploymentPart | None
    of_assistant: Callable[[AssistantScope, AssistantSection, Assistant], Assistant] | None
    of_config: Callable[[Draft], object | None] | None
    check: Callable[[Draft, ConfigVersion], None] | None
