"""Show the rules of a region for a crisis, and the outcome for a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gateway.features.crisis.model import CrisisOutcome
from gateway.model.config_version import Region
from gateway.model.location import Location
from gateway.model.record import AttemptRecord
from gateway.policy.feature_view import FeatureView, nothing
from providers.value import Value


def _report(region: Region) -> Iterator[tuple[str, str]]:
    if region.crisis is not None:
        yield "crisis", str(region.crisis)


def _explain(location: Location) -> Iterator[tuple[str, object, str]]:
    rules = location.region.crisis if location.region is not None else None
    if rules is not None:
        yield "crisis", {"judges": list(rules.judges), "then": rules.then}, str(rules)


class CrisisNote(Value, frozen=True):
    """The outcome for a chat in a region with `crisis`. It has no category and no text."""

    outcome: CrisisOutcome

    def log_fields(self) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"crisis": self.outcome}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        """See `FeatureNote`."""
        return {"crisis": self.outcome}


CRISIS_VIEW = FeatureView(
    recipients=nothing,
    report_region=_report,
    report_route=nothing,
    plan_names={},
    plan_words=nothing,
    off_without_state=nothing,
    explain=_explain,
    receipt=("crisis",),
    receipt_recipients=(),
)
