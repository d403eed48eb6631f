"""Field types of the configuration file: durations, percentages, names and hashes, with their units and forms."""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise
from math import isfinite
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, PydanticKnownError


class Section(BaseModel):
    """A mapping with known keys; its values are never shown in an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


_VISIBLE = r"^[!-~]{1,256}$"


_HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"


_PROJECT = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"


_FIELD = r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$"


_DURATION = r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m)$"


_SHARE_OF_ANSWERS = r"^p[5-9][0-9]$"


_ORIGIN = r"([a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\]))(:[0-9]{1,5})?(?:/.*)?"


_CURRENCY = r"^[A-Z]{3}$"


_AGE = r"^([1-9][0-9]{0,3})(h|d)$"


_DAY = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"


_LINE = r"^\S(.{0,254}\S)?$"


# Without what could end an attribute or a tag in the page that an app makes of it.
_DOCUMENT = r"^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?([/?#][!#-;=?-~]*)?$"


_LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"


_PHONE = r"^[0-9+*#][0-9 ()+*#-]{1,30}$"


# The characters that the standard allows in a value of the AIGC object: visible, and neither a quote nor a backslash.
_PRODUCER = r"^[!#-\[\]-~]{1,128}$"


_ADMIN_KEY = r"^ed25519:[A-Za-z0-9+/]{43}=$"


_KEY_HASH = r"^sha256:[0-9a-fA-F]{64}$"


MEANINGS = {
    _NAME: "must be 1 to 64 letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
    _VISIBLE: "must be 1 to 256 characters of visible ASCII, without spaces",
    _HEADER: "must be the name of a header",
    _PROJECT: "must be the id of a cloud project or a workspace: letters, digits, `-`, `_`, `.` and `:`",
    _FIELD: "must be the name of a request field",
    _LANGUAGE: "must be a language tag, such as de, zh-Hant or pt-BR",
    _CURRENCY: "must be the code of a currency, such as EUR",
    _PHONE: "must be a number to call, such as 112",
    _PRODUCER: "must be 1 to 128 characters of visible ASCII, without spaces, quotes and backslashes",
    _DOCUMENT: "must be an https URL, such as https://www.example.cn/filing.pdf",
    _ADMIN_KEY: "must be a public key: `ed25519:` and 44 characters of base64 (`gateway key new --ed25519` makes one)",
    _AGE: "must be an age in hours or days, such as 12h or 30d",
}
"""What a pattern of the schema asks for, in words."""


UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


_USUAL_PORTS = {"http": ":80", "https": ":443"}


_LONGEST_S = 86_400.0


_LONGEST_LINE = 256


def _listed(value: object) -> object:
    """One word as a list of one."""
    if value is None or isinstance(value, list):
        return value
    if isinstance(value, str):
        return [value]
    raise mistake("must be a string, or a list of strings", "" if isinstance(value, dict) else "put it in quotes")


def seconds(duration: str) -> float:
    """The seconds of a duration that the schema accepted: 0.5 of `500ms`, 120 of `2m`."""
    match = re.fullmatch(_DURATION, duration)
    return float(match[1]) * UNIT_S[match[2]] if match else 0.0


def age_s(age: str) -> float:
    """The seconds of an age that the schema accepted: 43200 of `12h`."""
    return float(age[:-1]) * (86_400 if age.endswith("d") else 3_600)


def _duration(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        if seconds(value) > _LONGEST_S:
            raise mistake("a time must not be longer than a day")
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        raise mistake("a time needs a unit", f"write {value}s, {value}ms or {value}m")
    raise mistake("must be a time with its unit", "such as 500ms, 5s or 2m")


def _duration_above_zero(value: object) -> str:
    text = _duration(value)
    if seconds(text) <= 0:
        raise mistake("a time must be longer than nothing")
    return text


def _hedge_after(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_SHARE_OF_ANSWERS, value):
        return value
    if isinstance(value, str) and re.fullmatch(_DURATION, value):
        return _duration_above_zero(value)
    raise mistake("must be p50 to p99, or a time with its unit", "such as p95 or 800ms")


def _day(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_DAY, value, re.ASCII):
        try:
            date.fromisoformat(value)
        except ValueError:
            raise mistake("there is no such day", "write year-month-day, such as 2027-03-01") from None
        return value
    raise mistake("must be a day", "write year-month-day, such as 2027-03-01")


def _line(value: object) -> str:
    if isinstance(value, str) and 0 < len(value) <= _LONGEST_LINE and value.isprintable() and value.strip() == value:
        return value
    raise mistake(
        f"must be 1 to {_LONGEST_LINE} printable characters on one line, and not begin or end with a space",
        "" if isinstance(value, str) else "put it in quotes",
    )


def _key_hash(value: object) -> object:
    """The hash, lower case. A value that is none may be a key, so the message never shows it."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(_KEY_HASH, value):
        return value.lower()
    if value.startswith("sha256:"):
        found = len(value) - len("sha256:")
        raise mistake(f"64 hexadecimal digits must follow `sha256:`, found {found} characters", _NEW_KEY)
    if re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise mistake("must name its algorithm", "put `sha256:` before it")
    raise mistake("is no hash of a key; a key itself must not be in the file", _NEW_KEY)


def _origin(value: object) -> object:
    """An origin as a browser writes it (RFC 6454, section 6.2): scheme, host, and a port that isn't the usual one."""
    if not isinstance(value, str) or value == "*":
        return value
    match = re.fullmatch(_ORIGIN, value.lower().rstrip("/"))
    meant = match and match[1] + (match[2] or "").removesuffix(_USUAL_PORTS.get(match[1].partition(":")[0], ""))
    if meant == value:
        return value
    if value.lower() == "null":
        raise mistake("`null` is what any sandboxed page or local file says of itself", "name the page's own origin")
    if "*" in value:
        raise mistake("must be one origin, or `*` alone for every page", "list each origin by itself")
    hint = f"write {meant}" if meant else "such as https://app.example or http://localhost:5173"
    raise mistake("must be an origin as a browser writes it", hint)


_NEW_KEY = "`gateway key new` makes a key and shows its hash"


def mistake(message: str, hint: str = "") -> PydanticCustomError:
    """A validator's error: what is wrong, and the hint that says how to mend it."""
    return PydanticCustomError("config", "{message}", {"message": message, "hint": hint})


Name = Annotated[str, Field(pattern=_NAME)]


Visible = Annotated[str, Field(pattern=_VISIBLE)]


HeaderName = Annotated[str, Field(pattern=_HEADER)]


ProjectName = Annotated[str, Field(pattern=_PROJECT)]


FieldName = Annotated[str, Field(pattern=_FIELD)]


AdminKey = Annotated[str, Field(pattern=_ADMIN_KEY)]


Words = Annotated[list[str], Field(min_length=1)]


LanguageTag = Annotated[str, Field(pattern=_LANGUAGE)]


CurrencyCode = Annotated[str, Field(pattern=_CURRENCY)]


PhoneNumber = Annotated[str, Field(pattern=_PHONE)]


ProducerCode = Annotated[str, Field(pattern=_PRODUCER)]


OneOrMore = Annotated[Words, BeforeValidator(_listed, json_schema_input_type=str | Words)]


_DurationText = Annotated[str, Field(pattern=_DURATION, examples=["500ms", "5s", "2m"])]


Duration = Annotated[str, BeforeValidator(_duration_above_zero, json_schema_input_type=_DurationText)]


DurationOrZero = Annotated[str, BeforeValidator(_duration, json_schema_input_type=_DurationText)]


_ShareOfAnswersText = Annotated[str, Field(pattern=_SHARE_OF_ANSWERS, examples=["p95"])]


HedgeAfter = Annotated[str, BeforeValidator(_hedge_after, json_schema_input_type=_ShareOfAnswersText | _DurationText)]


Day = Annotated[
    str,
    BeforeValidator(_day, json_schema_input_type=Annotated[str, Field(pattern=_DAY, examples=["2027-03-01"])]),
]


Line = Annotated[str, BeforeValidator(_line, json_schema_input_type=Annotated[str, Field(pattern=_LINE)])]


DocumentUrl = Annotated[str, Field(pattern=_DOCUMENT, max_length=2048)]


_OriginText = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/*]+)$", examples=["https://app.example"])]


Origin = Annotated[str, BeforeValidator(_origin, json_schema_input_type=_OriginText)]


Age = Annotated[str, Field(pattern=_AGE, examples=["12h", "30d"])]


KeyHash = Annotated[str, BeforeValidator(_key_hash, json_schema_input_type=Annotated[str, Field(pattern=_KEY_HASH)])]


def _no_flag(value: object) -> object:
    # To Python `true` is 1 too.
    return str(value) if isinstance(value, bool) else value


FormatVersion = Annotated[Literal[1], BeforeValidator(_no_flag)]


_SHARE = r"^(100|[0-9]{1,2})%$"


_SHARE_ABOVE_ZERO = r"^(100|[1-9][0-9]?)%$"


_RISE = r"^\+([1-9][0-9]{0,3})%$"


_STAGE = r"(100|[1-9][0-9]?)%(?:\s+for\s+([1-9][0-9]{0,5})(s|m|h|d))?"


_ANY_STAGES = rf"\s*{_STAGE}(?:\s*,\s*{_STAGE})*\s*"


_STAGES = r"^\s*((100|[1-9][0-9]?)%\s+for\s+[1-9][0-9]{0,5}(s|m|h|d)\s*,\s*)*(100|[1-9][0-9]?)%\s*$"


_MOST_WEIGHT = 10_000


_STAGES_HINT = 'such as "5% for 10m, 25% for 30m, 100%"'


def share(percent: str) -> float:
    """The share that the schema accepted: 0.2 of `20%`."""
    return float(percent.removesuffix("%")) / 100


def rise(percent: str) -> float:
    """The rise that the schema accepted: 0.5 of `+50%`."""
    return float(percent.removeprefix("+").removesuffix("%")) / 100


def stages(text: str) -> list[tuple[float, float | None]]:
    """The share and the seconds of each stage of a text that the schema accepted: (0.05, 600) of `5% for 10m`."""
    found = re.finditer(_STAGE, text)
    return [(float(it[1]) / 100, float(it[2]) * UNIT_S[it[3]] if it[2] else None) for it in found]


def _stages(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(_ANY_STAGES, value):
        raise mistake("must be shares with their times, separated by commas", _STAGES_HINT)
    found = stages(value)
    if not re.fullmatch(_STAGES, value):
        raise mistake("every stage but the last needs its time, and the last has none", _STAGES_HINT)
    shares = [each for each, _ in found]
    if any(after <= before for before, after in pairwise(shares)):
        raise mistake("the shares must rise from stage to stage", _STAGES_HINT)
    return value


def _rise_or_off(value: object) -> str:
    if isinstance(value, str) and (value == "off" or re.fullmatch(_RISE, value)):
        return value
    raise mistake("must be a rise in whole percent, or the word off", "such as +50%")


def _share_above_zero(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_SHARE_ABOVE_ZERO, value):
        return value
    raise mistake("must be a share from 1% to 100%, in whole percent", "such as 20%")


def _share_or_off(value: object) -> str:
    if isinstance(value, str) and value == "off":
        return value
    if isinstance(value, str) and re.fullmatch(_SHARE, value):
        return value
    raise mistake("must be a share from 0% to 100%, in whole percent, or the word off", "such as 20%")


def _route_step(value: object) -> object:
    """A deployment's name, or names with their weights."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise PydanticKnownError("string_type")
    for name, weight in value.items():
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= _MOST_WEIGHT:
            hint = f"such as {{{name}: 95, other: 5}}"
            raise mistake(f"the weight of {name!r} must be a whole number from 0 to {_MOST_WEIGHT}", hint)
    if not any(value.values()):
        raise mistake("a weighted step needs a weight above 0", "such as {one: 95, other: 5}")
    return value


_ShareText = Annotated[str, Field(pattern=_SHARE_ABOVE_ZERO, examples=["50%"])]


_ShareOrZeroText = Annotated[str, Field(pattern=_SHARE, examples=["20%"])]


_Off = Annotated[str, Field(pattern="^off$")]


Share = Annotated[str, BeforeValidator(_share_above_zero, json_schema_input_type=_ShareText)]


ShareOrOff = Annotated[str, BeforeValidator(_share_or_off, json_schema_input_type=_ShareOrZeroText | _Off)]


_RiseText = Annotated[str, Field(pattern=_RISE, examples=["+50%"])]


Rise = Annotated[str, BeforeValidator(_rise_or_off, json_schema_input_type=_RiseText | _Off)]


_StagesText = Annotated[str, Field(pattern=_STAGES, examples=["5% for 10m, 25% for 30m, 100%"])]


Stages = Annotated[str, BeforeValidator(_stages, json_schema_input_type=_StagesText)]


_Weight = Annotated[int, Field(ge=0, le=_MOST_WEIGHT)]


_Weights = Annotated[dict[str, _Weight], Field(min_length=1, examples=[{"one": 95, "other": 5}])]


RouteStep = Annotated[str | dict[str, int], BeforeValidator(_route_step, json_schema_input_type=str | _Weights)]
