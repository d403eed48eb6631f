"""A body in which an object has one name twice is refused.

One reader takes the first value, another the last (RFC 8259, section 4): what somebody before us has checked would not
be what is asked.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from gateway.api.errors import ApiError

__all__ = ["check_names"]

_MOST_TO_NAME_BYTES = 1024 * 1024
_PLAIN = re.compile("[A-Za-z0-9_-]{1,64}")


def check_names(body: bytes, value: object) -> None:
    """Raise ApiError (invalid_request) where the body has a name that its parsed value lacks.

    What the official SDKs write is what is written here, and needs no closer look.
    """
    again = orjson.dumps(value)
    if again != body and _count_names(body) != _count_names(again):
        place = _place_of_twice(body) if len(body) <= _MOST_TO_NAME_BYTES else None
        told = "an object of the body has a name twice" if place is None else f"`{place}` is there twice"
        raise ApiError("invalid_request", f"{told}: give it once", param=place)


def _count_names(data: bytes) -> int:
    """How many names the objects of this JSON have: outside its strings, a colon stands behind each."""
    if b"\\" in data:
        # In pairs, as they are read: what is left of a run tells whether the quote behind it ends the string.
        data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(data.split(b'"')[::2]).count(b":")


class _Twice(dict[str, Any]):
    """An object that has `name` twice."""

    name = ""


def _read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice, seen = _Twice(found), set[str]()
    for name, _ in pairs:
        if name in seen:
            twice.name = name
            break
        seen.add(name)
    return twice


def _place_of_twice(body: bytes) -> str | None:
    """The place of a name that stands twice, as `param` tells it; None where a name in it isn't plain."""
    try:
        left: list[tuple[str | None, object]] = [("", json.loads(body, object_pairs_hook=_read))]
    except RecursionError:
        # The value that the other one took the place of counted for no bound.
        return None
    while left:
        place, value = left.pop()
        if isinstance(value, _Twice):
            return _below(place, value.name)
        if isinstance(value, dict):
            left += [(_below(place, name), item) for name, item in value.items()]
        elif isinstance(value, list):
            left += [(None if place is None else f"{place}[{index}]", item) for index, item in enumerate(value)]
    return None


def _below(place: str | None, name: str) -> str | None:
    if place is None or not _PLAIN.fullmatch(name):
        return None
    return f"{place}.{name}" if place else name
