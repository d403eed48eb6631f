"""The shape of `regions.X.use` and of `use` in an age band."""

from __future__ import annotations

from pydantic import Field

from gateway.config.field_types import Section, TimeZone
from gateway.model.units import LifetimeSeconds


class UseSection(Section):
    """How the time of a region's users is counted."""

    gap: LifetimeSeconds = Field(
        1800.0, description="A chat that arrives so long after the last one begins a new session: 5m to 12h."
    )
    timezone: TimeZone | None = Field(None, description="The time zone of days. Required where a band limits the day.")


class UseLimitsSection(Section):
    """How long the users of a band may chat."""

    session: LifetimeSeconds | None = Field(None, description="The longest session: 1m to 24h. Default: no limit.")
    day: LifetimeSeconds | None = Field(
        None, description="The longest time of a calendar day: 1m to 24h. Default: no limit."
    )
