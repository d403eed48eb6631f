"""Approvals: what an authority permits a deployment to do in a region, and on which days. Pure: dates in, values out.

At any moment there are two or three dates on Earth: a day begins at UTC+14 and ends at UTC-12. An approval is valid at
a moment only if it covers all of these dates, so the result does not depend on a time zone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import ClassVar, Literal, NamedTuple

from gateway.model.section import PlainSection, key, section
from gateway.model.units import DOCUMENT_URL, Day, Line
from providers.value import Value

ApprovalKind = Literal["algorithm_filing", "model_filing", "registration"]
WARNING_DAYS = (7, 30, 90)
"""The days before its end at which a fact is reported: from the last of them on, and again at each shorter one."""

_DAY_S = 86_400
_EARLIEST_S = 14 * 3600
_LATEST_S = -12 * 3600
_UNIX_DAY = date(1970, 1, 1).toordinal()
_ALWAYS, _NEVER_ENDS = date.min.toordinal(), date.max.toordinal()


class Days(NamedTuple):
    """The first and the last date on Earth at one moment, as ordinals."""

    first: int
    last: int


def days_at(now_s: float) -> Days:
    """Return the dates on Earth at a moment (Unix time)."""
    return Days(int((now_s + _LATEST_S) // _DAY_S) + _UNIX_DAY, int((now_s + _EARLIEST_S) // _DAY_S) + _UNIX_DAY)


def begun_everywhere(day: date) -> float:
    """Return the moment (Unix time) from which on no place on Earth has an earlier date."""
    return float((day.toordinal() - _UNIX_DAY) * _DAY_S - _LATEST_S)


def begun_somewhere(day: date) -> float:
    """Return the moment (Unix time) at which the day begins in the first place on Earth."""
    return float((day.toordinal() - _UNIX_DAY) * _DAY_S - _EARLIEST_S)


@section
class Approval(PlainSection):
    """A record that an authority permits the deployment to serve a region."""

    region: str = key("The region for which it is valid.")
    authority: Line = key("The authority, such as CAC (the Cyberspace Administration of China).")
    kind: ApprovalKind = key("The kind: the filing of an algorithm or a model, or a registration.")
    number: Line = key("Its number in the authority's notation.")
    model_name: Line = key("The public name of the model, which apps must show.")
    valid_from: Day | None = key("Its first day, such as 2026-03-01. Default: no first day.", default=None)
    valid_until: Day | None = key("Its last day, such as 2027-03-01. Default: no last day.", default=None)
    document: str | None = key("The https URL of the document.", default=None, pattern=DOCUMENT_URL, max_length=2048)
    model: Line | None = key("The vendor's model that it is for. Default: that of the deployment.", default=None)

    @property
    def first_day(self) -> int:
        """The first valid day as an ordinal."""
        return self.valid_from.toordinal() if self.valid_from is not None else _ALWAYS

    @property
    def last_day(self) -> int:
        """The last valid day as an ordinal."""
        return self.valid_until.toordinal() if self.valid_until is not None else _NEVER_ENDS

    def counts_on(self, days: Days) -> bool:
        """Return whether it covers at least one of the days."""
        return self.first_day <= days.last and self.last_day >= days.first


class Ending(Value, frozen=True):
    """The end of a fact on which a configuration relies: an approval, a model with its site, a price, or a law.

    One rule holds for all: reports from 90 days before it, and an error of `gateway check` after it. The days that are
    left are 0 or less once it has ended, at the moment that its kind of fact has for it.
    """

    days_left: int

    @property
    def bound(self) -> int | None:
        """The smallest bound of `WARNING_DAYS` that has been reached, or None if the end is far away."""
        return next((bound for bound in WARNING_DAYS if self.days_left <= bound), None)

    @property
    def warned_days(self) -> int | None:
        """The bound that has been reached, or None without a warning."""
        return self.bound

    @property
    def is_over(self) -> bool:
        """Whether no day is left."""
        return self.days_left <= 0

    @property
    def in_days(self) -> str:
        """The time until then in words, such as `in 1 day`."""
        return f"in {self.days_left} {'day' if self.days_left == 1 else 'days'}"


class Term(Ending, frozen=True):
    """The end of a deployment's approval for a region. `days_left` is 0 on its last day, and below 0 after it."""

    kind: ClassVar[Literal["approval"]] = "approval"
    deployment: str
    region: str
    last_day: date

    @property
    def subject(self) -> Mapping[str, str]:
        """The deployment and the region that rely on the approval."""
        return {"deployment": self.deployment, "region": self.region}

    @property
    def on(self) -> date:
        """Its last day."""
        return self.last_day

    @property
    def is_over(self) -> bool:
        """Whether its last day is over anywhere on Earth."""
        return self.days_left < 0

    def __str__(self) -> str:
        if self.is_over:
            return f"its approval for region {self.region!r} ended on {self.last_day}"
        when = self.in_days if self.days_left else "today"
        return f"its approval for region {self.region!r} ends on {self.last_day}, {when}"


def why_unapproved(approvals: Iterable[Approval], region: str, days: Days) -> str | None:
    """Return None if approvals for the region cover each of the days, else the reason in words."""
    own = [approval for approval in approvals if approval.region == region]
    if not own:
        return f"it has no approval for region {region!r}"
    reach = _reach(own, days)
    if reach >= days.last:
        return None
    ended = _ended(own, reach)
    begins = min((approval.first_day for approval in own if approval.first_day > reach), default=None)
    if ended is None and begins is not None:
        return f"its approval for region {region!r} begins on {date.fromordinal(begins)}"
    after = f"; the next begins on {date.fromordinal(begins)}" if begins is not None else ""
    return f"its approval for region {region!r} ended on {date.fromordinal(ended or _ALWAYS)}{after}"


def approvals_for(
    approvals: Iterable[Approval], model: str, answering: Iterable[str], region: str = ""
) -> list[Approval]:
    """Return those that are for one of the models that may answer, for a region or for all.

    `model` is that of the deployment, for which an approval is that names none.
    """
    models = {*answering}
    return [it for it in approvals if (it.model or model) in models and region in ("", it.region)]


def terms_of(approvals: Mapping[str, Iterable[Approval]], days: Days) -> tuple[Term, ...]:
    """Return the end of each deployment's approval for each region.

    An approval that has no end, or that has not begun, has no entry.
    """
    terms: list[Term] = []
    for deployment, records in approvals.items():
        for region in dict.fromkeys(approval.region for approval in records):
            own = [approval for approval in records if approval.region == region]
            reach = _reach(own, days)
            last = reach if reach >= days.last else _ended(own, reach)
            if last is not None and last < _NEVER_ENDS:
                terms.append(Term(last - days.last, deployment, region, date.fromordinal(last)))
    return tuple(terms)


def _reach(own: list[Approval], days: Days) -> int:
    """Return the last day of the unbroken cover from `days.first` on, or the day before if there is none."""
    reach = days.first - 1
    while True:
        further = [
            approval.last_day for approval in own if approval.first_day <= reach + 1 and approval.last_day > reach
        ]
        if not further:
            return reach
        reach = max(further)


def _ended(own: list[Approval], reach: int) -> int | None:
    """Return the last day of the approvals that ended by the day `reach`, or None if there are none."""
    return max((approval.last_day for approval in own if approval.last_day <= reach), default=None)
