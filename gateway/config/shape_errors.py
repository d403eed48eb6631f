"""What the schema objects to -> a message and the mend, in the config's own words. Never shows a value that may be a
secret: only words where the schema allows certain words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from gateway.config import unsupported
from gateway.config.problems import Path, choice_hint, nearest, quoted
from gateway.config.scalars import MEANINGS
from gateway.config.schema import GatewaySection

__all__ = ["ShapeError", "read_error"]

_NOT_YET = "is not supported by this version yet"

_EXPECTED = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
}


@dataclass(frozen=True, slots=True)
class ShapeError:
    """One objection. at_key: the last part of the path is wrong, not its value. removable: a key that is nothing known;
    meant: the known key that it probably should be."""

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    removable: bool = False
    meant: str | None = None


def read_error(error: ErrorDetails, root: type[BaseModel] = GatewaySection) -> ShapeError:
    """The objection that pydantic's error stands for; root: the section of the whole file."""
    path, value = error["loc"], error["input"]
    if path and path[-1] == "[key]":
        return ShapeError(path[:-1], f"the name {_message(error)}", at_key=True)
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(path, root)
        case "missing":
            return ShapeError(path, "is missing", f"add it: {_description(path, root)}")
        case "literal_error":
            return _unknown_word(path, value, re.findall(r"'([^']*)'", str(error["ctx"]["expected"])))
        case kind if kind in _EXPECTED:
            return ShapeError(path, f"must be {_EXPECTED[kind]}, not {_kind(value)}", _type_hint(kind, value))
        case "config":
            return ShapeError(path, str(error["ctx"]["message"]), str(error["ctx"]["hint"]))
    return ShapeError(path, _message(error))


def _message(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "string_pattern_mismatch":
            return MEANINGS.get(str(context["pattern"]), "has a form that is not allowed")
        case "too_short":
            return "must not be empty"
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
    return "is not allowed here"


def _unknown_key(path: Path, root: type[BaseModel]) -> ShapeError:
    key = str(path[-1])
    if key in unsupported.KEYS:
        return ShapeError(path, f"`{key}` {_NOT_YET}", "remove it", True, True)
    names = _keys_at(path[:-1], root)
    hint = choice_hint(key, names)
    return ShapeError(path, f"unknown key {quoted(key)}", hint, True, True, nearest(key, names))


def _unknown_word(path: Path, value: object, words: list[str]) -> ShapeError:
    if path == ("version",):
        return ShapeError(path, "must be 1", "this is version 1 of the format; write `version: 1`")
    if not isinstance(value, str):
        return ShapeError(path, f"must be one of {', '.join(words)}, not {_kind(value)}")
    return ShapeError(path, f"unknown word {quoted(value)}", choice_hint(value, words))


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


def _description(path: Path, root: type[BaseModel]) -> str:
    section = _section_at(path[:-1], root)
    field = section.model_fields.get(str(path[-1])) if section else None
    return (field.description if field else None) or ""


def _keys_at(path: Path, root: type[BaseModel]) -> list[str]:
    section = _section_at(path, root)
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def _section_at(path: Path, root: type[BaseModel]) -> type[BaseModel] | None:
    """The section that the schema has at a path."""
    kind: Any = root
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {field.alias or name: field for name, field in kind.model_fields.items()}
            kind = _bare(fields[part].annotation) if part in fields else None
        else:
            arguments = get_args(kind)
            kind = _bare(arguments[-1]) if arguments else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _bare(kind: Any) -> Any:
    """The type without None."""
    if get_origin(kind) in (Union, UnionType):
        return next(choice for choice in get_args(kind) if choice is not type(None))
    return kind
