"""Rules for minors: the hours of a band by the clock of its zone, and the band that a claim names."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.features.minors.policy import refuse_hours
from gateway.model.age import AgeBand
from gateway.model.hours import Hours
from gateway.model.location import ClaimReport, LocationProblem
from gateway.model.region_text import NO_PREFERENCES, Profile
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.refusals import refuse_location
from gateway.policy.region_text import compose
from gateway.policy.routing import decide
from gateway.policy.territory_answers import NO_NEEDS, answer_changes
from tests.gateway.location_reports import reported
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, Config, table_of

CLAIM = {"issuer": "https://i.example", "audience": "g", "algorithms": ["HS256"], "secret": "${CLAIM_SECRET}"}
BANDS: dict[str, Any] = {"under_14": {"tools": False}, "nobody": {"refuse": True}, "adult": {}}
ENVIRON = {**KEYS, "CLAIM_SECRET": "s" * 32}


def minors(missing: str | None = "refuse", **bands: Any) -> Config:
    rules = {"age_bands": {**BANDS, **bands}, "age_missing": missing}
    rules = {name: value for name, value in rules.items() if value is not None}
    signals = ["claim", "api_key", "edge_header"]
    return BASE.merge(
        {"regions": {"cn": rules}, "location": {"signals": signals, "claim": {**CLAIM, "age_band": "age"}}}
    )


def at(text: str, zone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("hours", "time", "wait_s"),
    [
        ((360, 1320), "06:00:00", 0),
        ((360, 1320), "21:59:59", 0),
        ((360, 1320), "22:00:00", 8 * 3600),
        ((360, 1320), "05:59:59", 1),
        ((1200, 360), "19:59:59", 1),
        ((1200, 360), "20:00:00", 0),
        ((1200, 360), "23:59:59", 0),
        ((1200, 360), "00:00:00", 0),
        ((1200, 360), "05:59:59", 0),
        ((1200, 360), "06:00:00", 14 * 3600),
        ((1200, 1440), "23:59:59", 0),
        ((1200, 1440), "00:00:00", 20 * 3600),
        ((0, 60), "23:59:59", 1),
    ],
)
def test_hours_begin_with_their_first_minute_and_end_before_their_last(
    hours: tuple[int, int], time: str, wait_s: float
) -> None:
    now_s = at(f"2026-11-25T{time}", "Asia/Shanghai")
    assert Hours(*hours, "Asia/Shanghai").wait_s(now_s) == wait_s


@cases("zone", "start", "now", "expected")
def test_hours_follow_the_clock_of_the_zone(zone: str, start: int, now: str, expected: str) -> None:
    now_s = at(now, zone)
    assert now_s + Hours(start, 1320, zone).wait_s(now_s) == at(expected, zone)


@given(
    minutes=st.lists(st.integers(0, 1439), min_size=2, max_size=2, unique=True),
    zone=st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "UTC"]),
    now_s=st.integers(1_750_000_000, 1_850_000_000),
)
def test_request_at_the_end_of_the_wait_is_answered(minutes: list[int], zone: str, now_s: int) -> None:
    hours = Hours(minutes[0], minutes[1], zone)
    wait_s = hours.wait_s(now_s)
    assert hours.wait_s(now_s + wait_s) == 0
    local = datetime.fromtimestamp(now_s, ZoneInfo(zone))
    minute, (start, end) = local.hour * 60 + local.minute, minutes
    assert (wait_s == 0) == (minute in [(start + n) % 1440 for n in range((end - start) % 1440)])
    assert wait_s <= 2 * 86_400


def test_refusal_states_the_hours_and_the_wait() -> None:
    band = AgeBand("under_14", hours=Hours(360, 1320, "Asia/Shanghai"))
    refusal = refuse_hours(band, datetime(2026, 11, 25, 15, tzinfo=UTC).timestamp())
    assert (refusal.code, refusal.reason, refusal.retry_after_s) == ("age_restricted", "age", 7 * 3600)
    assert "06:00-22:00 (Asia/Shanghai)" in refusal.message


@cases("missing", "claim", "band", "problem", "code")
def test_claim_names_the_band(
    missing: str, claim: str | None, band: str | None, problem: str | None, code: str | None
) -> None:
    config = table_of(minors(missing), ENVIRON)
    report = ClaimReport(age_band=claim) if claim is not None else None
    location = resolve(config, None, reported(EdgeReport(("CN",)), claim=report))
    refusal = refuse_location(config, location)
    assert (location.age_band, location.problem) == (band, problem)
    assert (refusal.code if refusal is not None else None) == code
    assert (location.region is None) == (location.problem is LocationProblem.CLAIM)
    if refusal is not None:
        decision = decide(config, config.assistants["assistant"], location, NO_NEEDS, {}, 0.0)
        assert decision.outcome == refusal
        who = "'nobody'" if band == "nobody" else "`x-gateway-claim`"
        assert who in refusal.message
    if problem == "claim":
        notes = {item.signal: item.note for item in location.evidence}
        assert (location.why, location.territory) == ("claim", None)
        assert notes == {"claim": "not accepted: its age band is not one of this region", "edge_header": ""}
        assert not any(item.decided for item in location.evidence)
    elsewhere = resolve(config, None, reported(EdgeReport(("DE",)), claim=report))
    assert (elsewhere.age, elsewhere.problem) == (None, None)  # a region without bands does not read them


def test_missing_without_a_band_for_adults_means_no_rules() -> None:
    config = table_of(minors("adult", adult=None), ENVIRON)
    location = resolve(config, None, reported(EdgeReport(("CN",))))
    assert (location.age, location.problem, location.territory) == (None, None, "CN")


def test_no_territory_loses_its_answer_by_rules_for_unknown_ages() -> None:
    assert answer_changes(table_of(BASE, KEYS), table_of(minors(), ENVIRON), 0.0) == ()


def test_instructions_follow_the_profile_in_one_message() -> None:
    profile = Profile("de", (("tone", "Be brief."),))
    band, other = AgeBand("child", instructions="Be kind.\nBe safe."), AgeBand("teen")
    alone, both = compose(None, None, NO_PREFERENCES, band), compose(profile, None, NO_PREFERENCES, band)
    plain = compose(profile, None, NO_PREFERENCES)
    assert alone.message.content == "Be kind.\nBe safe."
    assert both.message.content == f"{plain.message.content}\n\nBe kind.\nBe safe."
    assert compose(profile, None, NO_PREFERENCES, other) == plain
    assert alone.name.startswith("child@")
    assert (both.name.startswith("de@"), both.name.endswith("+child")) == (True, True)
    assert both.name.removesuffix("+child") != plain.name
