"""Figures of a report in words, the same in every form of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["change_of", "duration", "interval", "number", "percentage"]

_NONE = "–"


def percentage(value: float | None) -> str:
    """A share as a percentage."""
    return _NONE if value is None else f"{value:.1%}"


def interval(one: Mapping[str, Any] | None) -> str:
    """A share with its interval."""
    return _NONE if one is None else f"{one['value']:.1%} ({one['low']:.1%} to {one['high']:.1%})"


def duration(one: Mapping[str, Any] | None) -> str:
    """A time with its interval; an end that the data can't give is open."""
    if one is None:
        return _NONE
    low, high = _time(one["low"]), "∞" if one["high"] is None else _time(one["high"])
    return f"{_time(one['value'])} ({low} to {high})"


def number(one: Mapping[str, Any] | None) -> str:
    """A rate with its interval."""
    return _NONE if one is None else f"{one['value']:.1f} ({one['low']:.1f} to {one['high']:.1f})"


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def change_of(report: Mapping[str, Any]) -> str:
    """What the recommendation changes, in one sentence."""
    advice = report["recommendation"]
    if advice["deployment"] is None:
        return "The route stays as it is: nobody meets every requirement."
    now, then = ", ".join(advice["route_now"]) or "nobody", ", ".join(advice["route"])
    where = f"{report['assistant']} in region {report['region']}"
    if list(advice["route_now"]) == list(advice["route"]):
        return f"The route of {where} is already what is recommended: {then}."
    return f"The route of {where} should be {then}; it is {now}."
