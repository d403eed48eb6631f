"""Show the rules of a region for a crisis, and the outcome for a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gateway.features.crisis.model import Crisis, CrisisOutcome, CrisisRules
from gateway.model.config_version import Region
from gateway.model.location import Location
from gateway.model.record import AttemptRecord, FeatureNote
from gateway.policy.feature_view import FeatureView, nothing
from providers.value import Value


def _report(region: Region) -> Iterator[tuple[str, str]]:
    if (rules := region.parts.of(CrisisRules)) is not None:
        yield "crisis", str(rules)


def _explain(location: Location) -> Iterator[tuple[str, object, str]]:
    rules = location.region.parts.of(CrisisRules) if location.region is not None else None
    if rules is not None:
        yield "crisis", {"judges": list(rules.judges), "then": rules.then}, str(rules)


class CrisisNote(FeatureNote, Value, frozen=True):
    """The outcome for a chat in a region with `crisis`. The log and the receipt get no category and no text."""

    outcome: CrisisOutcome
    crisis: Crisis | None = None

    @property
    def help(self) -> Crisis | None:
        """See `FeatureNote`."""
        return self.crisis

    def header_lines(self) -> Iterator[bytes]:
        """See `FeatureNote`."""
        if self.crisis is not None:
            yield b"x-gateway-crisis: " + self.crisis.then.encode()
        elif self.outcome == "unjudged":
            yield b"x-gateway-crisis: unjudged"

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
    plan_names={CrisisRules: "crisis"},
    plan_words=nothing,
    off_without_state=nothing,
    explain=_explain,
    receipt=("crisis",),
    receipt_recipients=(),
)
