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

_MOST_TO_NAME_BYTES = 1024 * 1024
_PLAIN = re.compile("[A-Za-z0-9_-]{1,64}")


def check_names(body: bytes, value: object) -> None:
    """Raise ApiError (invalid_request) where the body has a name that its parsed value lacks.

    A colon stands behind each name. Those in texts are as many in the body as in its value, so that nobody has to tell
    them apart. What the official SDKs write is what is written here, and needs no count.
    """
    again = orjson.dumps(value)
    if again != body and _count_colons(body) != again.count(b":"):
        place = _place_of_twice(body) if len(body) <= _MOST_TO_NAME_BYTES else None
        told = "an object in the body has the same name twice" if place is None else f"`{place}` is there twice"
        raise ApiError("invalid_request", f"{told}: give it once", param=place)


def _count_colons(body: bytes) -> int:
    """How many colons this JSON has, those that a text has as `\\u003a` too, as orjson never writes them."""
    count = body.count(b":")
    if b"u003a" in body or b"u003A" in body:
        # In pairs, as they are read: what is left of a run of backslashes tells whether it escapes what is behind it.
        escapes = body.replace(rb"\\", b"")
        count += escapes.count(rb"\u003a") + escapes.count(rb"\u003A")
    return count


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
