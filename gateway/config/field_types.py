"""Field types of the configuration file: names, hashes, URLs, steps of routes and stages of schedules.

Types with a unit are in `gateway.model.units`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar, get_args
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf
from pydantic_core import PydanticKnownError

from gateway.config.problems import nearest, quoted
from gateway.model.hand_off import BarrierRule, HandOffCause, Sharing
from gateway.model.schedule import Stage
from gateway.model.section import ONE_OR_TWO, FileForm, UnitError
from gateway.model.units import AGE, DOCUMENT_URL, LIFETIME, UNIT_S, VISIBLE

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_HEADER = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"
_PROJECT = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
_FIELD = r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$"
_ORIGIN = r"([a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\]))(:[0-9]{1,5})?(?:/.*)?"
_T = TypeVar("_T")
_CURRENCY = r"^[A-Z]{3}$"
_RATE = r"^[0-9]{1,7}(\.[0-9]{1,12})?$"
_ZONE = r"^[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}$"
_CELL_NAME = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
_LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"
_PHONE = r"^[0-9+*#][0-9 ()+*#-]{1,30}$"
# The standard (GB 45438-2025) allows visible characters in a value of the AIGC object, except quotes and backslashes.
_PRODUCER = r"^[!#-\[\]-~]{1,128}$"
_ADMIN_KEY = r"^ed25519:[A-Za-z0-9+/]{43}=$"
_KEY_HASH = r"^sha256:[0-9a-fA-F]{64}$"
MEANINGS = {
    _NAME: "must be 1 to 64 letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
    VISIBLE: "must be 1 to 256 characters of visible ASCII, without spaces",
    _HEADER: "must be the name of a header",
    _PROJECT: "must be the id of a cloud project or a workspace: letters, digits, `-`, `_`, `.` and `:`",
    _FIELD: "must be the name of a request field",
    _LANGUAGE: "must be a language tag, such as de, zh-Hant or pt-BR",
    _CURRENCY: "must be the code of a currency, such as EUR",
    _PHONE: "must be a number to call, such as 112",
    _PRODUCER: "must be 1 to 128 characters of visible ASCII, without spaces, quotes or backslashes",
    DOCUMENT_URL: "must be an https URL, such as https://www.example.cn/filing.pdf",
    _ADMIN_KEY: "must be a public key: `ed25519:` and 44 characters of base64 (`gateway key new --ed25519` makes one)",
    _CELL_NAME: "must be 1 to 32 lower-case letters, digits and `-`, and begin and end with a letter or digit",
    AGE: "must be an age in hours or days, such as 12h or 30d",
    LIFETIME: "must be a time in minutes, hours or days, such as 15m or 12h",
}
"""The error message for each pattern of the schema."""
_STAGE = r"(100|[1-9][0-9]?)%(?:\s+for\s+([1-9][0-9]{0,5})(s|m|h|d))?"
_ANY_STAGES = rf"\s*{_STAGE}(?:\s*,\s*{_STAGE})*\s*"
_STAGES = r"^\s*((100|[1-9][0-9]?)%\s+for\s+[1-9][0-9]{0,5}(s|m|h|d)\s*,\s*)*(100|[1-9][0-9]?)%\s*$"
_MAX_WEIGHT = 10_000
HAND_OFF = "hand_off"
"""The step of a route that is a barrier. No deployment has this name."""
_BARRIER_HINT = "write {hand_off: {when: [capability, context]}}"
_EXACT_DIGITS = 15
_STAGES_HINT = 'such as "5% for 10m, 25% for 30m, 100%"'
_NEW_KEY = "`gateway key new` makes a key and shows its hash"
_USUAL_PORTS = {"http": ":80", "https": ":443"}


class Section(BaseModel):
    """Base of the sections: a mapping with known keys. Errors never show its values."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    def of(self, kind: type[_T]) -> _T | None:
        """Return the section of this class, or None if it is not written."""
        return next((value for _, value in self if isinstance(value, kind)), None)

    def written(self, key: str) -> Any:
        """Return the value of a key that a feature has added."""
        return getattr(self, key)


def _listed(value: object) -> object:
    """Read a single text as a list with one item."""
    if value is None or isinstance(value, list):
        return value
    if isinstance(value, str):
        return [value]
    raise UnitError("must be a string, or a list of strings", "" if isinstance(value, dict) else "put it in quotes")


def key_hash(value: object) -> str:
    """Return the hash in lower case. A value that is not a hash may be a key, so messages never show it."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    if re.fullmatch(_KEY_HASH, value):
        return value.lower()
    if value.startswith("sha256:"):
        length = len(value) - len("sha256:")
        raise UnitError(f"64 hexadecimal digits must follow `sha256:`, but there are {length} characters", _NEW_KEY)
    if re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise UnitError("the algorithm is missing", "put `sha256:` before it")
    raise UnitError("is not the hash of a key; the key itself must not be in the file", _NEW_KEY)


def _origin(value: object) -> object:
    """Return an origin in the form that browsers send (RFC 6454, section 6.2): scheme, host, and a non-default port."""
    if not isinstance(value, str) or value == "*":
        return value
    match = re.fullmatch(_ORIGIN, value.lower().rstrip("/"))
    meant = match and match[1] + (match[2] or "").removesuffix(_USUAL_PORTS.get(match[1].partition(":")[0], ""))
    if meant == value:
        return value
    if value.lower() == "null":
        raise UnitError("`null` is the origin of every sandboxed page and local file", "write the origin of your page")
    if "*" in value:
        raise UnitError("must be one origin, or `*` alone for every page", "list each origin separately")
    hint = f"write {meant}" if meant else "such as https://app.example or http://localhost:5173"
    raise UnitError("must be an origin as a browser writes it", hint)


def _rate(value: object) -> str:
    """Return an exchange rate as exact decimal text. A float has at most 15 exact digits."""
    such_as = "such as 0.92"
    text = value if isinstance(value, str) else ""
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        text = f"{Decimal(str(value)):f}"
        if isinstance(value, float) and len(text.strip("-0.").replace(".", "")) > _EXACT_DIGITS:
            raise UnitError(f"has more than {_EXACT_DIGITS} digits", "put it in quotes, so that it stays exact")
    if re.fullmatch(_RATE, text) and Decimal(text) > 0:
        return text
    raise UnitError("must be a decimal number above 0, with at most 7 digits before the point and 12 after it", such_as)


def _time_zone(value: object) -> str:
    if not isinstance(value, str):
        raise UnitError("must be the name of a time zone", "such as Europe/Berlin or UTC")
    try:
        # The zones below `right/` count leap seconds.
        if re.fullmatch(_ZONE, value) and not value.startswith(("right/", "posix/")):
            return ZoneInfo(value).key
    except (KeyError, ValueError, OSError):
        pass
    names = {name for name in available_timezones() if not name.startswith(("right/", "posix/"))}
    near = nearest(value, names)
    hint = f"did you mean {quoted(near)}?" if near is not None else "such as Europe/Berlin or UTC"
    raise UnitError("is not a time zone that this machine knows", hint)


def _only_int(value: object) -> object:
    # In Python, True and 1.0 equal 1 and would pass as version 1.
    return value if type(value) is int else str(value)


def _stages(value: object) -> tuple[Stage, ...]:
    if not isinstance(value, str) or not re.fullmatch(_ANY_STAGES, value):
        raise UnitError("must be shares with durations, separated by commas", _STAGES_HINT)
    if not re.fullmatch(_STAGES, value):
        raise UnitError("every stage except the last needs a duration, and the last must not have one", _STAGES_HINT)
    stages = tuple(
        Stage(float(it[1]) / 100, float(it[2]) * UNIT_S[it[3]] if it[2] else None) for it in re.finditer(_STAGE, value)
    )
    if any(after.share <= before.share for before, after in pairwise(stages)):
        raise UnitError("the shares must rise from stage to stage", _STAGES_HINT)
    return stages


def _route_step(value: object) -> object:
    """Check the value of a route step: the name of a deployment, names with weights, or a barrier."""
    if value == HAND_OFF:
        raise UnitError("a barrier needs `when`: what opens it", _BARRIER_HINT)
    if isinstance(value, str | BarrierRule):
        return value
    if not isinstance(value, dict):
        raise PydanticKnownError("string_type")
    if HAND_OFF in value:
        return _barrier(value)
    for name, weight in value.items():
        if not isinstance(weight, int) or isinstance(weight, bool) or not 0 <= weight <= _MAX_WEIGHT:
            hint = f"such as {{{name}: 95, other: 5}}"
            raise UnitError(f"the weight of {name!r} must be a whole number from 0 to {_MAX_WEIGHT}", hint)
    if not any(value.values()):
        raise UnitError("a weighted step needs a weight above 0", "such as {one: 95, other: 5}")
    return value


def _barrier(step: dict[str, object]) -> BarrierRule:
    """Return the barrier `{hand_off: {when: [...], share: ...}}`."""
    value, causes = step[HAND_OFF], [str(cause) for cause in HandOffCause]
    if len(step) > 1 or not isinstance(value, dict):
        message = f"`{HAND_OFF}` is a barrier: a mapping with `when` and `share`, and a step of its own"
        raise UnitError(message, _BARRIER_HINT)
    for name in value:
        if name not in ("when", "share", "redact"):
            raise UnitError(f"a barrier has no key {name!r}", "it has `when`, `share` and `redact`")
    when, share, redact = value.get("when"), value.get("share", "conversation"), value.get("redact")
    if redact is not None and not isinstance(redact, str):
        raise UnitError("`redact` of a barrier must be the name of a redaction", "leave it out to redact nothing there")
    when = [when] if isinstance(when, str) else when
    if not isinstance(when, list) or not when:
        raise UnitError("a barrier needs `when`: what opens it", f"a list of {', '.join(causes)}")
    for cause in when:
        if cause not in causes:
            raise UnitError(f"{cause!r} opens no barrier", f"the causes are {', '.join(causes)}")
    if share not in get_args(Sharing):
        message = f"`share` of a barrier must be one of {', '.join(get_args(Sharing))}"
        raise UnitError(message, "leave it out to share all")
    return BarrierRule(tuple([cause for cause in HandOffCause if cause in when]), share, redact)


def names_in(step: str | Mapping[str, int] | BarrierRule) -> list[str]:
    """Return the deployments that a step of a route names as it is written. A barrier names none."""
    return [step] if isinstance(step, str) else [] if isinstance(step, BarrierRule) else list(step)


def _by_intent(value: object) -> object:
    """Return the routes of a region by intent. A list is the route of every intent."""
    if isinstance(value, list):
        return {"default": value}
    if not isinstance(value, dict):
        raise PydanticKnownError("list_type")
    return value


Name = Annotated[str, Field(pattern=_NAME)]
Visible = Annotated[str, Field(pattern=VISIBLE)]
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
OneOrTwo = Annotated[list[str], ONE_OR_TWO]
DocumentUrl = Annotated[str, Field(pattern=DOCUMENT_URL, max_length=2048)]
_OriginText = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/*]+)$", examples=["https://app.example"])]
Origin = Annotated[str, BeforeValidator(_origin, json_schema_input_type=_OriginText)]
KeyHash = Annotated[str, BeforeValidator(key_hash, json_schema_input_type=Annotated[str, Field(pattern=_KEY_HASH)])]
ExchangeRate = Annotated[
    str,
    BeforeValidator(_rate, json_schema_input_type=Annotated[float, Field(gt=0)] | Annotated[str, Field(pattern=_RATE)]),
]
TimeZone = Annotated[str, FileForm(_time_zone, {"type": "string", "pattern": _ZONE, "examples": ["Europe/Berlin"]})]
CellName = Annotated[str, Field(pattern=_CELL_NAME)]
FormatVersion = Annotated[Literal[1], BeforeValidator(_only_int)]
Stages = Annotated[
    tuple[Stage, ...],
    FileForm(_stages, {"type": "string", "pattern": _STAGES, "examples": ["5% for 10m, 25% for 30m, 100%"]}),
]
_Weight = Annotated[int, Field(ge=0, le=_MAX_WEIGHT)]
_Weights = Annotated[dict[str, _Weight], Field(min_length=1, examples=[{"one": 95, "other": 5}])]


class BarrierStep(Section):
    """The step of a route that is its barrier."""

    hand_off: BarrierRule = Field(description="The causes that open the barrier, and the content that is then sent.")


RouteStep = Annotated[
    str | InstanceOf[BarrierRule] | dict[str, int],
    BeforeValidator(_route_step, json_schema_input_type=str | BarrierStep | _Weights),
]
_Routes = Annotated[dict[Name, list[RouteStep]], Field(min_length=1)]
RegionRoutes = Annotated[_Routes, BeforeValidator(_by_intent, json_schema_input_type=list[RouteStep] | _Routes)]
