"""Sessions of the console: how long they last, and failed sign-ins."""

import pytest

from gateway.console.sessions import IDLE_S, LONGEST_S, FailureLimit, Sessions
from tests.gateway.clocks import SetClock


@pytest.fixture
def clock_and_sessions() -> tuple[SetClock, Sessions]:
    clock = SetClock(1_000_000.0)
    return clock, Sessions(clock)


def test_session_lasts_eight_hours_at_most_and_an_hour_without_use(
    clock_and_sessions: tuple[SetClock, Sessions],
) -> None:
    clock, sessions = clock_and_sessions
    first, second = sessions.begin("a" * 64), sessions.begin("b" * 64)
    assert (sessions.token_of(first), sessions.token_of(second)) == ("a" * 64, "b" * 64)
    clock.now += IDLE_S - 1
    assert sessions.token_of(first) == "a" * 64
    clock.now += 2
    assert (sessions.token_of(first), sessions.token_of(second)) == ("a" * 64, None)
    for _ in range(8):
        clock.now += IDLE_S - 10
        alive = sessions.token_of(first)
    assert alive is None
    assert clock.now - 1_000_000.0 < LONGEST_S + IDLE_S


def test_session_that_was_ended_or_never_began_has_no_token(clock_and_sessions: tuple[SetClock, Sessions]) -> None:
    _, sessions = clock_and_sessions
    cookie = sessions.begin("a" * 64)
    sessions.end(cookie)
    assert [sessions.token_of(one) for one in (cookie, "", "é", "x" * 5000)] == [None] * 4


def test_clock_that_is_set_back_ends_sessions_that_would_last_too_long(
    clock_and_sessions: tuple[SetClock, Sessions],
) -> None:
    clock, sessions = clock_and_sessions
    cookie = sessions.begin("a" * 64)
    clock.now -= 30
    assert sessions.token_of(cookie) == "a" * 64, "a clock is corrected by seconds"
    clock.now -= 31
    assert sessions.token_of(cookie) is None


def test_watching_does_not_keep_a_session_alive() -> None:
    clock = SetClock(1_000_000.0)
    sessions = Sessions(clock)
    cookie = sessions.begin("a" * 64)
    for _ in range(3):
        clock.now += IDLE_S / 2
        alive = sessions.token_of(cookie, is_use=False)
    assert alive is None


def test_eleventh_failure_of_a_minute_has_to_wait() -> None:
    clock = SetClock(1_000_000.0)
    limit = FailureLimit(clock)
    for _ in range(10):
        assert limit.wait_s("192.0.2.1") == 0
        limit.note("192.0.2.1")
        clock.now += 1
    assert limit.wait_s("192.0.2.1") == 50
    assert limit.wait_s("192.0.2.2") == 0
    clock.now += 50
    assert limit.wait_s("192.0.2.1") == 0
