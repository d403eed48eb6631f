"""Turn YAML values into typed sections, and report each error with its position and its fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.field_types import MEANINGS
from gateway.config.problems import KeyPath, Problem, Severity, choice_hint, nearest, quoted
from gateway.config.schema.file import ClientSection, ExporterSection, GatewaySection
from gateway.config.schema.location import RegionSection
from gateway.config.schema.routing import AssistantSection, DeploymentSection
from gateway.config.schema.usage import ProjectSection
from gateway.config.sensitive_keys import may_refer, places_of_references
from gateway.config.yaml_document import Source
from gateway.model.section import PlainSection, UnitError
from providers.value import Value

SectionT = TypeVar("SectionT", bound=BaseModel)
_PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]*@")
UNSUPPORTED_KEYS = frozenset({"evaluations", "hand_off"})
"""Keys that are planned, in any section."""
_USE_LIMIT = "write `limit`, the number of calls that may run at the same time, and remove `{}`"
REMOVED: Mapping[tuple[str, str], tuple[str, str]] = {
    ("concurrency", key): (f"`{key}` was removed with the adaptive limit", _USE_LIMIT.format(key))
    for key in ("adaptive", "min", "max")
}
"""Removed keys by section and name, with the message and the hint."""
_NOT_YET = "is not supported by this version yet"
_EXPECTED = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "dataclass_type": "a mapping",
    "list_type": "a list",
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
}
_NAMED: dict[str, type[BaseModel]] = {
    "assistants": AssistantSection,
    "regions": RegionSection,
    "deployments": DeploymentSection,
    "clients": ClientSection,
    "exporters": ExporterSection,
    "projects": ProjectSection,
}
# Optional keys whose loss would lead to wrong messages about the rest of the entry.
_ESSENTIAL = frozenset("endpoint simulates project stores processes transit regions approvals consent identity".split())
# Values of required keys with which the rest of an entry can be read.
_STAND_INS: Mapping[tuple[str, str], object] = {
    ("deployments", "provider"): "openai-compatible",
    ("deployments", "model"): "unknown",
    ("deployments", "endpoint"): "unknown",
    ("regions", "territories"): ["AQ"],
    ("regions", "boundary"): ["*"],
    ("clients", "keys"): [f"sha256:{'0' * 64}"],
    ("exporters", "endpoint"): "https://unknown.invalid",
    ("exporters", "stores"): ["any"],
    ("exporters", "processes"): ["any"],
    ("assistants", "routes"): {},
    ("cell", "territory"): "AQ",
    ("location", "from"): ["192.0.2.0/24"],
    ("location", "country"): "X-Country",
    ("stores", "url"): "https://unknown.invalid",
    ("stores", "territory"): "AQ",
    ("usage", "url"): "https://unknown.invalid",
    ("usage", "territory"): "AQ",
}
_REQUIRED = {"version": 1, "assistants": {}, "regions": {}, "deployments": {}}


@dataclass(slots=True)
class Findings:
    """The errors and warnings found so far, beginning with the errors of the YAML parser."""

    source: Source
    problems: list[Problem] = field(init=False)

    def __post_init__(self) -> None:
        self.problems = list(self.source.problems)

    def error(self, path: KeyPath, message: str, hint: str = "", *, key: bool = False) -> None:
        """Add an error. With `key`, the last key of the path is wrong, not its value."""
        self._add(path, message, hint, "error", key)

    def report(self, errors: Iterable[ShapeError]) -> None:
        """Add errors of shape."""
        for error in errors:
            self.error(error.path, error.message, error.hint, key=error.at_key)

    def warn(self, path: KeyPath, message: str, hint: str = "") -> None:
        """Add a warning. Warnings do not prevent the use of the configuration."""
        self._add(path, message, hint, "warning", False)

    @property
    def rejected(self) -> bool:
        """Whether there is an error among the findings."""
        return any(problem.severity == "error" for problem in self.problems)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """The warnings, sorted by position."""
        warnings = {problem for problem in self.problems if problem.severity == "warning"}
        return tuple(sorted(warnings, key=lambda problem: problem.order))

    def line(self, path: KeyPath) -> int:
        """Return the line of a value, for the message about another value."""
        return self.source.position(path)[0]

    def _add(self, path: KeyPath, message: str, hint: str, severity: Severity, key: bool) -> None:
        path = as_written(self.source.values, path)
        # A message may quote a value that stands at the wrong place.
        message = _PASSWORD_IN_URL.sub("://…@", message)
        line, column = self.source.position(path, key=key)
        self.problems.append(Problem(self.source.file, line, column, path, message, hint, severity))


class ShapeError(Value, frozen=True):
    """One error in the shape of a section.

    Attributes:
        at_key: The last key of the path is wrong, not its value.
        removable: The key is unknown, so that the section is valid without it.
        meant: The known key that was probably meant.
    """

    path: KeyPath
    message: str
    hint: str = ""
    at_key: bool = False
    removable: bool = False
    meant: str | None = None


def _shape_error(error: ErrorDetails, root: type[BaseModel]) -> ShapeError:
    """Convert an error of pydantic. `root` is the section of the whole file."""
    path, value = error["loc"], error["input"]
    if path and path[-1] == "[key]":
        if error["type"] == "literal_error":
            return replace(_unknown_word(path[:-1], error), at_key=True)
        if error["type"] == "value_error" and isinstance(cause := error["ctx"]["error"], UnitError):
            return ShapeError(path[:-1], cause.message, cause.hint, at_key=True)
        return ShapeError(path[:-1], f"the name {_message(error)}", at_key=True)
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return _unknown_key(path, root)
        case "missing":
            return ShapeError(path, "is missing", f"add it: {_description(path, root)}")
        case "literal_error":
            return _unknown_word(path, error)
        case kind if kind in _EXPECTED:
            return ShapeError(path, f"must be {_EXPECTED[kind]}, not {_kind(value)}", _type_hint(kind, value))
        case "value_error" if isinstance(cause := error["ctx"]["error"], UnitError):
            return ShapeError(path, cause.message, cause.hint)
        case "config":
            return ShapeError(path, str(error["ctx"]["message"]), str(error["ctx"]["hint"]))
    return ShapeError(path, _message(error))


def _message(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "string_pattern_mismatch":
            return MEANINGS.get(str(context["pattern"]), f"must match the pattern {context['pattern']}")
        case "value_error":
            return str(context["error"])
        case "too_short":
            return "must not be empty"
        case "too_long":
            return f"must have at most {context['max_length']} entries"
        case "greater_than":
            return f"must be more than {context['gt']:.16g}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:.16g}"
        case "less_than_equal":
            return f"must be at most {context['le']:.16g}"
    return "is not allowed here"


def _unknown_key(path: KeyPath, root: type[BaseModel]) -> ShapeError:
    key = str(path[-1])
    if key in UNSUPPORTED_KEYS:
        return ShapeError(path, f"`{key}` {_NOT_YET}", "remove it", True, True)
    removed = REMOVED.get((str(path[-2]), key)) if len(path) > 1 else None
    if removed is not None:
        message, hint = removed
        return ShapeError(path, message, hint, at_key=True)
    names = list(_keys_of(_section_at(path[:-1], root)))
    hint = choice_hint(key, names)
    return ShapeError(path, f"unknown key {quoted(key)}", hint, True, True, nearest(key, names))


def _unknown_word(path: KeyPath, error: ErrorDetails) -> ShapeError:
    value, words = error["input"], re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
    if path == ("version",):
        return ShapeError(path, "must be 1", "this is version 1 of the format; write `version: 1`")
    if not isinstance(value, str):
        return ShapeError(path, f"must be one of {', '.join(words)}, not {_kind(value)}")
    return ShapeError(path, f"unknown value {quoted(value)}", choice_hint(value, words))


def _kind(value: object) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str():
            return "a string"
        case bool():
            return f"the word {str(value).lower()}"
    return "a number"


def _type_hint(kind: str, value: object) -> str:
    match kind, value:
        case "string_type", bool() | int() | float():
            return "put it in quotes"
        case "list_type", str():
            return "put it in brackets: [ ]"
        case "bool_type", str():
            return "write it without quotes" if value in ("true", "false") else "write true or false"
        case "int_type", str() if value.isdigit():
            return "write it without quotes"
    return ""


def _description(path: KeyPath, root: type[BaseModel]) -> str:
    known = _keys_of(_section_at(path[:-1], root)).get(str(path[-1]))
    return known.meaning if known is not None else ""


def _section_at(path: KeyPath, root: type[BaseModel]) -> Any:
    """Return the type that the schema has at a path: a section, or a type without keys."""
    kind: Any = root
    for part in path:
        keys = _keys_of(kind)
        if keys:
            kind = _bare(keys[str(part)].kind) if part in keys else None
        else:
            arguments = get_args(kind)
            kind = _bare(arguments[-1]) if arguments else None
    return kind


class _Key(Value, frozen=True):
    """A key of a section: the type of its value, and its meaning."""

    kind: Any
    meaning: str
    is_required: bool


def _keys_of(section: Any) -> Mapping[str, _Key]:
    """Return the keys of a section by their names in the file, or an empty mapping for a type without keys."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        models = section.model_fields.items()
        return {it.alias or name: _Key(it.annotation, it.description or "", it.is_required()) for name, it in models}
    if isinstance(section, type) and issubclass(section, PlainSection):
        return {
            it.metadata.get("alias", it.name): _Key(kind, it.metadata["description"], it.default is MISSING)
            for it, kind in zip(fields(section), get_type_hints(section).values(), strict=True)
        }
    return {}


def _bare(kind: Any) -> Any:
    """Return the type without None and without annotations."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(choice for choice in get_args(kind) if choice is not type(None))
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


@dataclass(slots=True)
class Draft:
    """The valid part of a configuration.

    Attributes:
        values: The mappings from which it was read.
        broken: The paths that were removed: sections, entries and parts of entries. The compiler adds the entries that
            it finds invalid.
        wrong: The keys that have an error of shape.
    """

    config: GatewaySection
    values: Mapping[str, object]
    broken: set[KeyPath]
    wrong: frozenset[KeyPath] = frozenset()

    def is_broken(self, *path: str) -> bool:
        """Whether the section or entry is present but invalid, so that references to it cannot be checked."""
        return path in self.broken or path[:1] in self.broken

    def is_whole(self, *path: str) -> bool:
        """Whether no part of it was removed."""
        return not self.is_broken(*path) and all(part[: len(path)] != path for part in self.broken)

    def keys_of(self, section: str) -> set[str]:
        """Return the keys that are written in a section."""
        written = self.values.get(section)
        return set(written) if isinstance(written, dict) else set()

    def names(self, section: str) -> set[str]:
        """Return every name that a section defines, including invalid entries."""
        valid = getattr(self.config, section)
        return {*valid, *(str(path[1]) for path in self.broken if path[0] == section and len(path) > 1)}


def check_reference(
    draft: Draft, findings: Findings, path: KeyPath, section: str, name: str, *, key: bool = False, none: str = ""
) -> bool:
    """Report a name that its section does not define. Return whether nothing was reported.

    With `key`, the name is the key at this path, and not its value. `none` is the hint if the section defines no name.
    """
    known = draft.names(section)
    if name in known or draft.is_broken(section):
        return True
    hint = choice_hint(name, known, none=none or "there is none")
    findings.error(path, f"unknown {section.removesuffix('s')} {quoted(name)}", hint, key=key)
    return False


def validate(findings: Findings) -> Draft:
    """Return the valid part of the values, and add every error of shape to the findings."""
    values = findings.source.values
    config, errors = _read(values)
    if config is not None and not errors:
        return Draft(config, values, set())
    findings.report(errors)
    broken: set[KeyPath] = set()
    config, pruned = valid_part(
        GatewaySection, _REQUIRED, values, errors, lambda part, path: broken.add(_take_out(part, path))
    )
    wrong = {_key_of(error.path) for error in errors if error.meant is None and not error.removable}
    return Draft(config, pruned, broken, frozenset(wrong))


def provisional(findings: Findings, draft: Draft) -> Draft | None:
    """Return the draft with the rest of its broken parts, or None if nothing can be put back.

    Only the wrong keys are left out, or replaced by a valid value if the entry requires them. The draft serves to find
    the other mistakes of these parts. It must never be served.
    """
    if not draft.wrong:
        return None
    errors = _read(findings.source.values)[1]
    values = _mended(findings.source.values, errors, lambda part, path: _stand_in(part, _key_of(path)))
    broken: set[KeyPath] = set()
    config, errors = read_shape(GatewaySection, _REQUIRED | values)
    for error in errors:
        if error.path[0] in _NAMED and len(error.path) > 3:  # a required key of a mapping inside the entry
            remove(values, error.path[:3])
        else:
            broken.add(_take_out(values, error.path))
    if config is None:
        config, errors = read_shape(GatewaySection, _REQUIRED | values)
    return Draft(config, values, broken, draft.wrong) if config is not None and broken != draft.broken else None


def valid_part(
    section: type[SectionT],
    required: Mapping[str, object],
    values: Mapping[str, object],
    errors: Iterable[ShapeError],
    take_out: Callable[[dict[str, object], KeyPath], object],
) -> tuple[SectionT, dict[str, object]]:
    """Return a section without its errors of shape, and the values that are left.

    Args:
        section: The section.
        required: Values of the required keys, for those that are missing or taken out.
        values: The values of the section.
        errors: Their errors of shape.
        take_out: Removes the part around a wrong value without which the rest is valid.
    """
    part = _mended(values, errors, take_out)
    read, errors = read_shape(section, {**required, **part})
    for error in errors:  # the value of a misspelt key is wrong too
        take_out(part, error.path)
    return read or section.model_validate({**required, **part}), part


def _mended(
    values: Mapping[str, object],
    errors: Iterable[ShapeError],
    take_out: Callable[[dict[str, object], KeyPath], object],
) -> dict[str, object]:
    """Return a copy in which misspelt keys are renamed, unknown keys are removed, and other mistakes are taken out."""
    copy = _copied(values)
    for error in errors:
        if error.meant is not None:
            _rename(copy, error.path, error.meant)
        elif error.removable:
            remove(copy, error.path)
        else:
            take_out(copy, error.path)
    return copy


def _key_of(path: KeyPath) -> KeyPath:
    """Return the path without list indexes at its end."""
    while len(path) > 1 and isinstance(path[-1], int):
        path = path[:-1]
    return path


def _stand_in(values: dict[str, object], path: KeyPath) -> None:
    """Remove a wrong key, or replace its value if an entry requires it."""
    parent, key = _parent(values, path), str(path[-1])
    is_direct = len(path) == 3 or path[0] not in _NAMED
    if is_direct and (str(path[0]), key) in _STAND_INS:
        parent[key] = _STAND_INS[str(path[0]), key]
    else:
        parent.pop(key, None)


def _read(values: dict[str, object]) -> tuple[GatewaySection | None, list[ShapeError]]:
    """Return the sections and the errors of shape. The sections are None if pydantic rejects the values."""
    return read_shape(GatewaySection, values, misplaced((), values))


def read_shape(
    section: type[SectionT], values: Mapping[str, object], known: Iterable[ShapeError] = ()
) -> tuple[SectionT | None, list[ShapeError]]:
    """Return a section, or None, and the errors of its shape at the paths that are written.

    Args:
        section: The section.
        values: Its values.
        known: Errors that were found already. They take precedence over others at the same path.
    """
    read = None
    errors = {error.path: error for error in known}
    try:
        read = section.model_validate(dict(values))
    except ValidationError as rejection:
        for detail in rejection.errors(include_url=False):
            error = _shape_error(detail, section)
            path = as_written(values, error.path)
            errors.setdefault(path, replace(error, path=path))
    for error in tuple(errors.values()):
        if error.meant is not None:
            errors.pop((*error.path[:-1], error.meant), None)  # it is missing only because its key is misspelt
    return read, list(errors.values())


def as_written(values: object, path: KeyPath) -> KeyPath:
    """Return the path without its parts that are not written.

    A single value may stand for a list, for the value of a mapping's only key, or for the value of every key.
    """
    written: KeyPath = ()
    for part in path:
        if isinstance(part, str) and (values is None or isinstance(values, dict)):
            written, values = (*written, part), values.get(part) if values else None
        elif isinstance(part, int) and isinstance(values, list):
            written, values = (*written, part), values[part] if part < len(values) else None
    return written


def misplaced(path: KeyPath, value: object) -> Iterator[ShapeError]:
    """Yield an error for each empty value, and for each reference in a place where references are not resolved."""
    match value:
        case None:
            yield ShapeError(path, "is empty", "give it a value, or remove it", at_key=True)
        case str() if "${" in value and not may_refer(path):
            message = f"a reference `${{…}}` is resolved in {places_of_references()} only"
            yield ShapeError(path, message, "write the value itself")
        case list():
            for index, item in enumerate(value):
                yield from misplaced((*path, index), item)
        case dict():
            for key, item in value.items():
                yield from misplaced((*path, key), item)


def _copied(values: Mapping[str, object]) -> dict[str, object]:
    """Return a deep copy. YAML aliases share values, and a change must affect one place only."""

    def copy(value: object) -> object:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        return [copy(item) for item in value] if isinstance(value, list) else value

    return {key: copy(value) for key, value in values.items()}


def _parent(values: dict[str, object], path: KeyPath) -> dict[str, object]:
    """Return the mapping with the last key of the path, or an empty one if it was removed."""
    node: object = values
    for part in path[:-1]:
        if isinstance(node, dict):
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part]
    return node if isinstance(node, dict) else {}


def remove(values: dict[str, object], path: KeyPath) -> None:
    """Remove the value at the path."""
    _parent(values, path).pop(str(path[-1]), None)


def _rename(values: dict[str, object], path: KeyPath, meant: str) -> None:
    """Rename a misspelt key to the key that was probably meant, so that this key is not reported as missing."""
    parent = _parent(values, path)
    if path[-1] in parent:
        parent.setdefault(meant, parent.pop(str(path[-1])))


def _take_out(values: dict[str, object], path: KeyPath) -> KeyPath:
    """Remove the smallest part around the path that leaves the rest valid. Return the path of that part."""
    match path:
        case ("assistants", _, "routes", _, *_) | (("location" | "resilience" | "usage" | "stores"), _, *_):
            part = path[:4] if path[0] == "assistants" else path[:2]
        case (section, _, str(field), *_) if section in _NAMED and _is_optional(str(section), field):
            part = path[:3]
        case (section, _, *_) if section in _NAMED:
            part = path[:2]
        case _:
            part = path[:1]
    remove(values, part)
    return part


def _is_optional(section: str, field: str) -> bool:
    known = _keys_of(_NAMED[section]).get(field)
    return known is not None and not known.is_required and field not in _ESSENTIAL
