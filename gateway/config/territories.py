"""Parse the territories in a configuration, and report each word that is not a territory."""

from __future__ import annotations

from gateway.config.problems import KeyPath
from gateway.config.validation import Findings
from gateway.model.units import first_names
from providers.territories import Places, TerritoryError, parse_places, parse_territory

_SHOWN = 6


def read_territories(findings: Findings, path: KeyPath, words: list[str]) -> Places | None:
    """Return the set that the words name, or None after an error has been reported."""
    is_valid = True
    for index, word in enumerate(words):
        try:
            parse_places([word])
        except TerritoryError as error:
            _report(findings, (*path, index), error)
            is_valid = False
    if not is_valid:
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
    """Return the territory code of the word, or None after an error has been reported."""
    try:
        return parse_territory(word)
    except TerritoryError as error:
        _report(findings, path, error)
        return None


def listed(codes: frozenset[str] | set[str]) -> str:
    """Return the first codes in order, and the number of the others."""
    return first_names(sorted(codes), _SHOWN)


def _report(findings: Findings, path: KeyPath, error: TerritoryError) -> None:
    message, _, hint = str(error).partition("; ")
    findings.error(path, message, hint)
