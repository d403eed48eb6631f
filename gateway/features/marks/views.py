"""Show which label of a region has a signed mark."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.features.marks.policy import MarkRules
from gateway.model.config_version import Region
from gateway.model.location import Location
from gateway.policy.feature_view import FeatureView, nothing


def _signed_label(region: Region | None) -> str:
    """Return the name of the label with a signed mark, or an empty text."""
    labels = region.texts.default_locale.labels if region is not None and region.texts is not None else ()
    return next((label.name for label in labels if label.is_signed), "")


def _report(region: Region) -> Iterator[tuple[str, str]]:
    if name := _signed_label(region):
        yield "signed marks", f"each text of an answer gets one, in the data of {name}"


def _explain(location: Location) -> Iterator[tuple[str, object, str]]:
    name = _signed_label(location.region)
    yield "marked", bool(name), f"a signed mark, in the data of {name}" if name else ""


MARKS_VIEW = FeatureView(
    recipients=nothing,
    report_region=_report,
    report_route=nothing,
    plan_names={MarkRules: "marks"},
    plan_words=nothing,
    off_without_state=nothing,
    explain=_explain,
    receipt=(),
    receipt_recipients=(),
)
