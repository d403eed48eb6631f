"""Build a value that matches a JSON Schema, for the tool arguments and the structured output of a simulated model.

It supports the keywords that tool schemas use: types, `properties`, `required`, `items`, `prefixItems`, bounds of
numbers, strings and arrays, `enum`, `const`, `default`, `examples`, common formats, `anyOf`, `oneOf`, `allOf` and local
`$ref`, also if recursive. It does not solve `pattern`, `not`, `if` or `dependentSchemas`, which need `examples`.
Its work is bounded: a schema that needs a very large value gets one that does not match.
Source: JSON Schema 2020-12, Core and Validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import count
from typing import Any

_TEXT_OF_FORMAT: Mapping[str, str] = json.loads(files("providers.testkit").joinpath("formats.json").read_bytes())
_SHALLOW = 6
"""Below this depth only required properties are filled in, so that a recursive schema ends."""
_DEEPEST = 48
_MOST_VALUES = 4000
_MOST_CHARACTERS = 100_000

_Schema = Mapping[str, Any]


def instance_of(schema: Mapping[str, object], word: str = "example", unwanted: frozenset[str] = frozenset()) -> object:
    """Return a value that matches the schema. The same arguments give the same value.

    Args:
        schema: The JSON Schema.
        word: The content of free strings.
        unwanted: The names, in lower case, of properties that are left out unless the schema requires them.
    """
    return _Synthesis(schema, word, unwanted).build(schema, 0, 0)


@dataclass(frozen=True, slots=True)
class _Synthesis:
    root: _Schema
    word: str
    unwanted: frozenset[str]
    built: Iterator[int] = field(default_factory=count)

    def build(self, schema: object, depth: int, variant: int) -> object:
        """Build a value. `variant` is the index of an element of an array, so that elements differ."""
        if next(self.built) >= _MOST_VALUES:
            return None
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return None if schema is False or depth > _DEEPEST else self.word
        if "$ref" in schema:
            return self.build(self._referred(schema), depth + 1, variant)
        for name in ("const", "default"):
            if name in schema and (name == "const" or "enum" not in schema):
                return schema[name]
        for name in ("enum", "examples"):
            values = schema.get(name)
            if isinstance(values, list) and values:
                return values[variant % len(values)]
        if isinstance(schema.get("allOf"), list):
            return self.build(self._merged(schema, schema["allOf"]), depth + 1, variant)
        for name in ("anyOf", "oneOf"):
            branches = schema.get(name)
            if isinstance(branches, list) and branches:
                rest = {key: value for key, value in schema.items() if key != name}
                return self.build(self._merged(rest, [_chosen(branches, depth)]), depth + 1, variant)
        return self._typed(schema, depth, variant)

    def _typed(self, schema: _Schema, depth: int, variant: int) -> object:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number" as kind:
                return _number(schema, kind == "integer", variant)
            case "boolean":
                return variant % 2 == 0
            case "null":
                return None
            case _:
                return self._string(schema, variant)

    def _object(self, schema: _Schema, depth: int) -> dict[str, object]:
        properties = schema.get("properties") or {}
        names = list(schema.get("required") or ())
        if not names and depth < _SHALLOW:
            names = [name for name in properties if name.lower() not in self.unwanted]
        other = schema.get("additionalProperties", True)
        return {name: self.build(properties.get(name, other), depth + 1, 0) for name in names}

    def _array(self, schema: _Schema, depth: int) -> list[object]:
        prefix = schema.get("prefixItems") or []
        fewest = int(schema.get("minItems", 0))
        wanted = max(fewest, len(prefix), 1 if depth < _SHALLOW else 0)
        wanted = min(wanted, max(fewest, int(schema.get("maxItems", wanted))))
        items = schema.get("items", True)
        if items is False:
            wanted = min(wanted, len(prefix))
        wanted = min(wanted, _MOST_VALUES)
        return [self.build(prefix[i] if i < len(prefix) else items, depth + 1, i) for i in range(wanted)]

    def _string(self, schema: _Schema, variant: int) -> str:
        text = _TEXT_OF_FORMAT.get(schema.get("format", ""))
        if text is not None:
            return text
        text = f"{self.word}{variant + 1}" if variant else self.word
        fewest = min(int(schema.get("minLength", 0)), _MOST_CHARACTERS)
        text += "x" * (fewest - len(text))
        most = schema.get("maxLength")
        return text if most is None or len(text) <= most else text[len(text) - int(most) :]

    def _referred(self, schema: _Schema) -> _Schema:
        """Return the schema of a local reference (`#/$defs/Node`), merged with the keywords next to the reference."""
        node: Any = self.root
        for step in str(schema["$ref"]).removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            node = node.get(step, {}) if isinstance(node, Mapping) else {}
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        return {**node, **siblings} if isinstance(node, Mapping) else siblings

    def _merged(self, schema: _Schema, others: list[Any]) -> _Schema:
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for other in others:
            if not isinstance(other, Mapping):
                continue
            part = self._referred(other) if "$ref" in other else other
            merged = {
                **merged,
                **part,
                "properties": {**(merged.get("properties") or {}), **(part.get("properties") or {})},
                "required": [*(merged.get("required") or ()), *(part.get("required") or ())],
            }
        return {key: value for key, value in merged.items() if value or key not in ("properties", "required")}


def _chosen(branches: list[Any], depth: int) -> object:
    """Return the first branch other than null. At great depth return the null branch, which ends a recursion."""
    empty = [branch for branch in branches if isinstance(branch, Mapping) and branch.get("type") == "null"]
    full = [branch for branch in branches if branch not in empty]
    preferred = empty + full if depth >= _SHALLOW else full + empty
    return preferred[0]


def _type_of(schema: _Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    numeric = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    return "number" if any(name in schema for name in numeric) else "string"


def _number(schema: _Schema, whole: bool, variant: int) -> int | float:
    """Return the lowest multiple of the step (1 for integers) within the bounds, or their middle."""
    low = max(schema.get("minimum", -math.inf), above := schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), below := schema.get("exclusiveMaximum", math.inf))
    step = schema.get("multipleOf") or (1 if whole else 0)
    if step:
        # Integer division, because integers above 2**53 have no exact float.
        value = step if low == -math.inf else -(-low // step) * step
        value += step if value == above else 0
        if value > high or value == below:
            value = high // step * step
            value -= step if value == below else 0
    elif low > -math.inf and high < math.inf:
        value = (low + high) / 2
    elif low > -math.inf:
        value = low + 1
    else:
        value = min(1, high - 1)
    further = value + variant * (step or 1)
    value = further if further < below and further <= high else value
    return int(value) if whole or float(value).is_integer() else value
