"""The tables of the keys of a compatible vendor: each key has a type, a meaning, and an example that its reader accepts."""

from __future__ import annotations

import re
import tomllib

import pytest

from providers.catalogue.toml_schema import check_table, shapes_of
from providers.compatible.dialect import DIALECT, Prefill, Requests, Thinking
from providers.openai_json.read_answer import Answers
from providers.reading.errors import SHAPES
from scripts.dialect_keys import dialect_page

KNOWN = {
    "dialect": DIALECT,
    "dialect.request": shapes_of(Requests),
    "dialect.request.prefill": shapes_of(Prefill),
    "dialect.thinking.NAME": shapes_of(Thinking),
    "dialect.answer": shapes_of(Answers),
    "dialect.errors": SHAPES,
}
TABLES = dict(re.findall(r"^## `\[(.*?)\]`\n\n((?:\|.*\n)+)", dialect_page(), re.MULTILINE))


@pytest.mark.parametrize("table", KNOWN)
def test_every_key_has_a_type_a_meaning_and_a_valid_example(table: str) -> None:
    rows = [re.split(r"(?<!\\) ?\| ?", row)[1:-1] for row in TABLES[table].splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == list(KNOWN[table])
    for key, kind, meaning, example in rows:
        assert kind, key
        assert meaning.endswith("."), key
        check_table(table, tomllib.loads(example.strip("`").replace("\\|", "|")), KNOWN[table])
