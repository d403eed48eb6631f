"""Turn Google's `Schema` (a part of OpenAPI 3.0) into JSON Schema, and close schemas of answers where that is safe.

Source: ai.google.dev/api/caching#Schema, read 2026-11-23; OpenAI's guide to structured outputs on strict schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.openai_json.fields import items, mapping

_TYPES = frozenset({"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"})
# Keywords whose values are data, not schemas.
_VALUES = frozenset({"const", "enum", "default", "example", "examples"})
_UNSPECIFIED = "TYPE_UNSPECIFIED"
_COUNTS = frozenset({"maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties"})
_LISTS = frozenset({"anyOf", "prefixItems"})
_NAMES = {"$defs": "$defs", "defs": "$defs", "properties": "properties"}
# The keywords that a strict schema may contain at every provider that has strict schemas.
_STRICT_WORDS = frozenset(
    "type properties required additionalProperties items anyOf $ref $defs enum const description title".split()
)


def json_schema(value: object, path: str) -> dict[str, object]:
    """Return a `Schema` as JSON Schema. Raises InvalidRequest.

    Names of types become lower case, `nullable` becomes a type, and `propertyOrdering` the order of the properties.
    Keywords of JSON Schema that Google's form does not have are kept.
    """
    source = mapping(value, path)
    schema: dict[str, object] = {}
    for name, item in source.items():
        if item is None or name in ("nullable", "propertyOrdering", "property_ordering"):
            continue
        place = f"{path}.{name}"
        word = _camel(name)
        if word in _NAMES:
            entries = mapping(item, place)
            schema[_NAMES[word]] = {key: json_schema(one, f"{place}.{key[:64]}") for key, one in entries.items()}
        elif word in _LISTS:
            schema[word] = [json_schema(one, f"{place}[{at}]") for at, one in enumerate(items(item, place))]
        elif word == "items" or (word == "additionalProperties" and not isinstance(item, bool)):
            schema[word] = json_schema(item, place)
        elif word == "type":
            if item != _UNSPECIFIED:
                schema["type"] = _type(item)
        elif word in _COUNTS and isinstance(item, str) and item.isdecimal():
            # ProtoJSON writes 64-bit numbers as strings.
            schema[word] = int(item)
        elif word == "example":
            schema["examples"] = [item]
        elif word == "ref":
            schema["$ref"] = item
        elif not (word == "format" and item == "enum"):
            schema[word] = item
    _order_properties(schema, source.get("propertyOrdering") or source.get("property_ordering"))
    return _nullable(schema) if source.get("nullable") is True else schema


def _camel(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(word.capitalize() for word in more) if first and more else name


def _type(value: object) -> object:
    if isinstance(value, str):
        return value.lower()
    return [_type(one) for one in value] if isinstance(value, list) else value


def _order_properties(schema: dict[str, object], order: object) -> None:
    properties = schema.get("properties")
    if isinstance(properties, dict) and isinstance(order, list):
        first = [name for name in order if isinstance(name, str) and name in properties]
        schema["properties"] = {name: properties[name] for name in dict.fromkeys([*first, *properties])}


def _nullable(schema: dict[str, object]) -> dict[str, object]:
    if isinstance(options := schema.get("anyOf"), list) and "type" not in schema:
        return {**schema, "anyOf": [*options, {"type": "null"}]}
    if (kind := schema.get("type")) is not None:
        kinds = kind if isinstance(kind, list) else [kind]
        schema = {**schema, "type": [*kinds, *([] if "null" in kinds else ["null"])]}
    if isinstance(values := schema.get("enum"), list) and None not in values:
        schema = {**schema, "enum": [*values, None]}
    return schema


def with_lower_types(schema: Any) -> Any:
    """Return a JSON Schema whose types are lower case. Gemini CLI sends Google's names of types in it."""
    if isinstance(schema, list):
        return [with_lower_types(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    lowered: dict[str, Any] = {}
    for name, item in schema.items():
        if name == "type":
            lowered[name] = [_lower(one) for one in item] if isinstance(item, list) else _lower(item)
        elif name in _NAMES or name == "patternProperties":
            entries = item.items() if isinstance(item, dict) else ()
            lowered[name] = {key: with_lower_types(one) for key, one in entries}
        else:
            lowered[name] = item if name in _VALUES else with_lower_types(item)
    return lowered


def _lower(kind: Any) -> Any:
    return kind.lower() if isinstance(kind, str) and kind.upper() in _TYPES else kind


def close_schema(schema: Mapping[str, object]) -> tuple[Mapping[str, object], bool | None]:
    """Return the schema of an answer for strict use, with True; or the same schema with None if it does not allow it.

    Gemini enforces the schema of an answer. Other providers do so only for a strict schema, in which every object is
    closed and has all of its properties. An object that is not closed is closed here: an answer to the closed schema
    is also an answer to the open one.
    """
    try:
        return _closed(schema), True
    except _NotStrict:
        return schema, None


class _NotStrict(Exception):
    """The schema cannot be strict."""


def _closed(schema: Any) -> dict[str, object]:
    if not isinstance(schema, dict) or not schema.keys() <= _STRICT_WORDS:
        raise _NotStrict
    closed: dict[str, object] = dict(schema)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema or (isinstance(kind, list) and "object" in kind):
        properties = schema.get("properties")
        if (
            not isinstance(properties, dict)
            or not properties
            or schema.get("additionalProperties", False) is not False
            or not isinstance(required := schema.get("required"), list)
            or set(map(str, required)) != properties.keys()
        ):
            raise _NotStrict
        closed["additionalProperties"] = False
        closed["properties"] = {name: _closed(one) for name, one in properties.items()}
    elif not schema.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
        raise _NotStrict
    if "items" in schema:
        closed["items"] = _closed(schema["items"])
    elif kind == "array":
        raise _NotStrict
    if "anyOf" in schema:
        if not isinstance(options := schema["anyOf"], list):
            raise _NotStrict
        closed["anyOf"] = [_closed(one) for one in options]
    if "$defs" in schema:
        if not isinstance(named := schema["$defs"], dict):
            raise _NotStrict
        closed["$defs"] = {name: _closed(one) for name, one in named.items()}
    return closed
