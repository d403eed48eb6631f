"""Approvals: the limits of their validity, regions that require them, and the expiry of cached decisions."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.approval import Approval, Days, days_at, terms_of, why_unapproved
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Decision, Plan, RefusalCode, SkipReason
from gateway.policy.fence import lacking_approval, prompt_permit
from gateway.policy.routing import decide
from providers.matching.requirements import Requirements
from tests.gateway.decisions import place_of, refused
from tests.kit.case_files import cases
from tests.kit.configs import BASE, table_of

NOTHING = Requirements(frozenset(), frozenset(), frozenset())


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def approval(first: str | None, last: str | None, region: str = "cn") -> Approval:
    days = [date.fromisoformat(day) if day else None for day in (first, last)]
    return Approval(region, "CAC", "registration", "n", "m", days[0], days[1])


ENDED = "its approval for region 'cn' ended on 2026-11-20"


@cases("first", "last", "now", "reason")
def test_approval_is_valid_only_if_every_time_zone_is_within_its_dates(
    first: str | None, last: str | None, now: str, reason: str | None
) -> None:
    assert why_unapproved([approval(first, last)], "cn", days_at(at(now))) == reason


def test_a_renewal_that_begins_the_day_after_leaves_no_gap() -> None:
    both = [approval("2026-01-01", "2026-11-20"), approval("2026-11-21", "2027-11-20")]
    for hour in range(72):
        days = days_at(at("2026-11-19T12:00:00") + hour * 3600)
        assert why_unapproved(both, "cn", days) is None
        [term] = terms_of({"d": both}, days)
        assert term.last_day == date(2027, 11, 20)


def test_gap_is_reported_with_its_end() -> None:
    both = [approval("2026-01-01", "2026-11-20"), approval("2026-12-01", None)]
    assert why_unapproved(both, "cn", days_at(at("2026-11-25T12:00:00"))) == f"{ENDED}; the next begins on 2026-12-01"
    assert why_unapproved(both, "cn", days_at(at("2026-12-02T12:00:00"))) is None


def test_nearest_of_several_future_approvals_is_reported() -> None:
    later = [approval("2027-03-01", None), approval("2026-12-01", "2026-12-31"), approval("2027-01-15", None)]
    days = days_at(at("2026-11-25T12:00:00"))
    assert why_unapproved(later, "cn", days) == "its approval for region 'cn' begins on 2026-12-01"


def test_latest_of_several_expired_approvals_is_reported() -> None:
    over = [approval(None, "2026-11-20"), approval(None, "2026-10-01")]
    assert why_unapproved(over, "cn", days_at(at("2026-11-25T12:00:00"))) == ENDED


def test_the_terms_of_two_regions_are_apart_and_what_never_ends_has_none() -> None:
    records = [approval(None, "2026-11-30"), approval(None, "2026-12-31", "eu"), approval("2026-01-01", None, "us")]
    terms = terms_of({"d": records}, days_at(at("2026-11-20T09:00:00")))
    assert [(term.region, term.days_left) for term in terms] == [("cn", 10), ("eu", 41)]


@cases("first", "last", "counts")
def test_approval_counts_while_its_day_is_current_anywhere_on_earth(
    first: str | None, last: str | None, counts: bool
) -> None:
    days = Days(date(2026, 11, 20).toordinal(), date(2026, 11, 21).toordinal())
    assert approval(first, last).counts_on(days) is counts


def test_approval_for_another_region_does_not_count() -> None:
    assert why_unapproved([approval(None, None, "eu")], "cn", days_at(0)) == "it has no approval for region 'cn'"


ordinals = st.integers(min_value=739_000, max_value=739_030)
validity = st.tuples(st.none() | ordinals, st.none() | ordinals).filter(
    lambda pair: pair[0] is None or pair[1] is None or pair[0] <= pair[1]
)


@given(st.lists(validity, max_size=4), st.integers(0, 40 * 24 * 60))
def test_cached_decision_equals_the_decision_of_each_day(
    pairs: list[tuple[int | None, int | None]], minute: int
) -> None:
    records = [
        Approval("cn", "A", "registration", "n", "m", *(date.fromordinal(day) if day else None for day in pair))
        for pair in pairs
    ]
    moment = datetime.fromordinal(738_995).replace(tzinfo=UTC) + timedelta(minutes=minute)
    dates = {(moment + timedelta(hours=offset)).date() for offset in range(-12, 15)}
    covered = all(
        any((item.valid_from or date.min) <= day <= (item.valid_until or date.max) for item in records) for day in dates
    )
    days = days_at(moment.timestamp())
    assert days == Days(min(dates).toordinal(), max(dates).toordinal())
    assert (why_unapproved(records, "cn", days) is None) == covered
    for term in terms_of({"d": records}, days):
        assert (term.days_left >= 0) == covered
        assert (term.last_day - max(dates)).days == term.days_left


@cases("now", "days_left", "warned", "text")
def test_warnings_increase_as_the_expiry_approaches(now: str, days_left: int, warned: int | None, text: str) -> None:
    [term] = terms_of({"d": [approval(None, "2026-11-20")]}, days_at(at(now)))
    assert (term.days_left, term.warned_days) == (days_left, warned)
    assert str(term) == f"its approval for region 'cn' {text}"


# --- regions that require an approval -------------------------------------------------------------


def approved_until(last: str | None, *, required: bool = True) -> ConfigVersion:
    record = {"region": "cn", "authority": "CAC", "kind": "registration", "number": "n", "model_name": "m"}
    approved = {"deployments": {"qwen-cn": {"approvals": [record | ({"valid_until": last} if last else {})]}}}
    return table_of(BASE.merge(approved, {"regions": {"cn": {"approvals": "required"}}} if required else {}))


def decision(table: ConfigVersion, now: str, territory: str = "CN") -> Decision:
    location = place_of(table, territory)
    return decide(table, table.assistants["assistant"], location, NOTHING, {}, at(now))


def test_an_expiry_takes_effect_at_request_time_and_not_when_it_was_remembered() -> None:
    table = approved_until("2026-11-20")
    for _ in range(2):  # the clock may be set back, too
        assert isinstance(decision(table, "2026-11-20T09:59:59").outcome, Plan)
        found = decision(table, "2026-11-20T10:00:00")
        assert refused(found).code is RefusalCode.NO_APPROVED_DEPLOYMENT
        assert refused(found).message.endswith(f"qwen-cn: {ENDED}")
        assert found.considered[0].reason is SkipReason.APPROVAL


def test_decision_is_cached_while_approvals_do_not_change() -> None:
    table = approved_until("2026-11-20")
    first = decision(table, "2026-11-19T12:00:00")
    assert decision(table, "2026-11-19T23:00:00") is first
    kept = len(table.memo)
    for hour in range(12, 24):
        decision(table, f"2026-11-19T{hour}:30:00")
    assert len(table.memo) == kept


def test_region_without_requirement_needs_no_approval() -> None:
    table = approved_until("2026-11-20")
    assert isinstance(decision(table, "2030-01-01T00:00:00", "US").outcome, Plan)
    assert decision(table, "2030-01-01T00:00:00", "US") is decision(table, "2031-01-01T00:00:00", "US")
    assert isinstance(decision(approved_until("2026-11-20", required=False), "2030-01-01T00:00:00").outcome, Plan)


def test_deployment_without_approval_is_skipped() -> None:
    table = table_of(BASE.merge("regions: {cn: {approvals: required}}"))
    outcome = refused(decision(table, "2026-11-20T00:00:00"))
    assert outcome.code is RefusalCode.NO_APPROVED_DEPLOYMENT
    assert "it has no approval for region 'cn'" in outcome.message


def test_permit_requires_a_valid_approval() -> None:
    table = approved_until("2026-11-20")
    region, deployment = table.regions["cn"], table.deployments["qwen-cn"]
    assert prompt_permit(table, region, deployment, at("2026-11-20T10:00:00")) is None
    permit = prompt_permit(table, region, deployment, at("2026-11-20T09:00:00"))
    assert permit is not None
    assert lacking_approval(region, deployment, at("2026-11-20T09:59:59")) is None
    assert lacking_approval(region, deployment, at("2026-11-20T10:00:00")) == ENDED
