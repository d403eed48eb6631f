"""Times to wait: `retry-after` in every form, and the headers of rate limits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = [
    "MOST_WAIT_S",
    "LimitHeaders",
    "RateLimit",
    "moment_of",
    "now_of",
    "parse_duration_s",
    "positive",
    "read_limits",
    "reset_s",
    "retry_after_s",
    "wait_s",
]


_MOST_S = 31 * 86_400.0
"""Beyond it a wait is nonsense: limits are of a minute, a day or a month."""


_BETWEEN_VALUES = re.compile(r",(?!\s*\d\d[ -])")
"""A comma, but for the one in a date (`Fri, 20 Nov 2026`, `Friday, 20-Nov-26`)."""


_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def retry_after_s(headers: Mapping[str, str], received_at: float) -> float | None:
    """Seconds to wait, None where nothing (or nonsense) is said; a moment in the past is None too, and one years ahead.

    `retry-after-ms` and `x-ms-retry-after-ms` (milliseconds) win over `retry-after` (RFC 9110, section 10.2.3:
    seconds, here also with a fraction, or a date). A date is compared with the provider's own `date` header where
    there is one, so that a clock that is off doesn't matter. Of several values the longest holds.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        waits = [wait for value in _values(headers, name) if (wait := positive(value)) is not None]
        if waits:
            return _sane(max(waits) / 1000)
    waits = [wait for value in _values(headers, "retry-after") if (wait := _wait_s(value, headers, received_at))]
    return max(waits, default=None)


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    """Each value of a field that came more than once, as where a proxy adds its own to the provider's."""
    return _BETWEEN_VALUES.split(headers.get(name, ""))


def _wait_s(value: str, headers: Mapping[str, str], received_at: float) -> float | None:
    seconds = positive(value)
    if seconds is not None:
        return _sane(seconds)
    moment = moment_of(value)
    return _sane(moment - now_of(headers, received_at)) if moment is not None else None


def _sane(wait_s: float) -> float | None:
    return wait_s if 0 < wait_s <= _MOST_S else None


def now_of(headers: Mapping[str, str], received_at: float) -> float:
    """What time it is at the provider: by its own `date`, so that a clock that is off doesn't matter, else by ours."""
    return moment_of(headers.get("date", "")) or received_at


def positive(value: str | None) -> float | None:
    """A finite number above 0."""
    try:
        # Python's own numbers may have underscores in them.
        number = float(value) if value is not None and "_" not in value else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def moment_of(value: str) -> float | None:
    """An HTTP date as Unix time."""
    try:
        moment = parsedate_to_datetime(value)
        # A date without a zone (the oldest form that RFC 9110 has a recipient read) is not our local time.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def parse_duration_s(value: str) -> float | None:
    """Seconds of a duration as Go writes it: `22s`, `1.5s`, `373.8ms`, `6m0s`; None for anything else."""
    match = _DURATION.fullmatch(value.strip()[:64])
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


MOST_WAIT_S = 60.0
"""The longest wait that is concluded from a reset: these limits are of a minute, and a reset tells when *all* of one is
back, where a request needs a part of it."""


_EARLIEST_UNIX = 1e9


_MILLISECONDS_UNIX = 1e11


_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class LimitHeaders:
    """Names of headers. form: with `{part}` for remaining and reset, and `{of}` for each word of `of`."""

    form: str = "x-ratelimit-{part}-{of}"
    of: tuple[str, ...] = ("requests", "tokens")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Of one limit: so many are left, all are back after so many seconds; None if not said."""

    remaining: int | None = None
    resets_after_s: float | None = None


def read_limits(headers: Mapping[str, str], received_at: float, names: LimitHeaders) -> tuple[RateLimit, ...]:
    """The limits that the headers tell of. What isn't understood counts as not said; never raises."""
    limits = []
    for word in names.of:
        remaining, reset = (headers.get(names.form.format(part=part, of=word)) for part in _PARTS)
        if remaining is not None or reset is not None:
            limits.append(RateLimit(_count(remaining), reset_s(reset or "", headers, received_at)))
    return tuple(limits)


def wait_s(limits: Iterable[RateLimit]) -> float | None:
    """How long until no limit is spent any more, `MOST_WAIT_S` at the most; None where none is said to be spent."""
    waits = [limit.resets_after_s for limit in limits if limit.remaining == 0 and limit.resets_after_s is not None]
    return min(max(waits), MOST_WAIT_S) if waits else None


def reset_s(text: str, headers: Mapping[str, str], received_at: float) -> float | None:
    """Seconds until the moment that a reset names: seconds, a duration (`6m0s`, `120ms`), a moment in RFC 3339, as an
    HTTP date or in Unix time (also milliseconds). None for anything else, and for what is past or years away."""
    text = text.strip()[:64]
    number = positive(text)
    if number is not None and number < _EARLIEST_UNIX:
        return number
    wait = parse_duration_s(text)
    if wait is None:
        moment = _moment(text) if number is None else number / (1000 if number > _MILLISECONDS_UNIX else 1)
        wait = moment - now_of(headers, received_at) if moment is not None else 0.0
    return wait if 0 < wait < _EARLIEST_UNIX else None


_PARTS = ("remaining", "reset")


def _count(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _moment(text: str) -> float | None:
    """A moment with its zone, as Unix time."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return moment_of(text)
