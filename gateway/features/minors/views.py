"""Show the rules of a region for minors."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.age import AgeRules
from gateway.model.config_version import Region
from gateway.model.location import Location
from gateway.policy.feature_view import FeatureView, nothing


def _report(region: Region) -> Iterator[tuple[str, str]]:
    if (ages := region.parts.of(AgeRules)) is not None:
        missing = ages.missing
        others = "adults" if missing is None else missing.name or "refused"
        bands = ", ".join(band.name for band in ages.bands)
        yield "age bands", f"{bands}; users whose age no claim names: {others}"


def _explain(location: Location) -> Iterator[tuple[str, object, str]]:
    if location.age is not None:
        yield "age_band", location.age_band, location.age_band or "unknown"


MINORS_VIEW = FeatureView(
    recipients=nothing,
    report_region=_report,
    report_route=nothing,
    plan_names={AgeRules: "age bands"},
    plan_words=nothing,
    off_without_state=nothing,
    explain=_explain,
    receipt=(),
    receipt_recipients=(),
)
