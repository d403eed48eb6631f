"""Values with a unit, as the config file writes them (`500ms`, `20%`, `30d`), and the types that parse them once.

A parser gets what stands in the file. It returns the value that the gateway works with, or raises `UnitError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from math import isfinite
from typing import Annotated

from gateway.model.section import FileForm, UnitError

UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
DURATION = r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m)$"
AGE = r"^([1-9][0-9]{0,3})(h|d)$"
LIFETIME = r"^([1-9][0-9]{0,3})(m|h|d)$"
VISIBLE = r"^[!-~]{1,256}$"
DOCUMENT_URL = r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?#][!#-;=?-~]*)?$"
"""An https URL without the characters that could end an attribute or a tag in a page that an app makes of it."""

SMALLEST_SAMPLE = 0.000001
"""One of a million requests."""

_SAMPLE = r"^(100|[0-9]{1,2}(?:\.[0-9]{1,4})?)%$"
_SHARE = r"^(100|[0-9]{1,2})%$"
_PARTIAL = r"^([0-9]{1,2})%$"
_SHARE_ABOVE_ZERO = r"^(100|[1-9][0-9]?)%$"
_RISE = r"^\+([1-9][0-9]{0,3})%$"
_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})$"
_LINE = r"^\S(.{0,254}\S)?$"
_LONGEST_S = 86_400.0
_BYTES = r"^([1-9][0-9]{0,5}) (KB|MB)$"
_UNIT_BYTES = {"KB": 1024, "MB": 1024 * 1024}
_MOST_BYTES = 1024 * 1024 * 1024 * 1024
_HOURS = r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
_DAY_MINUTES = 24 * 60
_LONGEST_LINE = 256


def parse_seconds_or_zero(value: object) -> float:
    """Return the seconds of a duration: 0.5 of `500ms`, 120 of `2m`."""
    match = re.fullmatch(DURATION, value) if isinstance(value, str) else None
    if match is not None:
        seconds = float(match[1]) * UNIT_S[match[2]]
        if seconds > _LONGEST_S:
            raise UnitError("a time must not be longer than a day")
        return seconds
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        raise UnitError("a time needs a unit", f"write {value}s, {value}ms or {value}m")
    raise UnitError("must be a time with its unit", "such as 500ms, 5s or 2m")


def parse_seconds(value: object) -> float:
    """Return the seconds of a duration that is longer than zero."""
    seconds = parse_seconds_or_zero(value)
    if seconds <= 0:
        raise UnitError("a time must be longer than nothing")
    return seconds


def parse_age_s(age: str) -> float:
    """Return the seconds of an age or a lifetime: 43200 of `12h`."""
    return float(age[:-1]) * UNIT_S[age[-1]]


def parse_share(value: object) -> float:
    """Return the share of a percentage above zero: 0.2 of `20%`."""
    if isinstance(value, str) and re.fullmatch(_SHARE_ABOVE_ZERO, value):
        return float(value.removesuffix("%")) / 100
    raise UnitError("must be a share from 1% to 100%, in whole percent", "such as 20%")


def parse_sample(value: object) -> float:
    """Return the share of a sample: 0.1 of `0.1` or `10%`."""
    share = math.nan
    if isinstance(value, str) and re.fullmatch(_SAMPLE, value):
        share = float(value.removesuffix("%")) / 100
    elif isinstance(value, int | float) and not isinstance(value, bool) and value <= 1:
        share = float(value)
    if SMALLEST_SAMPLE <= share <= 1:
        return share
    raise UnitError(
        f"must be a share from {SMALLEST_SAMPLE:f} to 1, or a percentage",
        "write 0.1 or 10% to keep one of ten, or 1 to keep all",
    )


def parse_share_or_off(value: object) -> float | None:
    """Return the share of a percentage, or None for `off`."""
    if value == "off":
        return None
    if isinstance(value, str) and re.fullmatch(_SHARE, value):
        return float(value.removesuffix("%")) / 100
    raise UnitError("must be a share from 0% to 100%, in whole percent, or the word off", "such as 20%")


def parse_partial_percent(value: object) -> int:
    """Return the number of a whole percentage below 100%: 30 of `30%`."""
    if isinstance(value, str) and re.fullmatch(_PARTIAL, value, re.ASCII):
        return int(value.removesuffix("%"))
    raise UnitError("must be a share from 0% to 99%, in whole percent", "such as 20%")


def parse_rise_or_off(value: object) -> float | None:
    """Return the rise of a percentage, 0.5 of `+50%`, or None for `off`."""
    if value == "off":
        return None
    if isinstance(value, str) and re.fullmatch(_RISE, value):
        return float(value[1:].removesuffix("%")) / 100
    raise UnitError("must be a rise in whole percent, or the word off", "such as +50%")


def parse_bytes(value: object) -> int:
    """Return a number of bytes: 8388608 of `8 MB`."""
    if isinstance(value, str) and (match := re.fullmatch(_BYTES, value, re.ASCII)):
        return int(match[1]) * _UNIT_BYTES[match[2]]
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST_BYTES:
        return value
    raise UnitError("must be a number of bytes, or a size in KB or MB", "such as 8 MB")


def parse_day(value: object) -> date:
    """Return the date of a day such as `2027-03-01`."""
    if isinstance(value, str) and re.fullmatch(_DAY, value, re.ASCII):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise UnitError("there is no such day", "write year-month-day, such as 2027-03-01") from None
    raise UnitError("must be a day", "write year-month-day, such as 2027-03-01")


def parse_instant(value: object) -> float:
    """Return the Unix time of an instant such as `2026-11-27T10:00:00Z`."""
    if isinstance(value, str) and re.fullmatch(_INSTANT, value, re.ASCII):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            raise UnitError("there is no such time", "write it such as 2026-11-27T10:00:00Z") from None
    hint = "write it such as 2026-11-27T10:00:00Z or 2026-11-27T11:00:00+01:00"
    raise UnitError("must be a time with its zone", hint)


def parse_line(value: object) -> str:
    """Return the text, which must be one printable line."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_LINE and value.isprintable() and value.strip() == value:
        return value
    raise UnitError(
        f"must be 1 to {_LONGEST_LINE} printable characters on one line, and not begin or end with a space",
        "" if isinstance(value, str) else "put it in quotes",
    )


def parse_hours(value: object) -> tuple[int, int]:
    """Return the minutes after midnight of the start and the end of daily hours: 360 and 1320 of `06:00-22:00`."""
    if not isinstance(value, str) or re.fullmatch(_HOURS, value, re.ASCII) is None:
        raise UnitError("must be the start and the end of daily hours", "such as 06:00-22:00, or 20:00-06:00")
    start, end = (int(time[:2]) * 60 + int(time[3:]) for time in value.split("-"))
    if start == end % _DAY_MINUTES:
        raise UnitError("begins when it ends", "leave it out for the whole day, or use `refuse` for none of it")
    return start, end


def _text(pattern: str, *examples: str) -> dict[str, object]:
    """Return the JSON Schema of a text with this pattern."""
    shown = {"examples": list(examples)} if examples else {}
    return {"type": "string", "pattern": pattern, **shown}


DURATION_SCHEMA = _text(DURATION, "500ms", "5s", "2m")
_OFF = _text("^off$")

Seconds = Annotated[float, FileForm(parse_seconds, DURATION_SCHEMA)]
SecondsOrZero = Annotated[float, FileForm(parse_seconds_or_zero, DURATION_SCHEMA)]
AgeSeconds = Annotated[float, FileForm(parse_age_s, _text(AGE, "12h", "30d"), has_pattern_error=True)]
LifetimeSeconds = Annotated[float, FileForm(parse_age_s, _text(LIFETIME, "15m", "12h"), has_pattern_error=True)]
WholeLifetime = Annotated[
    int, FileForm(lambda age: round(parse_age_s(age)), _text(LIFETIME, "15m", "12h"), has_pattern_error=True)
]
Sample = Annotated[
    float,
    FileForm(
        parse_sample,
        {
            "anyOf": [
                {"type": "number", "minimum": SMALLEST_SAMPLE, "maximum": 1, "examples": [0.1]},
                _text(_SAMPLE, "10%"),
            ]
        },
    ),
]
Share = Annotated[float, FileForm(parse_share, _text(_SHARE_ABOVE_ZERO, "50%"))]
PartialPercent = Annotated[int, FileForm(parse_partial_percent, _text(_PARTIAL, "20%"))]
ShareOrOff = Annotated[float | None, FileForm(parse_share_or_off, {"anyOf": [_text(_SHARE, "20%"), _OFF]})]
RiseOrOff = Annotated[float | None, FileForm(parse_rise_or_off, {"anyOf": [_text(_RISE, "+50%"), _OFF]})]
ByteCount = Annotated[
    int,
    FileForm(
        parse_bytes,
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": _MOST_BYTES}, _text(_BYTES, "512 KB", "8 MB")]},
    ),
]
Day = Annotated[date, FileForm(parse_day, _text(_DAY, "2027-03-01"))]
Instant = Annotated[float, FileForm(parse_instant, _text(_INSTANT, "2026-11-27T10:00:00Z"))]
Visible = Annotated[str, FileForm(str, _text(VISIBLE), has_pattern_error=True)]
Line = Annotated[str, FileForm(parse_line, _text(_LINE))]
DailyHours = Annotated[tuple[int, int], FileForm(parse_hours, _text(_HOURS, "06:00-22:00"))]


def at_second(time_s: float) -> str:
    """Return a Unix time as answers and errors have it."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def first_names(names: Sequence[str], most: int) -> str:
    """Return names in a line. If there are more than `most`, the rest is a number."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
