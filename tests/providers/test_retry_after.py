"""The time to wait, in every form that providers send."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.reading.rate_limits import parse_duration_s, retry_after_s
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


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2),
        ({"retry-after": " 2 "}, 2),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "86400"}, 86400),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250.5", "retry-after": "9"}, 0.2505),
        ({"x-ms-retry-after-ms": "30", "retry-after": "9"}, 0.03),
        ({"retry-after-ms": "40", "x-ms-retry-after-ms": "30"}, 0.04),
        ({"retry-after-ms": "soon", "x-ms-retry-after-ms": "-1", "retry-after": "9"}, 9),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9),
        # The three forms of a date that RFC 9110, section 5.6.7, has a recipient read.
        ({"retry-after": "Fri, 20 Nov 2026 06:30:00 GMT"}, 30),
        ({"retry-after": "Friday, 20-Nov-26 06:30:00 GMT"}, 30),
        ({"retry-after": "Fri Nov 20 06:30:00 2026"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 06:30:00 -0000"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 08:30:00 +0200"}, 30),
        # The provider's own clock wins over ours.
        ({"retry-after": "Fri, 20 Nov 2026 06:30:00 GMT", "date": "Fri, 20 Nov 2026 06:29:50 GMT"}, 10),
        ({"retry-after": "Fri, 20 Nov 2026 06:30:00 GMT", "date": "Fri Nov 20 06:29:50 2026"}, 10),
        ({"retry-after": "Fri, 20 Nov 2026 06:30:00 GMT", "date": "yesterday"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 06:30:00 GMT", "date": "Fri, 20 Nov 2026 07:00:00 GMT"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 06:29:30 GMT"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 06:00:00 GMT"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "inf"}, None),
        # A limit may apply to a month, but not to years.
        ({"retry-after": "2678400"}, 2678400),
        ({"retry-after": "2678401"}, None),
        ({"retry-after": "99999999999"}, None),
        ({"retry-after-ms": "99999999999999"}, None),
        ({"retry-after": "Wed, 21 Oct 2065 07:28:00 GMT"}, None),
        # A field that came twice, as where a proxy adds its own: the longest.
        ({"retry-after": "1, 1"}, 1),
        ({"retry-after": "2,20"}, 20),
        ({"retry-after": "3, soon"}, 3),
        ({"retry-after": "3, 99999999999"}, 3),
        ({"retry-after": "5, Fri, 20 Nov 2026 06:30:00 GMT"}, 30),
        ({"retry-after": "Friday, 20-Nov-26 06:30:00 GMT, Fri, 20 Nov 2026 06:29:40 GMT"}, 30),
        ({"retry-after": "Fri, 20 Nov 2026 06:30:00 GMT, 60"}, 60),
        ({"retry-after-ms": "20, 40", "retry-after": "9"}, 0.04),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 99 Nov 2026 06:30:00 GMT"}, None),
        ({"retry-after": "Fri, 20 Nov 99999 06:30:00 GMT"}, None),
    ],
)
def test_the_wait_that_headers_name(headers: dict[str, str], wait: float | None) -> None:
    assert retry_after_s(headers, NOW) == (None if wait is None else pytest.approx(wait))


@unhurried
@given(st.dictionaries(st.sampled_from(["retry-after-ms", "x-ms-retry-after-ms", "retry-after", "date"]), st.text()))
def test_any_headers_give_a_positive_wait_or_none(headers: dict[str, str]) -> None:
    wait = retry_after_s(headers, NOW)
    assert wait is None or 0 < wait < float("inf")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("22s", 22),
        ("22.5s", 22.5),
        ("45.837906927s", 45.837906927),
        ("373.8ms", 0.3738),
        ("120ms", 0.12),
        ("6m0s", 360),
        ("6m", 360),
        ("1h", 3600),
        ("1h2m3s4ms", 3723.004),
        (" 1s ", 1),
        ("0s", 0),
        ("", None),
        ("22", None),
        ("s", None),
        ("-1s", None),
        ("1s2m", None),
        ("1d", None),
        ("1.s", None),
        ("1s later", None),
    ],
)
def test_a_duration_as_go_writes_it(text: str, seconds: float | None) -> None:
    assert parse_duration_s(text) == (None if seconds is None else pytest.approx(seconds))


@unhurried
@given(st.text() | st.from_regex(r"[0-9.hms]+", fullmatch=True))
def test_no_duration_raises_or_is_negative(text: str) -> None:
    seconds = parse_duration_s(text)
    assert seconds is None or 0 <= seconds < float("inf")
