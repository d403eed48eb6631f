"""What a provider's headers say of its limits, in one small value; which headers those are is data of its adapter.

Sources, read 2026-11-20: OpenAI's API reference and Azure's answers (`x-ratelimit-…`: a duration as Go writes it, or
whole seconds), platform.claude.com on rate limits (`anthropic-ratelimit-…`: RFC 3339), a capture of Mistral's headers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from providers.retry_after import moment_of, now_of, parse_duration_s, positive

__all__ = ["MOST_WAIT_S", "LimitHeaders", "RateLimit", "read_limits", "reset_s", "wait_s"]

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
