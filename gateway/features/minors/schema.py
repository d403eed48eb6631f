"""The shape of `regions.X.age_bands`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.config.field_types import Name, Section, TimeZone
from gateway.features.duties.schema import UseLimitsSection
from gateway.model.units import DailyHours, LifetimeSeconds


class AgeBandSection(Section):
    """The rules for users of one age."""

    refuse: bool = Field(False, description="true: no request is answered.")
    tools: bool = Field(True, description="false: requests with tools are refused.")
    choices: bool = Field(True, description="false: the user's preferred choice has no effect.")
    hand_off: bool = Field(True, description="false: the barrier of a route (`hand_off`) stays closed.")
    intent: Name | None = Field(None, description="The intent of each chat. Default: that of the request.")
    instructions: Annotated[str, Field(min_length=1, max_length=4000)] | None = Field(
        None, description="Instructions for the model, in a system message after the region's profile."
    )
    hours: DailyHours | None = Field(
        None, description="The daily hours in which requests are answered. They may go over midnight. Default: all."
    )
    timezone: TimeZone | None = Field(None, description="The time zone of `hours`.")
    use: UseLimitsSection | None = Field(None, description="How long its users may chat. Default: no limit.")
    repeat: LifetimeSeconds | None = Field(
        None, description="Its users see the label with `repeat` again after so long: 10m or more. Default: as all."
    )
