"""Faults as an operator writes them: `429:0.2`, `503=7:0.1`, `reset:0.05`, `stall=3`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable

from providers.failures import FailureKind
from providers.simulator.scenario import (
    Cut,
    DuplicateFinish,
    Empty,
    ErrorEvent,
    Fault,
    Garbage,
    Html,
    HttpError,
    NoEndMark,
    Redirect,
    Reset,
    Silent,
    Slow,
    Stall,
    Truncated,
)

__all__ = ["FAULT_WORDS", "ScenarioError", "parse_fault"]


class ScenarioError(ValueError):
    """A fault that can't be understood; the message says what was expected."""


def _plain(fault: Fault) -> Callable[[str], Fault]:
    def build(value: str) -> Fault:
        if value:
            raise ScenarioError(f"takes no value; leave out '={value[:40]}'")
        return fault

    return build


def _after(build: Callable[[int], Fault], default: Fault) -> Callable[[str], Fault]:
    """A fault with a number of events as its value."""

    def read(value: str) -> Fault:
        if not value:
            return default
        if not value.isascii() or not value.isdigit():
            raise ScenarioError(f"takes a number of events, not '{value[:40]}'")
        return build(int(value))

    return read


def _slow(value: str) -> Fault:
    return Slow(_seconds(value)) if value else Slow()


def _redirect(value: str) -> Fault:
    if not value.startswith(("http://", "https://")):
        raise ScenarioError("takes the address to point to, such as redirect=http://127.0.0.1:9/:0.5")
    return Redirect(value)


FAULT_WORDS: dict[str, Callable[[str], Fault]] = {
    "reset": _after(Reset, Reset()),
    "cut": _after(Cut, Cut()),
    "silent": _plain(Silent()),
    "stall": _after(Stall, Stall()),
    "slow": _slow,
    "html": _plain(Html()),
    "empty": _plain(Empty()),
    "truncated": _plain(Truncated()),
    "garbage": _after(Garbage, Garbage()),
    "error-event": _after(lambda count: ErrorEvent(after_events=count), ErrorEvent()),
    "no-end-mark": _plain(NoEndMark()),
    "duplicate-finish": _plain(DuplicateFinish()),
    "redirect": _redirect,
    "quota": _plain(HttpError(429, kind=FailureKind.QUOTA)),
    "geo": _plain(HttpError(403, kind=FailureKind.GEO_REFUSED)),
    "context-length": _plain(HttpError(400, kind=FailureKind.CONTEXT_LENGTH)),
    "content-filter": _plain(HttpError(400, kind=FailureKind.CONTENT_FILTER)),
}
"""What builds each fault from the text after `=`; an HTTP status (400 to 599) is a word too."""


def parse_fault(text: str) -> tuple[Fault, float]:
    """The fault and its probability of `FAULT[=VALUE][:PROBABILITY]`; raises ScenarioError.

    FAULT is an HTTP status or one of FAULT_WORDS. VALUE is a time to wait in seconds (a status, `slow`), a number of
    events (`reset`, `cut`, `stall`, `garbage`, `error-event`) or an address (`redirect`). Without a probability it
    is 1: every request.
    """
    rest, colon, last = text.strip().rpartition(":")
    word, _, value = (rest if colon else last).partition("=")
    try:
        return _fault(word.strip().lower(), value.strip()), _probability(last) if colon else 1.0
    except ScenarioError as error:
        raise ScenarioError(f"fault '{text[:80]}': {error}") from None


def _fault(word: str, value: str) -> Fault:
    if word.isascii() and word.isdigit():
        if not 400 <= int(word[:4]) <= 599:
            raise ScenarioError(f"{word[:10]} is no HTTP error; expected 400 to 599")
        return HttpError(int(word), _seconds(value) if value else None)
    if word not in FAULT_WORDS:
        near = difflib.get_close_matches(word, FAULT_WORDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected a status or one of {', '.join(FAULT_WORDS)}"
        raise ScenarioError(f"'{word[:40]}' is not known; {hint}")
    try:
        return FAULT_WORDS[word](value)
    except ScenarioError as error:
        raise ScenarioError(f"'{word}' {error}") from None


def _probability(text: str) -> float:
    probability = _number(text)
    if not 0 <= probability <= 1:
        raise ScenarioError(f"'{text[:40]}' is no probability; expected a number from 0 to 1, such as 429:0.2")
    return probability


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 <= seconds < math.inf:
        raise ScenarioError(f"takes a number of seconds, not '{text[:40]}'")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
