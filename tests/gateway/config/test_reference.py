"""The page of every config key is complete."""

import json
from typing import Any

import pytest

from gateway.config.reference import reference_page
from gateway.features.configuration import schema_json


def objects_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *(part for part in schema["$defs"].values() if "properties" in part)]


def test_every_key_of_every_object_has_a_row_and_a_meaning() -> None:
    rows = [line.split(" | ") for line in reference_page(schema_json()).splitlines() if line.startswith("| `")]
    keys = [key for part in objects_of(json.loads(schema_json())) for key in part["properties"]]
    assert {row[0].strip("| `") for row in rows} - {"NAME"} == set(keys)
    assert len(rows) >= len(keys), "a section that stands in two places has two tables"
    assert all(row[-1].strip(" |") for row in rows)


@pytest.mark.parametrize(
    "title", ["cell", "assistants.NAME", "deployments.NAME", "location.edges[].secret", "resilience.attempts"]
)
def test_section_title_is_its_path(title: str) -> None:
    assert f"\n## `{title}`\n" in reference_page(schema_json())


def test_required_key_has_no_default() -> None:
    page = reference_page(schema_json())
    assert "| `model` | text |  | The name of the model at the provider. |" in page
    assert '| `idle` | text | `"2m"` | Timeout between two events of a stream. |' in page
