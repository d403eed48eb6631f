"""A document's values -> the typed sections that are sound, and a problem for everything that is not.

What is unsound is taken out and remembered by name, so that the compiler judges the rest in the same run without
complaining of what is missing only because it was taken out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from gateway.config.findings import Findings
from gateway.config.problems import Path
from gateway.config.schema import GatewaySection
from gateway.config.sections.callers import ClientSection
from gateway.config.sections.exporters import ExporterSection
from gateway.config.sections.place import RegionSection
from gateway.config.sections.routing import AssistantSection, DeploymentSection
from gateway.config.shape_errors import ShapeError, read_error

__all__ = ["Draft", "misplaced", "validate"]

_NAMED: dict[str, type[BaseModel]] = {
    "assistants": AssistantSection,
    "regions": RegionSection,
    "deployments": DeploymentSection,
    "clients": ClientSection,
    "exporters": ExporterSection,
}
# Optional keys without which an entry would be judged wrongly.
_BEARING = frozenset("endpoint simulates project stores processes transit regions approvals consent identity".split())
_REQUIRED = {"version": 1, "assistants": {}, "regions": {}, "deployments": {}}


@dataclass(slots=True)
class Draft:
    """The sound part of a config. broken: paths of what was taken out (sections, entries, parts of entries); the
    compiler adds to them the entries that it finds unsound."""

    config: GatewaySection
    broken: set[Path]

    def is_broken(self, *path: str) -> bool:
        """Whether the section or entry is written, but unsound; nothing can be said of what refers to it."""
        return path in self.broken or path[:1] in self.broken

    def is_whole(self, *path: str) -> bool:
        """Whether no part of it was taken out."""
        return not self.is_broken(*path) and all(part[: len(path)] != path for part in self.broken)

    def names(self, section: str) -> set[str]:
        """Every name that a section defines, unsound entries too."""
        sound = getattr(self.config, section)
        return {*sound, *(str(path[1]) for path in self.broken if path[0] == section and len(path) > 1)}


def validate(findings: Findings) -> Draft:
    """The sound part of the source's values, with every mistake of shape added to the findings."""
    values = findings.source.values
    config, errors = _read(values)
    if config is not None and not errors:
        return Draft(config, set())
    for error in errors:
        findings.error(error.path, error.message, error.hint, key=error.at_key)
    pruned = _copied(values)
    broken: set[Path] = set()
    for error in errors:
        if error.meant is not None:
            _rename(pruned, error.path, error.meant)
        elif error.removable:
            _remove(pruned, error.path)
        else:
            broken.add(_take_out(pruned, error.path))
    try:
        config = GatewaySection.model_validate(_REQUIRED | pruned)
    except ValidationError as rejection:  # of what a misspelt key holds
        broken.update(_take_out(pruned, read_error(detail).path) for detail in rejection.errors(include_url=False))
        config = GatewaySection.model_validate(_REQUIRED | pruned)
    return Draft(config, broken)


def _read(values: dict[str, object]) -> tuple[GatewaySection | None, list[ShapeError]]:
    """The sections, and the mistakes of shape; no sections where there are mistakes that can't be read over."""
    config = None
    errors = {error.path: error for error in misplaced((), values)}
    try:
        config = GatewaySection.model_validate(values)
    except ValidationError as rejection:
        for detail in rejection.errors(include_url=False):
            error = read_error(detail)
            errors.setdefault(error.path, error)
    for error in tuple(errors.values()):
        if error.meant is not None:
            errors.pop((*error.path[:-1], error.meant), None)  # missing only because it is misspelt
    return config, list(errors.values())


def misplaced(path: Path, value: object) -> Iterator[ShapeError]:
    """Empty values, and references where none is resolved."""
    match value:
        case None:
            yield ShapeError(path, "is empty", "give it a value, or remove it", at_key=True)
        case str() if "${" in value and not _may_refer(path):
            places = "`api_key`, `headers`, `secrets`, an edge's secret and a claim's keys"
            message = f"a reference `${{…}}` is resolved in {places} only"
            yield ShapeError(path, message, "write the value itself")
        case list():
            for index, item in enumerate(value):
                yield from misplaced((*path, index), item)
        case dict():
            for key, item in value.items():
                yield from misplaced((*path, key), item)


def _may_refer(path: Path) -> bool:
    match path:
        case ("deployments", _, "api_key") | ("deployments", _, "api_key", _):
            return True
        case ("location", "edges", _, "secret", "value") | ("location", "claim", "secret" | "jwks"):
            return True
        case ("exporters" | "deployments", _, "headers", _) | ("secrets", _):
            return True
    return False


def _copied(values: dict[str, object]) -> dict[str, object]:
    """A copy in which nothing is shared, so that what an alias repeats can be changed in one place."""

    def copy(value: object) -> object:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        return [copy(item) for item in value] if isinstance(value, list) else value

    return {key: copy(value) for key, value in values.items()}


def _parent(values: dict[str, object], path: Path) -> dict[str, object]:
    """The mapping that the last part of the path is a key of; an empty one where it has been taken out."""
    node: object = values
    for part in path[:-1]:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part]
    return node if isinstance(node, dict) else {}


def _remove(values: dict[str, object], path: Path) -> None:
    _parent(values, path).pop(str(path[-1]), None)


def _rename(values: dict[str, object], path: Path, meant: str) -> None:
    """Judge a misspelt key as what it was probably meant to be, so that nothing else seems to be missing."""
    parent = _parent(values, path)
    if path[-1] in parent:
        parent.setdefault(meant, parent.pop(str(path[-1])))


def _take_out(values: dict[str, object], path: Path) -> Path:
    """Remove the smallest part around the path without which the rest can still be judged; what that was."""
    match path:
        case ("assistants", _, "routes", _, *_) | (("location" | "resilience"), _, *_):
            part = path[:4] if path[0] == "assistants" else path[:2]
        case (section, _, str(field), *_) if section in _NAMED and _is_optional(str(section), field):
            part = path[:3]
        case (section, _, *_) if section in _NAMED:
            part = path[:2]
        case _:
            part = path[:1]
    _remove(values, part)
    return part


def _is_optional(section: str, field: str) -> bool:
    known = _NAMED[section].model_fields.get(field)
    return known is not None and not known.is_required() and field not in _BEARING
