"""Rewrite JSON schemas for vendors that take a subset, by the rules of `providers.catalogue.takes.Takes`.

A schema that needs no change is returned itself. Nothing below 64 levels is changed.

Source: openai/openai-agents-python#454 and digitalocean-labs/mcp-digitalocean#265 (missing members at OpenAI);
anthropics/claude-code#40075 and anomalyco/opencode#35516 (the top of a tool's schema at Anthropic and OpenAI);
MoonshotAI/walle, docs/walle.zh.md (Kimi's subset), MoonshotAI/kimi-cli#2061 and #1595; read 2026-11-26.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from providers.json_values import as_list, as_map, dumps_text

_Schema = Mapping[str, Any]
NO_ARGUMENTS: _Schema = {"type": "object", "properties": {}}
_DEEPEST = 64
_MOST_RESOLVED = 4
"""References that are replaced inside each other. A reference below that shows a recursive schema."""
_MAPS = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_COMBINED = ("anyOf", "oneOf", "allOf")
_INSIDE = frozenset({*_MAPS, *_COMBINED, "items", "additionalProperties", "prefixItems", "not"})
_ANY_TYPE = ("string", "number", "boolean", "object", "array", "null")
_TYPE_OF = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_ALONE = ("title", "description", "$defs", "$id")
"""The members that Kimi takes together with `anyOf` or several types."""
_PLAIN = ("string", "number", "integer", "boolean")
# Keywords that OpenAI's strict mode does not allow (its guide to structured outputs, November 2026).
_NOT_STRICT = frozenset(
    "allOf not dependentRequired dependentSchemas if then else patternProperties default propertyNames oneOf "
    "unevaluatedProperties unevaluatedItems contains minContains maxContains uniqueItems prefixItems".split()
)


_BOUNDS = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength minItems maxItems".split()
)


def tool_schema(schema: _Schema, rules: Set[str]) -> tuple[_Schema, bool]:
    """Return the schema of a tool's arguments as the rules demand, and whether the model learns less from it."""
    told = _for_vendor(schema, rules)
    if "plain_root" in rules and not told.keys().isdisjoint(_COMBINED):
        told = _merged(told, told)
    if "members" not in rules:
        return told, told is not schema
    whole = _walked(told, _with_members) if _lacks_members(told) else told
    if whole.get("type") != "object" or "properties" not in whole:
        whole = {**whole, "type": "object", "properties": as_map(whole.get("properties"))}
    return whole, told is not schema


def answer_schema(schema: _Schema, rules: Set[str]) -> _Schema:
    """Return the schema of an answer as the rules demand."""
    return _for_vendor(_walked(schema, _without_bounds) if "bounds" in rules else schema, rules)


def _without_bounds(schema: _Schema) -> _Schema:
    """Return a schema whose bounds are in its description, where the model reads them."""
    if _BOUNDS.isdisjoint(schema):
        return schema
    bounds = dumps_text({name: value for name, value in schema.items() if name in _BOUNDS})
    rest = {name: value for name, value in schema.items() if name not in _BOUNDS}
    text = schema.get("description")
    return {**rest, "description": f"{text}\n\n{bounds}" if isinstance(text, str) and text else bounds}


def _for_vendor(schema: _Schema, rules: Set[str]) -> _Schema:
    if "kimi" not in rules or not schema or _is_plain(schema):
        return schema
    return _walked(_normal(schema, schema), _with_type)


def _normal(schema: _Schema, root: _Schema, depth: int = 0, resolved: int = 0) -> _Schema:
    """Return the schema in Kimi's normal form: a reference, `anyOf` or one type, each by itself, on every level.

    An outer schema comes before its inner ones, because what replaces a reference has to be in this form too.
    """
    if depth >= _DEEPEST:
        return schema
    form = _for_kimi(schema, root if resolved < _MOST_RESOLVED else {})
    deeper = resolved + any(name in schema for name in _COMBINED)
    return _inside(form, lambda inner: _normal(inner, root, depth + 1, deeper))


def allows_strict(schema: object) -> bool:
    """Return whether a schema obeys the rules of OpenAI's strict mode already.

    Every object is closed and requires all of its properties, and there is no keyword that the mode does not have.
    """
    waiting: list[object] = [schema]
    while waiting:
        item = waiting.pop()
        if not isinstance(item, dict) or not item or not _NOT_STRICT.isdisjoint(item):
            return False
        kind, properties = item.get("type"), item.get("properties")
        if properties is not None or kind == "object" or (isinstance(kind, list) and "object" in kind):
            if not isinstance(properties, dict) or not _is_closed(item, properties):
                return False
            waiting += properties.values()
        for name in ("$defs", "definitions"):
            if isinstance(inner := item.get(name), dict):
                waiting += inner.values()
        if "items" in item:
            waiting.append(item["items"])
        if isinstance(variants := item.get("anyOf"), list):
            waiting += variants
    return isinstance(schema, dict) and schema.get("type") == "object"


def _is_closed(schema: _Schema, properties: _Schema) -> bool:
    required = schema.get("required")
    return (
        schema.get("additionalProperties") is False
        and isinstance(required, list)
        and all(isinstance(name, str) for name in required)
        and set(required) == properties.keys()
    )


def _walked(schema: _Schema, mend: Callable[[_Schema], _Schema], depth: int = 0) -> _Schema:
    """Return the schema with each schema inside made to fit, from the innermost outwards."""
    if depth >= _DEEPEST:
        return schema
    return mend(_inside(schema, lambda inner: _walked(inner, mend, depth + 1)))


def _inside(schema: _Schema, mend: Callable[[_Schema], _Schema]) -> _Schema:
    """Return the schema with the schemas directly inside it made to fit. `true` is the empty schema."""
    changes: dict[str, object] = {}
    for name in _INSIDE & schema.keys():
        value = schema[name]
        if isinstance(value, list) or name in _MAPS:
            pairs = list(enumerate(value) if isinstance(value, list) else as_map(value).items())
            mended = {
                key: mend({} if one is True else one) if one is True or isinstance(one, dict) else one
                for key, one in pairs
            }
            if any(mended[key] is not one for key, one in pairs):
                changes[name] = list(mended.values()) if isinstance(value, list) else mended
        elif isinstance(value, dict) and (new := mend(value)) is not value:
            changes[name] = new
    return {**schema, **changes} if changes else schema


def _is_plain(schema: _Schema) -> bool:
    """Return whether each schema inside this one has one type and no reference. Most schemas need only this look."""
    waiting: list[_Schema] = [schema]
    for one in waiting:
        if not isinstance(one.get("type"), str) or "$ref" in one or not one.keys().isdisjoint(_COMBINED):
            return False
        for name in _INSIDE & one.keys():
            value = one[name]
            inner = value if isinstance(value, list) else as_map(value).values() if name in _MAPS else (value,)
            if True in inner:
                return False
            waiting += [part for part in inner if isinstance(part, dict)]
    return True


def _lacks_members(schema: _Schema) -> bool:
    """Return whether `_with_members` would change a schema inside this one. Most schemas need only this look."""
    waiting: list[_Schema] = [schema]
    for one in waiting:
        kind = one.get("type")
        if (kind == "array" and "items" not in one) or (kind == "object" and "properties" not in one):
            return True
        for name in _INSIDE & one.keys():
            value = one[name]
            inner = value if isinstance(value, list) else as_map(value).values() if name in _MAPS else (value,)
            waiting += [part for part in inner if isinstance(part, dict) and part.get("type") not in _PLAIN]
    return False


def _with_members(schema: _Schema) -> _Schema:
    """Return the schema of an array with its items, and of an object with its properties."""
    kind = schema.get("type")
    if kind == "array" and "items" not in schema:
        return {**schema, "items": {}}
    return {**schema, "properties": {}} if kind == "object" and "properties" not in schema else schema


def _merged(schema: _Schema, root: _Schema) -> _Schema:
    """Return the schema of an object without combinations: with all properties, and what each combination requires."""
    properties, required = dict(as_map(schema.get("properties"))), list(_names(schema))
    for name in _COMBINED:
        branches = [_resolved(as_map(one), root) for one in as_list(schema.get(name)) if isinstance(one, dict)]
        for branch in branches:
            properties = {**as_map(branch.get("properties")), **properties}
        needed = [set(_names(branch)) for branch in branches]
        more = (set().union(*needed) if name == "allOf" else set.intersection(*needed)) if needed else set()
        required += sorted(more - {*required})
    rest = {name: value for name, value in schema.items() if name not in (*_COMBINED, "required")}
    needs = [name for name in required if name in properties]
    return {**rest, "type": "object", "properties": properties, **({"required": needs} if needs else {})}


def _names(schema: _Schema) -> tuple[str, ...]:
    required = schema.get("required")
    return tuple(name for name in required if isinstance(name, str)) if isinstance(required, list) else ()


def _resolved(schema: _Schema, root: _Schema) -> _Schema:
    """Return the schema that a reference inside its document means, or the schema itself, also without a document."""
    if not root or not isinstance(reference := schema.get("$ref"), str):
        return schema
    meant: Any = root
    for step in reference.removeprefix("#/").split("/"):
        meant = as_map(meant).get(step)
    return as_map(meant)


def _for_kimi(schema: _Schema, root: _Schema) -> _Schema:
    """Return a schema with a reference or `anyOf` by itself, if it has one. Its inner schemas fit already."""
    kind = schema.get("type")
    if "$ref" in schema:
        alone = {name: value for name, value in schema.items() if name in ("$ref", "$defs", "$id")}
        return alone if len(alone) < len(schema) else schema
    combined = [name for name in _COMBINED if as_list(schema.get(name))]
    if combined and (kind == "object" or "properties" in schema):
        return _merged(schema, root)
    if combined == ["allOf"]:
        return _for_kimi(_all_in_one(schema, root), root)
    if combined:
        branches = _branches(schema, combined)
    elif isinstance(kind, list) and not schema.keys() <= {"type", *_ALONE}:
        own = {name: value for name, value in schema.items() if name not in (*_ALONE, "default")}
        branches = [_typed(own, each) for each in kind]
    else:
        return schema
    fits = schema.keys() <= {"anyOf", *_ALONE} and branches == schema["anyOf"]
    return schema if fits else {**{name: schema[name] for name in _ALONE if name in schema}, "anyOf": branches}


def _all_in_one(schema: _Schema, root: _Schema) -> _Schema:
    """Return a schema with the members of all parts of its `allOf`. Its own members replace members of the parts."""
    parts = schema["allOf"]
    whole: dict[str, Any] = dict(schema)
    for part in parts:
        whole = {**as_map(_resolved(as_map(part), root) if len(parts) > 1 else part), **whole}
    return {name: value for name, value in whole.items() if name != "allOf"}


def _branches(schema: _Schema, combined: Sequence[str]) -> list[_Schema]:
    """Return the schemas of which one has to match, each with the type that stands next to them."""
    branches = [as_map(part) for name in combined if name != "allOf" for part in schema[name]]
    if (kind := schema.get("type")) is None:
        return branches
    stated = {"type", "$ref", "anyOf"}
    return [part if stated & part.keys() else {**part, "type": kind} for part in branches]


def _typed(schema: _Schema, kind: object) -> _Schema:
    """Return the schema of one of several types, without the values of the others."""
    if kind == "null":
        return {"type": "null"}
    if isinstance(values := schema.get("enum"), list):
        return {**schema, "type": kind, "enum": [value for value in values if value is not None]}
    return {**schema, "type": kind}


def _with_type(schema: _Schema) -> _Schema:
    """Return a schema with the type that its other keywords imply, or any type, if it states none."""
    if {"type", "$ref", "anyOf"} & schema.keys():
        return schema
    for name, kind in (("properties", "object"), ("items", "array")):
        if name in schema:
            return {**schema, "type": kind}
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    kinds = {_TYPE_OF.get(type(value), "") for value in values} if isinstance(values, list) else set()
    if len(kinds) == 1 and "" not in kinds:
        return {**schema, "type": kinds.pop()}
    return {**{name: schema[name] for name in _ALONE if name in schema}, "type": list(_ANY_TYPE)}
