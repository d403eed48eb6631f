"""The time to wait, in every form that providers send."""

import math
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.failures import FailureKind
from providers.reading.rate_limits import (
    MOST_WAIT_S,
    LimitHeaders,
    RateLimit,
    parse_duration_s,
    read_limits,
    reset_s,
    retry_after_s,
    wait_s,
)
from providers.registry import load_registry
from providers.wire import WireResponse
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried

NOW = 1_795_156_170.0  # Fri, 20 Nov 2026 06:29:30 GMT


@pytest.fixture(params=["UTC", "Asia/Tokyo"], autouse=True)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The waits do not depend on the local time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@cases("headers", "wait")
def test_the_wait_that_headers_name(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after_s(headers, NOW) == (None if wait is None else pytest.approx(wait))


@unhurried
@given(st.dictionaries(st.sampled_from(["retry-after-ms", "x-ms-retry-after-ms", "retry-after", "date"]), st.text()))
def test_any_headers_give_a_positive_wait_or_none(headers: dict[str, str]) -> None:
    wait = retry_after_s(headers, NOW)
    assert wait is None or 0 < wait < float("inf")


@cases("text", "seconds")
def test_a_duration_as_go_writes_it(text: str, seconds: float | None) -> None:
    assert parse_duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@unhurried
@given(st.text() | st.from_regex(r"[0-9.hms]+", fullmatch=True))
def test_no_duration_raises_or_is_negative(text: str) -> None:
    seconds = parse_duration_s(text)
    assert seconds is None or 0 <= seconds < float("inf")


# --- rate limits ----------------------------------------------------------------------------------

ADAPTERS = load_registry().adapters
BODY = b'{"error": {"message": "slow down", "type": "x", "code": "rate_limit_exceeded"}}'


@cases("text", "seconds")
def test_every_form_of_a_reset(text: str, seconds: float | None) -> None:
    assert reset_s(text, {}, NOW) == (None if seconds is None else pytest.approx(seconds))


def test_a_moment_is_measured_by_the_providers_own_clock() -> None:
    headers = {"date": "Fri, 20 Nov 2026 06:29:50 GMT"}
    assert reset_s("2026-11-20T06:30:00Z", headers, NOW) == 10
    assert reset_s("30", headers, NOW) == 30


@cases("headers", "limits", "wait")
def test_the_limits_and_the_wait(headers: dict[str, str], limits: tuple[RateLimit, ...], wait: float | None) -> None:
    found = read_limits(headers, NOW, LimitHeaders())
    assert found == limits
    assert wait_s(found) == wait


def test_endless_digits_mean_nothing() -> None:
    assert read_limits({"x-ratelimit-remaining-tokens": "9" * 5000}, NOW, LimitHeaders()) == (RateLimit(),)
    assert reset_s("9" * 400, {}, NOW) is None


@unhurried
@given(st.text() | st.from_regex(r"[0-9.hmsTZ:+-]+", fullmatch=True), st.text(), st.text())
def test_any_rate_limit_header_gives_a_plausible_wait(reset: str, remaining: str, date: str) -> None:
    headers = {
        "x-ratelimit-reset-tokens": reset,
        "x-ratelimit-remaining-tokens": remaining,
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": reset,
        "date": date,
    }
    limits = read_limits(headers, NOW, LimitHeaders())
    for limit in limits:
        assert limit.resets_after_s is None or (limit.resets_after_s > 0 and math.isfinite(limit.resets_after_s))
    wait = wait_s(limits)
    assert wait is None or 0 < wait <= MOST_WAIT_S


def waited(provider: str, status: int = 429, body: bytes = BODY, **headers: str) -> float | None:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    failure = ADAPTERS[provider].classify_error(WireResponse(status, sent, body, NOW))
    return failure.retry_after_s


SPENT = {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "7s"}


@cases("provider", "wait")
def test_a_429_without_a_wait_takes_the_reset_of_what_is_spent(provider: str, wait: float | None) -> None:
    assert waited(provider, **SPENT) == wait
    assert waited(provider, **{**SPENT, "x_ratelimit_remaining_tokens": "5"}) is None
    assert waited(provider, **SPENT, retry_after="2") == 2.0


def test_only_a_rate_limit_has_a_wait() -> None:
    assert waited("openai", 500, b"{}", **SPENT) is None
    assert waited("openai", 429, b'{"error": {"type": "insufficient_quota"}}', **SPENT) is None
    response = WireResponse(429, {}, b"{}", NOW)
    assert ADAPTERS["openai"].classify_error(response).kind is FailureKind.RATE_LIMITED


def test_compatible_vendor_names_its_own_rate_limit_headers() -> None:
    names = LimitHeaders("x-ratelimit-{part}-{of}-minute", ("req", "tokens"))
    headers = {"x-ratelimit-limit-req-minute": "720", "x-ratelimit-remaining-req-minute": "0"}
    assert read_limits(headers, NOW, names) == (RateLimit(0),)
    # Mistral's headers: if it ever sends a reset, it is read.
    spent = {"x_ratelimit_remaining_req_minute": "0", "x_ratelimit_reset_req_minute": "4"}
    assert waited("mistral", body=b'{"type": "rate_limited"}', **spent) == 4.0
