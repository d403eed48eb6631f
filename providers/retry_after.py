"""How long a provider asks us to wait, in every form that the field uses."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["moment_of", "now_of", "parse_duration_s", "positive", "retry_after_s"]

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
