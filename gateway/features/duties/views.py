"""Show the rules for the time of users, and what a request met of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from gateway.features.duties.model import UseRule, UseRules
from gateway.model.age import AgeRules
from gateway.model.config_version import Region
from gateway.model.location import Location
from gateway.model.record import AttemptRecord, FeatureNote
from gateway.policy.feature_view import FeatureView, nothing


def _span(seconds: float) -> str:
    """Return a time as the file writes it: 90m, 2h."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def _report(region: Region) -> Iterator[tuple[str, str]]:
    rules, ages = region.parts.of(UseRules), region.parts.of(AgeRules)
    if rules is None:
        return
    bands = ages.bands if ages is not None else ()
    limits = [
        f"{band.name} {' and '.join(f'{_span(limit)} a {name}' for name, limit in band.use.data().items())}"
        for band in bands
        if band.use is not None
    ]
    of_days = f", days of {rules.timezone}"
    yield (
        "time of use",
        f"{'; '.join(limits) or 'no limits'} (a session ends after a pause of {_span(rules.gap_s)}{of_days})",
    )
    if rules.repeat_s is not None:
        of_bands = [f"{band.name} each {_span(band.repeat_s)}" for band in bands if band.repeat_s is not None]
        yield "notices", "; ".join([f"again each {_span(rules.repeat_s)} of a session", *of_bands])


def _explain(location: Location) -> Iterator[tuple[str, object, str]]:
    if location.age is not None and location.age.use is not None:
        limits = location.age.use.data()
        yield "use_limit", limits, ", ".join(f"{_span(limit)} a {name}" for name, limit in limits.items())


class UseNote(FeatureNote, msgspec.Struct):
    """What a chat met of the time of its user.

    Attributes:
        use_limit: The limit that refused the chat, or None.
        use: The time of the user and its limits, in seconds, for a header. None: it is not shown.
    """

    use_limit: UseRule | None = None
    use: str | None = None

    def header_lines(self) -> Iterator[bytes]:
        """See `FeatureNote`."""
        if self.use is not None:
            yield f"x-gateway-use: {self.use}".encode()

    def log_fields(self) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"use_limit": self.use_limit}

    def receipt_members(self, _recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"use_limit": self.use_limit}


DUTIES_VIEW = FeatureView(
    recipients=nothing,
    report_region=_report,
    report_route=nothing,
    plan_names={UseRules: "time of use"},
    plan_words=nothing,
    off_without_state=nothing,
    explain=_explain,
    receipt=("use_limit",),
    receipt_recipients=(),
)
