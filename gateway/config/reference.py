"""Render the reference page of all config keys from the JSON Schema (`gateway schema --markdown`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_HEAD = """\
# Configuration keys

This page lists each key of the configuration. `NAME` stands for a name of your choice, `[]` for each item of a list.
A key without a default is required. [A first configuration](../operate/first-config.md) shows how to begin.
`gateway schema --markdown` generates the page from the JSON Schema.
"""
_TABLE = "| key | value | default | meaning |\n|---|---|---|---|"
_Schema = dict[str, Any]


def reference_page(schema_json: str) -> str:
    """Return the page as Markdown: one table for each object of the config, in the order of its JSON Schema."""
    schema: _Schema = json.loads(schema_json)
    definitions: dict[str, _Schema] = schema.get("$defs", {})
    pages = [_HEAD]
    for path, section in _sections("", schema, definitions):
        title = f"`{path}`" if path else "The file"
        pages.append(f"## {title}\n\n{_table(section, definitions)}\n")
    return "\n".join(pages)


def _sections(path: str, section: _Schema, definitions: dict[str, _Schema]) -> Iterator[tuple[str, _Schema]]:
    """Yield each object with keys and its path, an object before the objects in it."""
    yield path, section
    for key, value in section["properties"].items():
        here = f"{path}.{key}" if path else key
        for suffix, inner in _objects_in(value, definitions):
            yield from _sections(here + suffix, inner, definitions)


def _objects_in(value: _Schema, definitions: dict[str, _Schema]) -> Iterator[tuple[str, _Schema]]:
    """Yield the objects that the value of a key is or contains, and the suffix of their path."""
    value = _resolved(value, definitions)
    if "properties" in value:
        yield "", value
    elif isinstance(value.get("additionalProperties"), dict):
        for suffix, inner in _objects_in(value["additionalProperties"], definitions):
            yield f".NAME{suffix}", inner
    elif "items" in value:
        for suffix, inner in _objects_in(value["items"], definitions):
            yield f"[]{suffix}", inner
    for choice in value.get("anyOf", ()):
        yield from _objects_in(choice, definitions)


def _table(section: _Schema, definitions: dict[str, _Schema]) -> str:
    required = set(section.get("required", ()))
    rows = [
        f"| `{key}` | {_kind(value, definitions)} | {_default(key, value, required)} | {_meaning(value, definitions)} |"
        for key, value in section["properties"].items()
    ]
    others = section.get("additionalProperties")
    if isinstance(others, dict):
        rows.append(f"| `NAME` | {_kind(others, definitions)} | none | {section.get('description', '')} |")
    return "\n".join([_TABLE, *rows])


def _meaning(value: _Schema, definitions: dict[str, _Schema]) -> str:
    return _cell(_resolved(value, definitions).get("description", "")).replace("*", "\\*")


def _default(key: str, value: _Schema, required: set[str]) -> str:
    if key in required:
        return ""
    default = value.get("default")
    if default is None or default in ({}, []):
        return "none"
    return "as below" if isinstance(default, dict) else f"`{_cell(json.dumps(default, ensure_ascii=False))}`"


def _kind(value: _Schema, definitions: dict[str, _Schema]) -> str:
    """Return a description of the allowed values."""
    value = _resolved(value, definitions)
    if "const" in value or "enum" in value:
        return " or ".join(f"`{word}`" for word in value.get("enum", [value.get("const")]))
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(_kind(choice, definitions) for choice in value["anyOf"]))
    match value.get("type"):
        case "array":
            return f"list of {_kind(value['items'], definitions)}"
        case "object" if "properties" in value:
            return "keys below"
        case "object" if isinstance(value.get("additionalProperties"), dict):
            return f"by name: {_kind(value['additionalProperties'], definitions)}"
        case "object":
            return "keys below"
        case "integer":
            return "number" + "".join(
                f", {word} {value[limit]}" for limit, word in (("minimum", "from"), ("maximum", "to")) if limit in value
            )
        case "boolean":
            return "`true` or `false`"
        case "string":
            return "text"
        case other:
            return str(other or "anything")


def _resolved(value: _Schema, definitions: dict[str, _Schema]) -> _Schema:
    reference = value.get("$ref")
    return definitions[reference.removeprefix("#/$defs/")] | value if reference else value


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
