"""Check a request's JSON against structs, with errors that name the path, and name the fields that no struct has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from providers.failures import InvalidRequest

_T = TypeVar("_T")
_PLACE = re.compile(r" - at `\$?\.?([^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `(.+)`\Z")
_TYPES = {"str": "a string", "int": "a whole number", "float": "a number", "bool": "a boolean", "null": "null"}
_TYPES |= {"array": "an array", "object": "an object"}
_QUOTED = re.compile(r"`(str|int|float|bool|null|array|object)`")
MOST_UNREAD = 128
LONGEST_NAME = 128
NOTHING: tuple[object, ...] = (None, "", [])
"""The values by which a field asks for nothing, so that it need not be refused."""


def read(value: object, form: type[_T], dotted: bool = True) -> _T:
    """Return the value as a struct. Raises InvalidRequest, with paths such as `a[0].b`, or `a.0.b` if `dotted`."""
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        found = _PLACE.search(str(error))
        path, problem = (found[1], str(error)[: found.start()]) if found else ("", str(error))
    if missing := _MISSING.fullmatch(problem):
        path, problem = ".".join(filter(None, (path, missing[1]))), "Field required"
    if dotted:
        path = path.replace("[", ".").replace("]", "")
    problem = _QUOTED.sub(lambda quoted: _TYPES[quoted[1]], problem.replace(" | null", ""))
    raise InvalidRequest(f"{path}: {problem}" if path else problem, path or None)


def unread(source: object, form: object, place: str = "") -> Iterator[str]:
    """Yield the names of the members that the struct does not have, without indices."""
    if isinstance(source, list) and isinstance(form, list):
        for one, its_form in zip(source, form, strict=True):
            if isinstance(its_form, msgspec.Struct):
                yield from unread(one, its_form, place)
    elif isinstance(source, dict) and isinstance(form, msgspec.Struct):
        known, nested = _names(type(form))
        prefix = f"{place}." if place else ""
        if not source.keys() <= known:
            yield from (prefix + name for name, value in source.items() if name not in known and value is not None)
        if nested:
            members = msgspec.structs.asdict(form)
            for name in nested:
                if name in source:
                    yield from unread(source[name], members[name], prefix + name)


@cache
def _names(form: type[msgspec.Struct]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the names of all members, and of those with structs."""
    hints = get_type_hints(form)
    nested = tuple(name for name in form.__struct_fields__ if _has_struct(hints[name]))
    return frozenset({*form.__struct_encode_fields__, form.__struct_config__.tag_field or ""}), nested


def _has_struct(hint: Any) -> bool:
    return any(map(_has_struct, get_args(hint))) or (isinstance(hint, type) and issubclass(hint, msgspec.Struct))


def bounded(names: set[str]) -> frozenset[str]:
    """Return the names. Raises InvalidRequest for more or longer ones than any API has."""
    if len(names) > MOST_UNREAD:
        message = f"{len(names)} fields of the request are not part of the API; at most {MOST_UNREAD} are accepted"
        raise InvalidRequest(message)
    if any(len(name) > LONGEST_NAME for name in names):
        raise InvalidRequest(f"a field of the request has a name of more than {LONGEST_NAME} characters")
    return frozenset(names)
