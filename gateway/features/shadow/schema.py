"""The shape of `assistants.X.shadow`."""

from __future__ import annotations

from pydantic import Field

from gateway.config.field_types import Section
from gateway.model.units import Share


class ShadowSection(Section):
    """A deployment that also receives a share of the answered requests. Clients never see its answers."""

    deployment: str = Field(description="The deployment that receives the copies.")
    share: Share = Field("1%", validate_default=True, description="The share of the requests.")
    keep_text: bool = Field(
        False,
        description="true: prompts, its answers and the clients' answers are stored. The cell must run inside the "
        "boundary of the region.",
    )
