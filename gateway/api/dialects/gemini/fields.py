"""Read the objects of a request: names in camelCase or snake_case, and a list of those that are dropped.

Google's servers read both forms of a name (ProtoJSON, protobuf.dev/programming-guides/json).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.failures import InvalidRequest, UnsupportedFeature
from providers.matching.requirements import moves_data, why_it_moves
from providers.openai_json.fields import items, mapping

Fields = Mapping[str, object]
"""An object of a request, with its names in camelCase and without nulls."""

_UNDERSCORE = re.compile("_([a-z0-9])")
_SNAKE = re.compile("(?<!^)(?=[A-Z])")


def read_object(value: object, path: str) -> Fields:
    """Return an object with its names in camelCase. A null is the same as an absent value. Raises InvalidRequest."""
    source = mapping(value, path)
    fields: dict[str, object] = {}
    for name, item in source.items():
        if item is None:
            continue
        plain = _UNDERSCORE.sub(lambda match: match[1].upper(), name) if "_" in name[1:] else name
        if plain in fields:
            place = f"{path}.{plain}" if path else plain
            raise InvalidRequest(f"`{place}` is there twice, also as {name!r}: send it once", place)
        fields[plain] = item
    return fields


def repeated(value: object, path: str, *, at_most: int | None = None) -> list[object]:
    """Return the entries of an array of objects, or of one object, as Google's servers do. Raises InvalidRequest."""
    return [value] if isinstance(value, dict) else items(value, path, at_most=at_most)


class DroppedFields:
    """Collects the dotted names of fields that are not read, without indexes: `generationConfig.mediaResolution`."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add(self, name: str) -> None:
        """Note a field that is not read."""
        self.names.add(name)

    def add_unknown(self, source: Fields, known: frozenset[str], path: str) -> None:
        """Note all fields of an object that are not known.

        Raises UnsupportedFeature if a field keeps or moves data, so that the request means something else without it.
        """
        if source.keys() <= known:
            return
        for name, value in source.items():
            if name in known:
                continue
            place = f"{path}.{name}" if path else name
            for form in (name, _SNAKE.sub("_", name).lower()):
                if form in moves_data() and value not in (False, [], {}, ""):
                    message = (
                        f"`{place}` is not supported, because it {why_it_moves(form)}: send the content in `contents`"
                    )
                    raise UnsupportedFeature(form, message, place)
            self.names.add(place)
