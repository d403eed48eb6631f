"""JSON Schema -> the subset that Claude's structured outputs and strict tools take; the client's own is left alone.

Every object is closed (`additionalProperties: false`), and bounds that the vendor refuses are told in the description,
as its own SDK does. The answer fits the client's schema as well, but for those bounds.
Source: anthropic 2.10.0 (transform_schema), platform.claude.com on structured outputs; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.failures import UnsupportedFeature
from providers.json_values import as_map, dumps_text

__all__ = ["strict_schema"]

_PLAIN = frozenset({"type", "description", "title", "enum", "const", "required", "$ref", "default"})
_MAPS = frozenset({"properties", "$defs", "definitions"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf"})
_IGNORED = frozenset({"$schema", "$id", "additionalProperties", "examples"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_DEEPEST = 64


def strict_schema(schema: Mapping[str, object], feature: str) -> dict[str, object]:
    """The schema in the vendor's subset; raises UnsupportedFeature for an object with members of any name."""
    return _closed(schema, feature, 0)


def _closed(schema: object, feature: str, depth: int) -> dict[str, object]:
    if depth > _DEEPEST:
        raise UnsupportedFeature(feature, "the provider's structured outputs take no schema that is nested so deeply")
    closed: dict[str, object] = {}
    beyond: dict[str, object] = {}
    for name, value in as_map(schema).items():
        if name in _PLAIN:
            closed[name] = value
        elif name in _MAPS:
            closed[name] = {key: _closed(inner, feature, depth + 1) for key, inner in as_map(value).items()}
        elif name in _LISTS and isinstance(value, list):
            closed["allOf" if name == "allOf" else "anyOf"] = [_closed(one, feature, depth + 1) for one in value]
        elif name == "items":
            closed[name] = _closed(value, feature, depth + 1)
        elif (name == "minItems" and value in (0, 1)) or (name == "format" and value in _FORMATS):
            closed[name] = value
        elif name not in _IGNORED:
            beyond[name] = value
    if _is_object(closed):
        _check_named(as_map(schema), feature)
        closed["additionalProperties"] = False
    if beyond:
        told = dumps_text(beyond)
        said = closed.get("description")
        closed["description"] = f"{said}\n\n{told}" if isinstance(said, str) and said else told
    return closed


def _is_object(schema: Mapping[str, object]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema


def _check_named(schema: Mapping[str, object], feature: str) -> None:
    others = schema.get("additionalProperties")
    is_open = others is not False and (others is not None or "properties" not in schema)
    if is_open or "patternProperties" in schema:
        message = "the provider's structured outputs take only objects whose properties are all named"
        raise UnsupportedFeature(feature, message)
