"""Shares of a route's requests as a config writes them: percent, rises, stages of a rollout, weights of a step."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticKnownError

from gateway.config.scalars import UNIT_S, mistake

__all__ = ["Rise", "RouteStep", "Share", "ShareOrOff", "Stages", "rise", "share", "stages"]

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
