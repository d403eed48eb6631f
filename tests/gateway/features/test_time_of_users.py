"""The time of a user by the pure functions: limits, midnight, time zones, clocks that jump, and any order of chats."""

from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.features.duties.model import KEPT_MS, UsedDay, UseRecord, UseRules
from gateway.features.duties.policy import arrival, day_at, extended, limit_reached, merged, notice_due, used_day
from gateway.model.age import UseLimits

ZONE = "America/Los_Angeles"
RULES = UseRules(1800.0, ZONE)
MINUTE_MS = 60_000
BOTH = UseLimits(3600, 7200)


def at(text: str, zone: str = ZONE) -> int:
    """Return Unix milliseconds of a local time."""
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def chats(*texts: str, rules: UseRules = RULES) -> UseRecord:
    """Return the record after a chat of no length at each of these times."""
    record: UseRecord | None = None
    for now_ms in map(at, texts):
        record = extended(record, arrival(record, now_ms, rules).at_ms, now_ms, rules)
    assert record is not None
    return record


def test_pause_below_the_gap_counts_and_a_longer_one_does_not() -> None:
    record = chats("2027-07-01T12:00", "2027-07-01T12:29", "2027-07-01T13:00")
    noon, one = at("2027-07-01T12:00"), at("2027-07-01T13:00")
    assert record == UseRecord(ZONE, 1_800_000, 0, (noon, noon + 29 * MINUTE_MS, one, one))
    assert used_day(record) == UsedDay("2027-07-01", one, one, 29 * MINUTE_MS)


def test_session_goes_on_over_midnight_and_its_day_is_cut() -> None:
    record = chats("2027-07-01T23:40", "2027-07-01T23:59", "2027-07-02T00:10")
    assert (used_day(record).date, used_day(record).day_ms) == ("2027-07-02", 10 * MINUTE_MS)
    now = arrival(record, at("2027-07-02T00:20"), RULES)
    assert (now.is_new, now.session_ms, now.day_ms) == (False, 40 * MINUTE_MS, 20 * MINUTE_MS)
    assert arrival(chats("2027-07-01T12:00"), at("2027-07-03T12:00"), RULES).day_ms == 0


@pytest.mark.parametrize(
    ("day", "hours"), [("2027-03-14", 23), ("2027-11-07", 25), ("2027-07-01", 24)], ids=["spring", "autumn", "summer"]
)
def test_days_of_23_and_25_hours_are_days(day: str, hours: int) -> None:
    found = day_at(at(f"{day}T12:00"), ZONE)
    assert (found.date, found.end_ms - found.start_ms) == (day, hours * 3_600_000)
    record = extended(None, found.start_ms, found.end_ms - 1, RULES)
    assert (used_day(record).date, used_day(record).day_ms) == (day, hours * 3_600_000 - 1)


def test_day_whose_midnight_is_left_out_begins_with_its_first_instant() -> None:
    found = day_at(at("2024-03-31T12:00", "Asia/Beirut"), "Asia/Beirut")  # the clock goes from 00:00 to 01:00
    assert found.start_ms == at("2024-03-31T01:00", "Asia/Beirut")


@pytest.mark.parametrize(
    ("texts", "now", "limits", "expected"),
    [
        (["12:00", "12:20", "12:40", "12:59"], "13:00", BOTH, ("session", 3600, "13:29")),
        (["12:00", "12:20", "12:40", "12:59"], "12:59:59", BOTH, None),
        # The day without the running pause has less than the limit, so a new session may begin.
        (["12:00", "12:29", "12:58"], "13:05", UseLimits(None, 3600), ("day", 3600, "13:28")),
        # The day has it without the pause.
        (["12:00", "12:29", "12:58", "13:00"], "14:00", UseLimits(None, 3600), ("day", 3600, "24:00")),
        # Of both limits, the later one.
        (["12:00", "12:29", "12:58", "13:00"], "13:10", UseLimits(60, 3600), ("day", 3600, "24:00")),
        (["23:20", "23:49"], "23:55", UseLimits(None, 1800), ("day", 1800, "24:00")),
        ([], "12:00", BOTH, None),
    ],
)
def test_limits(texts: list[str], now: str, limits: UseLimits, expected: tuple[str, int, str] | None) -> None:
    day = "2027-07-01T"
    record = chats(*(day + text for text in texts)) if texts else None
    hit = limit_reached(arrival(record, at(day + now), RULES), limits)
    if expected is None:
        assert hit is None
        return
    rule, limit_s, allowed = expected
    midnight = at("2027-07-02T00:00")
    assert (hit.rule, hit.limit_s, hit.allowed_ms) == (
        rule,
        limit_s,
        midnight if allowed == "24:00" else at(day + allowed),
    )


def test_clock_that_is_set_back_does_not_run_backwards_in_a_record() -> None:
    record = chats("2027-07-01T12:00", "2027-07-01T12:20")
    now = arrival(record, at("2027-07-01T11:00"), RULES)
    assert (now.is_new, now.session_ms) == (False, 20 * MINUTE_MS)
    assert extended(record, now.at_ms, at("2027-07-01T11:05"), RULES) == record


def test_notice_is_due_in_each_session_and_again_after_its_time() -> None:
    start = at("2027-07-01T12:00")
    record = extended(None, start, start, RULES, is_noticed=True)
    assert notice_due(arrival(None, start, RULES), 600) == "text"
    assert notice_due(arrival(record, start + 599_999, RULES), 600) is None
    assert notice_due(arrival(record, start + 600_000, RULES), 600) == "repeated"
    assert notice_due(arrival(record, start + 1_800_000, RULES), 600) == "text", "a new session"
    unseen = extended(None, start, start, RULES)  # a tool call alone
    assert notice_due(arrival(unseen, start + 1, RULES), 600) == "text"


SPANS = st.lists(
    st.tuples(st.integers(0, 100 * MINUTE_MS), st.integers(0, 40 * MINUTE_MS)), min_size=1, max_size=12
)  # pauses between arrivals, and lengths


@given(SPANS, st.randoms(use_true_random=False))
def test_chats_at_the_same_time_give_one_record_in_any_order_of_their_ends(
    spans: list[tuple[int, int]], random: object
) -> None:
    """The reference: sessions are the union of the chats and of the pauses below the gap; the day is their sum."""
    start, now_ms = at("2027-07-01T20:00"), at("2027-07-01T20:00")
    intervals: list[tuple[int, int]] = []
    for pause, length in spans:
        now_ms += pause
        intervals.append((now_ms, now_ms + length))
    record: UseRecord | None = None
    open_chats: list[tuple[int, int]] = []
    for began, ended in intervals:
        # All chats in progress extend the record before another one arrives, and those that end do.
        for one in open_chats:
            record = extended(record, one[0], min(began, one[1]), RULES)
        open_chats = [one for one in open_chats if one[1] > began]
        open_chats.append((began, ended))
        record = extended(record, arrival(record, began, RULES).at_ms, began, RULES)
    random.shuffle(open_chats)  # type: ignore[attr-defined]
    for one in open_chats:
        record = extended(record, one[0], one[1], RULES)
    assert record is not None
    sessions = [[*intervals[0]]]
    for began, ended in intervals[1:]:
        if began - sessions[-1][1] >= 1800 * 1000:
            sessions.append([began, ended])
        else:
            sessions[-1][1] = max(sessions[-1][1], ended)
    day = day_at(sessions[-1][1], ZONE)
    assert (record.began_ms, record.seen_ms) == tuple(sessions[-1])
    assert used_day(record).day_ms == sum(day.part_of(*session) for session in sessions)
    assert start <= record.began_ms


STEPS = st.lists(
    st.tuples(
        st.integers(-90 * MINUTE_MS, 90 * MINUTE_MS),  # how far the clock jumps
        st.integers(0, 10 * MINUTE_MS),  # the length of the chat
    ),
    max_size=60,
)


@given(STEPS)
def test_no_order_of_chats_and_clocks_gives_a_user_more_than_the_limit_and_one_chat(
    steps: list[tuple[int, int]],
) -> None:
    record: UseRecord | None = None
    longest_ms = 10 * MINUTE_MS
    now_ms = at("2027-03-13T18:00")
    for jump, length in steps:
        now_ms += jump
        now = arrival(record, now_ms, RULES)
        hit = limit_reached(now, BOTH)
        if hit is not None:
            assert hit.allowed_ms > now.at_ms
            continue
        record = extended(record, now.at_ms, now.at_ms + length, RULES)
        assert record.seen_ms - record.began_ms <= 3600 * 1000 + longest_ms
        assert used_day(record).day_ms <= 7200 * 1000 + longest_ms


CHATS = st.lists(
    st.tuples(
        st.integers(-30 * MINUTE_MS, 60 * MINUTE_MS),  # how far the clock of the instance is from the last arrival
        st.integers(0, 10 * MINUTE_MS),  # the length of the chat
        st.booleans(),  # the chats in progress extend the record before the chat arrives
    ),
    max_size=40,
)


@given(CHATS)
def test_chats_in_progress_of_several_instances_add_at_most_the_longest_of_them(
    steps: list[tuple[int, int, bool]],
) -> None:
    record: UseRecord | None = None
    running: list[tuple[int, int]] = []
    longest_ms, now_ms = 10 * MINUTE_MS, at("2027-11-06T18:00")
    for jump, length, is_extended in steps:
        now_ms += jump
        for one in running:
            if is_extended or one[1] <= now_ms:
                record = extended(record, one[0], min(one[1], max(now_ms, one[0])), RULES)
        running = [one for one in running if one[1] > now_ms]
        now = arrival(record, now_ms, RULES)
        if limit_reached(now, BOTH) is None:
            running.append((now.at_ms, now.at_ms + length))
            record = extended(record, now.at_ms, now.at_ms, RULES)
    for one in running:
        record = extended(record, *one, RULES)
    if record is not None:
        assert record.seen_ms - record.began_ms <= 3600 * 1000 + longest_ms
        assert used_day(record).day_ms <= 7200 * 1000 + longest_ms


@given(STEPS)
def test_refused_chat_is_answered_when_the_refusal_states_it(steps: list[tuple[int, int]]) -> None:
    record: UseRecord | None = None
    now_ms = at("2027-11-06T18:00")
    for jump, length in steps:
        now_ms += abs(jump) // 3
        now = arrival(record, now_ms, RULES)
        hit = limit_reached(now, UseLimits(None, 7200))
        if hit is None:
            record = extended(record, now.at_ms, now.at_ms + length, RULES)
            continue
        assert limit_reached(arrival(record, hit.allowed_ms, RULES), UseLimits(None, 7200)) is None
        assert limit_reached(arrival(record, hit.allowed_ms - 1, RULES), UseLimits(None, 7200)) is not None


def test_days_follow_each_other_in_zones_that_change_their_clocks() -> None:
    for zone in (ZONE, "Asia/Beirut", "America/Havana", "Australia/Lord_Howe", "Asia/Kathmandu", "Africa/Cairo"):
        noon = datetime(2024, 1, 1, 12, tzinfo=ZoneInfo(zone))
        days = [day_at(round((noon + timedelta(days=n)).timestamp() * 1000), zone) for n in range(366)]
        assert all(one.end_ms == other.start_ms for one, other in pairwise(days)), zone


ZONES = (ZONE, "America/New_York", "Pacific/Auckland", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kathmandu", "UTC")
REGIONS = [UseRules(float(gap_s), zone) for zone in ZONES for gap_s in (300, 1800, 43_200)]
SOMEWHERE = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 90 * MINUTE_MS), st.integers(0, 30 * 60 * MINUTE_MS)),  # the pause before it
        st.integers(0, 90 * MINUTE_MS),  # its length
        st.sampled_from(REGIONS),
    ),
    max_size=25,
)


@given(
    SOMEWHERE, st.sampled_from(["2027-03-13T09:00", "2027-11-06T20:00", "2027-07-01T23:00"]), st.sampled_from(REGIONS)
)
def test_day_is_what_was_used_since_its_midnight_wherever_it_was_used(
    steps: list[tuple[int, int, UseRules]], start: str, last: UseRules
) -> None:
    """The reference keeps each session for ever, with the longest gap of the regions in which it ran."""
    record: UseRecord | None = None
    sessions: list[tuple[int, int, int]] = []
    now_ms = at(start)
    for pause, length, rules in [*steps, (20 * MINUTE_MS, 0, last)]:
        now_ms += pause
        now = arrival(record, now_ms, rules)
        began, ended, gap = sessions[-1] if sessions else (now_ms, now_ms, 0)
        goes_on = bool(sessions) and now_ms - ended < max(gap, rules.gap_ms)
        zone = ZoneInfo(rules.timezone)
        midnight = datetime.fromtimestamp(now_ms / 1000, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        used = [*sessions, (ended, now_ms, 0)] if goes_on else sessions
        start_ms = round(midnight.timestamp() * 1000)
        assert now.day_ms == sum(max(0, one[1] - max(one[0], start_ms)) for one in used)
        assert (now.is_new, now.session_ms) == (not goes_on, now_ms - began if goes_on else 0)
        if goes_on:
            sessions.pop()
        sessions.append(
            (began if goes_on else now_ms, now_ms + length, max(gap, rules.gap_ms) if goes_on else rules.gap_ms)
        )
        record = extended(record, now.at_ms, now_ms + length, rules)
        assert record.pieces[1] > record.seen_ms - KEPT_MS or len(record.pieces) == 2
        assert len(record.pieces) <= 2 * (KEPT_MS // (5 * MINUTE_MS) + 1)
        now_ms += length
    assert record is not None
    day = used_day(record)
    assert day.date == datetime.fromtimestamp(now_ms / 1000, ZoneInfo(last.timezone)).date().isoformat()


CALIFORNIA, NEW_YORK = UseRules(1800.0, ZONE), UseRules(1800.0, "America/New_York")
AUCKLAND, SHORT = UseRules(1800.0, "Pacific/Auckland"), UseRules(300.0, ZONE)
Detour = tuple[UseRules, int, int]
"""A chat in a region: how many minutes after the end of the last one it arrives, and how long it is."""
ATTACKS: list[tuple[str, str, list[Detour], tuple[int, int]]] = [
    # the chats, then the minutes of the session and of the day for a chat in California at the end of the last one
    ("a region of another date", "10:00", [(CALIFORNIA, 0, 60), (AUCKLAND, 31, 0), (CALIFORNIA, 31, 50)], (50, 110)),
    ("and again", "10:00", [(CALIFORNIA, 0, 60), *[(AUCKLAND, 31, 0), (CALIFORNIA, 31, 20)] * 3], (20, 120)),
    ("east and west in the evening", "20:00", [(CALIFORNIA, 0, 60), (NEW_YORK, 100, 0), (CALIFORNIA, 1, 1)], (2, 62)),
    ("a shorter gap", "10:00", [(CALIFORNIA, 0, 50), (SHORT, 6, 0), (CALIFORNIA, 6, 0)], (62, 62)),
    ("a shorter gap first", "10:00", [(SHORT, 0, 50), (CALIFORNIA, 6, 0)], (56, 56)),
    ("a shorter gap alone ends earlier", "10:00", [(SHORT, 0, 50), (SHORT, 6, 1), (CALIFORNIA, 1, 0)], (2, 52)),
    # Equal dates are not one day: the time of the evening is over when its midnight has passed.
    ("an hour before midnight", "22:00", [(CALIFORNIA, 0, 60), (NEW_YORK, 31, 1), (CALIFORNIA, 33, 0)], (0, 0)),
    ("over midnight", "23:30", [(CALIFORNIA, 0, 40), (NEW_YORK, 5, 5)], (50, 20)),
]


@pytest.mark.parametrize(("_", "start", "detours", "expected"), ATTACKS, ids=[it[0] for it in ATTACKS])
def test_detour_resets_nothing(_: str, start: str, detours: list[Detour], expected: tuple[int, int]) -> None:
    record: UseRecord | None = None
    now_ms = at(f"2027-07-01T{start}")
    for rules, pause, length in detours:
        now_ms += pause * MINUTE_MS
        record = extended(record, arrival(record, now_ms, rules).at_ms, now_ms + length * MINUTE_MS, rules)
        now_ms += length * MINUTE_MS
    now = arrival(record, now_ms, CALIFORNIA)
    assert (now.session_ms // MINUTE_MS, now.day_ms // MINUTE_MS) == expected


@given(SOMEWHERE, st.lists(st.booleans(), min_size=25, max_size=25), st.sampled_from(REGIONS))
def test_time_that_was_kept_in_two_records_is_time_of_one_user(
    steps: list[tuple[int, int, UseRules]], turns: list[bool], rules: UseRules
) -> None:
    """In a region with one gap, which of both records a chat extends does not matter."""
    whole: UseRecord | None = None
    two: dict[bool, UseRecord | None] = {False: None, True: None}
    now_ms = at("2027-07-01T10:00")
    for turn, (pause, length, _) in zip(turns, steps, strict=False):
        arrived_ms, now_ms = now_ms + pause, now_ms + pause + length
        whole = extended(whole, arrived_ms, now_ms, rules)
        two[turn] = extended(two[turn], arrived_ms, now_ms, rules)
    one, other = two.values()
    if one is not None and other is not None:
        assert merged(one, other) == merged(other, one) == whole
        assert merged(merged(one, other), other) == whole


def test_records_of_two_names_without_a_gap_are_one_session_by_the_gap_of_the_chat() -> None:
    """Release 1.0 made such records of those of 0.2."""
    first, second = (
        UseRecord("UTC", 0, 0, (at(since), at(until)))
        for since, until in (("2027-07-01T10:00", "2027-07-01T10:50"), ("2027-07-01T10:55", "2027-07-01T10:55"))
    )
    assert merged(first, second).began_ms == at("2027-07-01T10:55")
    assert merged(first, second, RULES.gap_ms).began_ms == at("2027-07-01T10:00")
