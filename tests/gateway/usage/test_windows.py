"""Windows of budgets: aligned with the calendar of a zone, without gaps and overlaps, over daylight saving."""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.budget import Window
from gateway.usage.windows import FOREVER_NS, SECOND_NS, WindowCalendar, bounds
from tests.kit.case_files import cases

BERLIN = ZoneInfo("Europe/Berlin")
HOUR_S = 3600
ZONES = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1), timezones=st.just(UTC)).map(
    lambda at: int(at.timestamp() * 1000) * 1_000_000
)


def ns(text: str, zone: tzinfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * SECOND_NS


@cases("window", "at", "start", "end", "next_end")
def test_window_begins_with_the_calendar_of_the_zone(window: str, at: str, start: str, end: str, next_end: str) -> None:
    assert bounds(Window(window), ns(at), BERLIN) == (ns(start), ns(end), ns(next_end))


@cases("day", "zone", "hours")
def test_day_has_the_hours_of_daylight_saving(day: str, zone: str, hours: int) -> None:
    start, end, _ = bounds(Window.DAY, ns(f"{day}T12:00", ZoneInfo(zone)), ZoneInfo(zone))
    assert (end - start) // SECOND_NS == hours * HOUR_S


def test_repeated_hour_is_a_window_of_its_own() -> None:
    first = ns("2026-10-25T02:30")
    assert bounds(Window.HOUR, first + HOUR_S * SECOND_NS, BERLIN).start_ns == bounds(Window.HOUR, first, BERLIN).end_ns


def test_hours_of_a_half_hour_zone_begin_at_its_own_full_hour() -> None:
    kolkata = ZoneInfo("Asia/Kolkata")
    assert bounds(Window.HOUR, ns("2026-11-20T12:45", kolkata), kolkata).start_ns == ns("2026-11-20T12:00", kolkata)


def test_a_skipped_day_has_no_window() -> None:
    apia = ZoneInfo("Pacific/Apia")  # it had no 30 December 2011
    found = bounds(Window.DAY, ns("2011-12-29T12:00", apia), apia)
    assert found == (ns("2011-12-29", apia), ns("2011-12-31", apia), ns("2012-01-01", apia))


def test_total_never_ends() -> None:
    assert bounds(Window.TOTAL, ns("2026-11-20"), BERLIN) == (0, FOREVER_NS, FOREVER_NS)


EVERY_WINDOW = {  # at 12:30:45 on Friday, 20 November 2026
    Window.MINUTE: ("2026-11-20T12:30", "2026-11-20T12:31", "2026-11-20T12:32"),
    Window.HOUR: ("2026-11-20T12:00", "2026-11-20T13:00", "2026-11-20T14:00"),
    Window.DAY: ("2026-11-20", "2026-11-21", "2026-11-22"),
    Window.WEEK: ("2026-11-16", "2026-11-23", "2026-11-30"),
    Window.MONTH: ("2026-11-01", "2026-12-01", "2027-01-01"),
    Window.TOTAL: None,
}


@pytest.mark.parametrize("window", Window)
def test_every_window_has_its_own_bounds(window: Window) -> None:
    expected = EVERY_WINDOW[window]
    never = (0, FOREVER_NS, FOREVER_NS)
    assert bounds(window, ns("2026-11-20T12:30:45"), BERLIN) == (
        never if expected is None else tuple(map(ns, expected))
    )


@given(st.sampled_from([Window.DAY, Window.WEEK, Window.MONTH]), TIMES, ZONES)
def test_windows_have_no_gap_and_no_overlap(window: Window, at_ns: int, zone: tzinfo) -> None:
    found = bounds(window, at_ns, zone)
    assert found.start_ns <= at_ns < found.end_ns < found.next_end_ns
    assert bounds(window, found.start_ns, zone) == bounds(window, found.end_ns - 1, zone) == found
    assert bounds(window, found.end_ns, zone)[:2] == found[1:]


@given(st.sampled_from(Window), st.lists(TIMES, max_size=8), ZONES)
def test_calendar_returns_the_same_bounds_as_the_computation(window: Window, times: list[int], zone: tzinfo) -> None:
    calendar = WindowCalendar(zone)
    for at_ns in times:
        for near in (at_ns, at_ns + 30 * SECOND_NS, at_ns - 90 * SECOND_NS):
            assert calendar.at(near)[window] == bounds(window, near, zone)
