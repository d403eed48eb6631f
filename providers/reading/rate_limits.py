"""Read the time to wait from `retry-after` in every form, and from rate limit headers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from providers.value import Value

_MOST_S = 31 * 86_400.0
"""A longer wait is ignored: rate limits apply to a minute, a day or a month."""
_BETWEEN_VALUES = re.compile(r",(?!\s*\d\d[ -])")
"""A comma that is not inside a date (`Fri, 20 Nov 2026`, `Friday, 20-Nov-26`)."""
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_WORDS = re.compile(r" ([smh])(?:econd|inute|our)s?\Z")
MOST_WAIT_S = 60.0
"""The longest wait that is derived from a reset. These limits apply to a minute, and a reset is the time at which the
whole limit is restored, while a request needs only a part of it."""
_EARLIEST_UNIX = 1e9
_MILLISECONDS_UNIX = 1e11
_MOST_DIGITS = 18
_PARTS = ("remaining", "reset")
_OF_GATEWAYS = ("x-ratelimit-{part}", "ratelimit-{part}")
"""Headers of the only limit of a server or a gateway, such as Envoy's and Kong's."""
_IN_A_SENTENCE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T| at | )(\d\d:\d\d(?::\d\d)?)(?:\.\d{1,9})?\s?(UTC|Z|[+-]\d\d:?\d\d)?", re.ASCII
)


def retry_after_s(headers: Mapping[str, str], received_at: float) -> float | None:
    """Return the seconds to wait, or None if the headers have no valid value. Past and far future times are invalid.

    `retry-after-ms` and `x-ms-retry-after-ms` (milliseconds) have priority over `retry-after` (RFC 9110, section
    10.2.3: seconds, here also with a fraction, or a date). A date is compared with the provider's `date` header if
    there is one, so that a wrong clock does not matter. Of several values the longest applies.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        waits = [wait for value in _values(headers, name) if (wait := positive(value)) is not None]
        if waits:
            return _plausible_wait(max(waits) / 1000)
    waits = [wait for value in _values(headers, "retry-after") if (wait := _wait_s(value, headers, received_at))]
    return max(waits, default=None)


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    """Return each value of a header that was sent more than once, for example by a proxy and by the provider."""
    return _BETWEEN_VALUES.split(headers.get(name, ""))


def _wait_s(value: str, headers: Mapping[str, str], received_at: float) -> float | None:
    seconds = positive(value)
    if seconds is not None:
        return _plausible_wait(seconds)
    moment = moment_of(value)
    return _plausible_wait(moment - now_of(headers, received_at)) if moment is not None else None


def _plausible_wait(wait_s: float) -> float | None:
    return wait_s if 0 < wait_s <= _MOST_S else None


def now_of(headers: Mapping[str, str], received_at: float) -> float:
    """Return the time at the provider, from its `date` header in case the clock here is wrong, or `received_at`."""
    return moment_of(headers.get("date", "")) or received_at


def positive(value: str | None) -> float | None:
    """Return the text as a finite number above 0, or None."""
    try:
        # Python accepts underscores in numbers.
        number = float(value) if value is not None and "_" not in value else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def moment_of(value: str) -> float | None:
    """Return an HTTP date as Unix time, or None."""
    try:
        moment = parsedate_to_datetime(value)
        # A date without a time zone (the oldest form that RFC 9110 requires a recipient to read) is in UTC.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def parse_duration_s(value: str) -> float | None:
    """Return the seconds of a duration in Go's format (`22s`, `1.5s`, `373.8ms`, `6m0s`) or a word, or None."""
    match = _DURATION.fullmatch(_WORDS.sub(r"\1", value.strip()[:64]))
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


class LimitHeaders(Value, frozen=True):
    """The names of a provider's rate limit headers.

    Examples:
        >>> from providers.contract import LimitHeaders
        >>> headers = LimitHeaders("parrot-{of}-{part}", ("requests", "words"))
    """

    form: str = "x-ratelimit-{part}-{of}"
    """The pattern of the names, with `{part}` for `remaining` or `reset`, and `{of}` for each word of `of`."""
    of: tuple[str, ...] = ("requests", "tokens")
    """The limited quantities."""


class RateLimit(Value, frozen=True):
    """The requests or tokens that are left of a rate limit, and the seconds until all of it is restored, or None."""

    remaining: int | None = None
    resets_after_s: float | None = None


def moment_in(sentence: str, zone: str) -> str:
    """Return the first date and time in a sentence in RFC 3339, or "". `zone` is the offset if it states none."""
    found = _IN_A_SENTENCE.search(sentence)
    return f"{found[1]}T{found[2]}{(found[3] or zone).replace('UTC', 'Z')}" if found else ""


def read_limits(headers: Mapping[str, str], received_at: float, names: LimitHeaders) -> tuple[RateLimit, ...]:
    """Return the rate limits in the headers. Values that are not understood count as unknown. It never raises."""
    limits = []
    for form in (*(names.form.replace("{of}", word) for word in names.of), *_OF_GATEWAYS):
        remaining, reset = (headers.get(form.format(part=part)) for part in _PARTS)
        if remaining is not None or reset is not None:
            limits.append(RateLimit(_count(remaining), reset_s(reset or "", headers, received_at)))
    return tuple(limits)


def wait_s(limits: Iterable[RateLimit]) -> float | None:
    """Return the seconds until no limit is exhausted (at most `MOST_WAIT_S`), or None if none is exhausted."""
    waits = [limit.resets_after_s for limit in limits if limit.remaining == 0 and limit.resets_after_s is not None]
    return min(max(waits), MOST_WAIT_S) if waits else None


def reset_s(text: str, headers: Mapping[str, str], received_at: float) -> float | None:
    """Return the seconds until a reset, or None for an unknown format and for times in the past or years ahead.

    The text has seconds, a duration (`6m0s`, `120ms`), or a time in RFC 3339, as an HTTP date or in Unix time (seconds
    or milliseconds).
    """
    text = text.strip()[:64]
    number = positive(text)
    if number is not None and number < _EARLIEST_UNIX:
        return number
    wait = parse_duration_s(text)
    if wait is None:
        moment = _moment(text) if number is None else number / (1000 if number > _MILLISECONDS_UNIX else 1)
        wait = moment - now_of(headers, received_at) if moment is not None else 0.0
    return wait if 0 < wait < _EARLIEST_UNIX else None


def _count(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _moment(text: str) -> float | None:
    """Return a time with a time zone as Unix time, or None."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return moment_of(text)
