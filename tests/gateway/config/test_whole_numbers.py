"""Every key that takes a whole number refuses a number with decimals and a flag, which are equal to it in Python."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.config.operator_catalogue import CatalogueFileSection, catalogue_schema_json
from gateway.config.problems import KeyPath, dotted
from gateway.config.shape import read_shape
from gateway.features.configuration import GatewayFile, schema_json

SCHEMAS = ((GatewayFile, json.loads(schema_json())), (CatalogueFileSection, json.loads(catalogue_schema_json())))


def whole_numbers(schema: dict[str, Any], part: dict[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, int]]:
    """Yield the path of each whole number that a schema has, and a number that it accepts."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rpartition("/")[2]]
    if part.get("type") == "integer":
        yield path, part.get("const", max(part.get("minimum", 1), 1))
    for choice in part.get("anyOf", ()):
        yield from whole_numbers(schema, choice, path)
    inner = {**part.get("properties", {}), "x": part.get("additionalProperties", False), 0: part.get("items", False)}
    for key, value in inner.items():
        if isinstance(value, dict):
            yield from whole_numbers(schema, value, (*path, key))


def holder(path: KeyPath, value: object) -> Any:
    """Return a section that has only this value."""
    for part in reversed(path):
        value = [value] if isinstance(part, int) else {part: value}
    return value


CASES = [
    pytest.param(section, path, number, id=dotted(path))
    for section, schema in SCHEMAS
    for path, number in dict(whole_numbers(schema, schema)).items()
    if "price" not in path[-2:]  # `price: 0` is an amount
]


@pytest.mark.parametrize(("section", "path", "number"), CASES)
def test_number_with_decimals_and_flag_are_no_whole_number(section: Any, path: KeyPath, number: int) -> None:
    def is_refused(value: object) -> bool:
        _, errors = read_shape(section, holder(path, value))
        return any(path[: len(error.path)] == error.path for error in errors)

    assert [is_refused(value) for value in (number, float(number), True)] == [False, True, True]
