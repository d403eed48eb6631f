"""Read values into a section of a file: each error of shape has its place and its fix, and the rest can still be read.

A section is a pydantic model or a `PlainSection`. The path of an error is the one that is written: a single value may
stand for a list, and a text for a mapping.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.field_types import MEANINGS
from gateway.config.problems import KeyPath, choice_hint, nearest, quoted
from gateway.config.sensitive_keys import may_refer, places_of_references
from gateway.model.section import PlainSection, UnitError
from providers.value import Value, replace

SectionT = TypeVar("SectionT", bound=BaseModel)
UNSUPPORTED_KEYS = frozenset({"evaluations"})
"""Keys that are planned, in any section."""
_USE_LIMIT = "write `limit`, the number of calls that may run at the same time, and remove `{}`"
REMOVED: Mapping[tuple[str, str], tuple[str, str]] = {
    ("concurrency", key): (f"`{key}` was removed with the adaptive limit", _USE_LIMIT.format(key))
    for key in ("adaptive", "min", "max")
} | {
    ("judge", "pairs"): (
        "`pairs` was removed with the comparison of two answers by the judge",
        "remove it: the scores of rubrics are compared on the same questions",
    )
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


class ShapeError(Value, frozen=True):
    """One error in the shape of a section."""

    path: KeyPath
    message: str
    hint: str = ""
    at_key: bool = False
    """The last key of the path is wrong, not its value."""
    removable: bool = False
    """The key is unknown, so that the section is valid without it."""
    meant: str | None = None
    """The known key that was probably meant."""


def read_shape(
    section: type[SectionT], values: Mapping[str, object], known: Iterable[ShapeError] = ()
) -> tuple[SectionT | None, list[ShapeError]]:
    """Return a section, or None, and the errors of its shape at the paths that are written.

    Errors that are `known` already take precedence over others at the same path.
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
    # The place of a value is judged once its key is known.
    unknown = [error.path for error in errors.values() if error.removable]
    below = [path for path in errors if any(path != key and path[: len(key)] == key for key in unknown)]
    return read, [error for path, error in errors.items() if path not in below]


def valid_part(
    section: type[SectionT],
    required: Mapping[str, object],
    values: Mapping[str, object],
    errors: Iterable[ShapeError],
    take_out: Callable[[dict[str, object], KeyPath], object],
) -> tuple[SectionT, dict[str, object]]:
    """Return a section without its errors of shape, and the values that are left.

    `required` has values of required keys, for those that are missing or taken out. `take_out` removes the part around
    a wrong value without which the rest is valid.
    """
    part = mended(values, errors, take_out)
    read, errors = read_shape(section, {**required, **part})
    for error in errors:  # the value of a misspelt key is wrong too
        take_out(part, error.path)
    return read or section.model_validate({**required, **part}), part


def mended(
    values: Mapping[str, object], errors: Iterable[ShapeError], take_out: Callable[[dict[str, object], KeyPath], object]
) -> dict[str, object]:
    """Return a copy in which misspelt keys are renamed, unknown keys are removed, and other mistakes are taken out."""
    copy = _copied(values)
    for error in errors:
        if error.meant is not None:
            # With the key that was probably meant, that key is not reported as missing.
            parent, key = parent_of(copy, error.path), error.path[-1]
            if key in parent:
                parent.setdefault(error.meant, parent.pop(str(key)))
        elif error.removable:
            remove(copy, error.path)
        else:
            take_out(copy, error.path)
    return copy


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


def _shape_error(error: ErrorDetails, root: type[BaseModel]) -> ShapeError:
    """Convert an error of pydantic. `root` is the section of the whole file."""
    path, value = error["loc"], error["input"]
    if path and path[-1] == "[key]":
        if error["type"] == "literal_error":
            return replace(_unknown_word(path[:-1], error), at_key=True)
        if isinstance(cause := error.get("ctx", {}).get("error"), UnitError):
            return ShapeError(path[:-1], cause.message, cause.hint, at_key=True)
        return ShapeError(path[:-1], f"the name {_message(error)}", at_key=True)
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            key = str(path[-1])
            if key in UNSUPPORTED_KEYS:
                return ShapeError(path, f"`{key}` {_NOT_YET}", "remove it", True, True)
            removed = REMOVED.get((str(path[-2]), key)) if len(path) > 1 else None
            if removed is not None:
                message, hint = removed
                return ShapeError(path, message, hint, at_key=True)
            names = list(keys_of(_section_at(path[:-1], root)))
            hint = choice_hint(key, names)
            return ShapeError(path, f"unknown key {quoted(key)}", hint, True, True, nearest(key, names))
        case "missing":
            return ShapeError(path, "is missing", f"add it: {_description(path, root)}")
        case "literal_error":
            return _unknown_word(path, error)
        case kind if kind in _EXPECTED:
            return ShapeError(path, f"must be {_EXPECTED[kind]}, not {_kind(value)}", _type_hint(kind, value))
        case "value_error" if isinstance(cause := error["ctx"]["error"], UnitError):
            return ShapeError(path, cause.message, cause.hint)
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
    known = keys_of(_section_at(path[:-1], root)).get(str(path[-1]))
    return known.meaning if known is not None else ""


def _section_at(path: KeyPath, root: type[BaseModel]) -> Any:
    """Return the type that the schema has at a path: a section, or a type without keys."""
    kind: Any = root
    for part in path:
        keys = keys_of(kind)
        if keys:
            kind = _bare(keys[str(part)].kind) if part in keys else None
        else:
            arguments = [it for it in get_args(kind) if it is not ...]
            kind = _bare(arguments[-1]) if arguments else None
    return kind


class _Key(Value, frozen=True):
    """A key of a section: the type of its value, and its meaning."""

    kind: Any
    meaning: str
    is_required: bool


def keys_of(section: Any) -> Mapping[str, _Key]:
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


def _copied(values: Mapping[str, object]) -> dict[str, object]:
    """Return a deep copy. YAML aliases share values, and a change must affect one place only."""

    def copy(value: object) -> object:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        return [copy(item) for item in value] if isinstance(value, list) else value

    return {key: copy(value) for key, value in values.items()}


def parent_of(values: dict[str, object], path: KeyPath) -> dict[str, object]:
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
    parent_of(values, path).pop(str(path[-1]), None)
