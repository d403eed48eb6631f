"""What is left of an entry that a mistake of shape has taken out: its names and places are judged all the same.

Whoever mends the one mistake is not to find the next one behind it: every mistake is told at once.
"""

from __future__ import annotations

from gateway.config.clients import check_assistants, check_known_region
from gateway.config.deployments import find_adapter
from gateway.config.findings import Findings
from gateway.config.places import read_places
from gateway.config.problems import Path
from gateway.config.validate import Draft
from providers.registry import Registry

__all__ = ["judge_leftovers"]

_PLACES = {"regions": ("territories", "boundary"), "deployments": ("stores", "processes", "available")}


def judge_leftovers(draft: Draft, findings: Findings, registry: Registry) -> None:
    """Report what is wrong with the sound parts of entries that are none by their shape."""
    for section, *name in sorted(draft.broken, key=str):
        entries = findings.source.values.get(str(section))
        written = entries.get(name[0]) if isinstance(entries, dict) and len(name) == 1 else None
        if not isinstance(written, dict):
            continue
        path: Path = (section, *name)
        for field in _PLACES.get(str(section), ()):
            words = written.get(field)
            words = [words] if isinstance(words, str) else words
            if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
                read_places(findings, (*path, field), words)
        if section == "deployments" and isinstance(provider := written.get("provider"), str):
            find_adapter(findings, path, provider, registry)
        elif section == "clients":
            _judge_client(draft, findings, path, written)


def _judge_client(draft: Draft, findings: Findings, path: Path, written: dict[str, object]) -> None:
    names = written.get("assistants")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        check_assistants(draft, findings, path, names)
    if isinstance(region := written.get("region"), str):
        check_known_region(draft, findings, (*path, "region"), region)
