"""A document's values -> the typed sections that are sound, and a problem for everything that is not.

What is unsound is taken out and remembered by name, so that the compiler judges the rest in the same run without
complaining of what is missing only because it was taken out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from gateway.config.findings import Findings
from gateway.config.problems import Path
from gateway.config.schema import GatewaySection
from gateway.config.shape_errors import ShapeError, read_error

__all__ = ["Draft", "validate"]

_NAMED = ("assistants", "regions", "deployments", "clients")
_REQUIRED = {"version": 1, "assistants": {}, "regions": {}, "deployments": {}}


@dataclass(frozen=True, slots=True)
class Draft:
    """The sound part of a config. broken: paths of one or two parts (section, or section and name) that are not."""

    config: GatewaySection
    broken: frozenset[Path]

    def is_broken(self, *path: str) -> bool:
        """Whether the section or entry is written, but unsound; nothing can be said of what refers to it."""
        return path in self.broken or path[:1] in self.broken


def validate(findings: Findings) -> Draft:
    """The sound part of the source's values, with every mistake of shape added to the findings."""
    values = findings.source.values
    errors = _find(values)
    if not errors:
        return Draft(GatewaySection.model_validate(values), frozenset())
    pruned = _copied(values)
    broken: set[Path] = set()
    for error in errors:
        findings.error(error.path, error.message, error.hint, key=error.at_key)
        if error.removable:
            _remove_key(pruned, error.path)
        else:
            broken.add(_take_out(pruned, error.path))
    return Draft(GatewaySection.model_validate(_REQUIRED | pruned), frozenset(broken))


def _find(values: dict[str, object]) -> list[ShapeError]:
    empty = [ShapeError(path, "is empty", "give it a value, or remove it") for path in _nulls((), values)]
    errors = {error.path: error for error in empty}
    try:
        GatewaySection.model_validate(values)
    except ValidationError as rejection:
        for detail in rejection.errors(include_url=False):
            error = read_error(detail)
            errors.setdefault(error.path, error)
    return list(errors.values())


def _nulls(path: Path, value: object) -> Iterator[Path]:
    match value:
        case None:
            yield path
        case list():
            for index, item in enumerate(value):
                yield from _nulls((*path, index), item)
        case dict():
            for key, item in value.items():
                yield from _nulls((*path, key), item)


def _copied(values: dict[str, object]) -> dict[str, object]:
    """A copy in which nothing is shared, so that what an alias repeats can be changed in one place."""

    def copy(value: object) -> object:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        return [copy(item) for item in value] if isinstance(value, list) else value

    return {key: copy(value) for key, value in values.items()}


def _remove_key(values: dict[str, object], path: Path) -> None:
    node: object = values
    for part in path[:-1]:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part]
    if isinstance(node, dict):
        node.pop(path[-1], None)


def _take_out(values: dict[str, object], path: Path) -> Path:
    """Remove the entry, or else the section, that the path is in; its path."""
    section = values.get(str(path[0])) if path else None
    if len(path) > 1 and path[0] in _NAMED and isinstance(section, dict):
        section.pop(path[1], None)
        return path[:2]
    if path:
        values.pop(str(path[0]), None)
    return path[:1]
