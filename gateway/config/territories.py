"""Territories as the sections of a config write them -> sets of places, with a problem for each word that is none."""

from __future__ import annotations

from gateway.config.problems import KeyPath
from gateway.config.validation import Findings
from providers.territories import Places, TerritoryError, parse_places, parse_territory

_SHOWN = 6


def read_territories(findings: Findings, path: KeyPath, words: list[str]) -> Places | None:
    """The set that the words name, None where one is wrong or they name nothing."""
    sound = True
    for index, word in enumerate(words):
        try:
            parse_places([word])
        except TerritoryError as error:
            _report(findings, (*path, index), error)
            sound = False
    if not sound:
        return None
    try:
        places = parse_places(words)
    except TerritoryError as error:
        _report(findings, path, error)
        return None
    if places.included is not None and not places.included:
        findings.error(path, "names no territory", 'name one, a group such as "@EEA", or "*"')
        return None
    return places


def read_territory(findings: Findings, path: KeyPath, word: str) -> str | None:
    """The territory that the word is, None where it is none."""
    try:
        return parse_territory(word)
    except TerritoryError as error:
        _report(findings, path, error)
        return None


def listed(codes: frozenset[str] | set[str]) -> str:
    """Some of the codes in order, and how many more there are."""
    shown = sorted(codes)[:_SHOWN]
    rest = len(codes) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _report(findings: Findings, path: KeyPath, error: TerritoryError) -> None:
    message, _, hint = str(error).partition("; ")
    findings.error(path, message, hint)
