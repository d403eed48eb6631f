"""Where the gateway stands, and the regions that it serves: the shape of `cell` and `regions`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.config.scalars import Name, Words
from gateway.config.sections.base import Section
from gateway.config.sections.speech import Labels, ProfileSection, RefusalsSection

__all__ = ["CellSection", "RegionSection"]


class CellSection(Section):
    """This installation of the gateway."""

    territory: str = Field(description="Where the gateway itself runs: an ISO 3166 code such as DE.")
    serves: Words | None = Field(None, description="The regions that it serves; all of them if left out.")
    homes: dict[Name, str] = Field(
        {}, description="For a region that it doesn't serve: the https URL of the cell that does."
    )


class RegionSection(Section):
    """Territories under one policy."""

    territories: Words = Field(
        description='Whose people it answers: ISO 3166 codes, groups such as "@EEA", or "*" for everywhere else.'
    )
    boundary: Words = Field(
        description='Where their prompts may be stored and processed: codes, groups, "*", exclusions such as "!CN".'
    )
    transit: Words | None = Field(
        None, description="The cell's own territory, where it lies outside the boundary and is accepted."
    )
    approvals: Literal["none", "required"] = Field(
        "none", description="required: only a deployment with an approval for this region that is valid now may answer."
    )
    labels: Labels = Field(
        [], description="What is said on its answers: cn-gb45438, eu-art50, … or labels of your own."
    )
    profile: ProfileSection | None = Field(None, description="How an assistant speaks to its people.")
    refusals: RefusalsSection | None = Field(None, description="What they are told where nobody answers.")
    protected: bool = Field(
        False, description="true: changes only with the signature of one of `admin_keys` on the plan of the change."
    )
    log_prompts: bool = Field(
        False, description="true: the text of its requests goes to the log; the gateway must stand inside the boundary."
    )
