"""Vendors' lists of models as bytes: the ends that each vendor states, days, pages, and lists that lie."""

import json
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.catalogue.citations import Sources
from providers.catalogue.model_lists import ListedModel, ModelList, model_lists, read_model, read_page
from providers.json_values import JsonError
from providers.registry import load_registry

FILE = Path(__file__).parents[2] / "providers/catalogue/model_lists.toml"
PLAIN = model_lists()["openai"]


def listed(provider: str, entry: object) -> ListedModel:
    return read_model(entry, model_lists()[provider])


@pytest.mark.parametrize(
    ("provider", "entry", "expected"),
    [
        ("openai", {"id": "m", "shutdown_date": "2027-01-14"}, ListedModel(on=date(2027, 1, 14))),
        ("openai", {"id": "m", "shutdown_date": None}, ListedModel()),
        ("openai", {"id": "m"}, ListedModel()),
        ("anthropic", {"id": "m", "lifecycle": "active", "retires_at": None}, ListedModel("other")),
        ("anthropic", {"id": "m", "lifecycle": "retired"}, ListedModel("gone")),
        (
            "anthropic",
            {"id": "m", "lifecycle": "deprecated", "retires_at": "2027-01-22T00:00:00Z"},
            ListedModel("leaving", date(2027, 1, 22)),
        ),
        (
            "bedrock",
            {"modelId": "m", "modelLifecycle": {"status": "LEGACY", "endOfLifeTime": 1_799_366_400}},
            ListedModel("leaving", date(2027, 1, 8)),
        ),
        (
            "bedrock",
            {"modelId": "m", "modelLifecycle": {"publicExtendedAccessTime": "2026-10-08T00:00:00Z"}},
            ListedModel(dearer_on=date(2026, 10, 8)),
        ),
        ("bedrock", {"modelId": "m", "modelLifecycle": "LEGACY"}, ListedModel()),
        ("mistral", {"id": "m", "deprecation": "2026-08-31T12:00:00+00:00"}, ListedModel(on=date(2026, 8, 31))),
        ("ark", {"id": "m", "status": "Shutdown"}, ListedModel("gone")),
        ("ark", {"id": "m", "status": "Retiring"}, ListedModel("leaving")),
        ("ark", {"id": "m", "status": {"Shutdown": 1}}, ListedModel()),
        ("groq", {"id": "m", "shutdown_date": "2027-01-14", "status": "Shutdown"}, ListedModel()),
    ],
)
def test_entry_states_the_end_in_the_form_of_its_vendor(provider: str, entry: object, expected: ListedModel) -> None:
    assert listed(provider, entry) == expected


@pytest.mark.parametrize(
    ("stated", "on"),
    [
        ("2026-12-11T23:59:59-01:00", date(2026, 12, 12)),
        ("2026-12-11T00:30:00+08:00", date(2026, 12, 10)),
        ("2026-12-11 23:00:00", date(2026, 12, 11)),
        (1_420_070_400, date(2015, 1, 1)),
        (1_420_070_399, None),
        ("2100-12-31", date(2100, 12, 31)),
        ("2101-01-01", None),
        ("0001-01-01T00:00:00+14:00", None),
        (1_799_366_400_000, None),
        (10**400, None),
        (1e300, None),
        (True, None),
        ("", None),
        ("soon", None),
        ("9" * 100_000, None),
        ([], None),
    ],
)
def test_time_counts_by_its_day_in_utc_and_anything_else_is_unreadable(stated: object, on: date | None) -> None:
    expected = ListedModel(on=on) if on is not None else ListedModel(is_unreadable=True)
    assert listed("openai", {"id": "m", "shutdown_date": stated}) == expected


def test_pages_follow_a_mark_that_is_not_too_long() -> None:
    gemini, anthropic = model_lists()["gemini"], model_lists()["anthropic"]
    names = {"models": [{"name": "models/gemini-x"}, {"name": "own"}]}
    assert read_page(json.dumps(names | {"nextPageToken": "t"}).encode(), gemini) == (
        {"gemini-x": ListedModel(), "own": ListedModel()},
        "t",
    )
    assert read_page(json.dumps(names).encode(), gemini)[1] == ""
    for more, mark in ((True, "m"), (False, ""), ("yes", "")):
        page = {"data": [{"id": "m"}], "has_more": more, "last_id": "m"}
        assert read_page(json.dumps(page).encode(), anthropic)[1] == mark
    assert read_page(json.dumps(names | {"nextPageToken": "t" * 1000}).encode(), gemini)[1] == "t" * 1000
    with pytest.raises(JsonError):
        read_page(json.dumps(names | {"nextPageToken": "t" * 1001}).encode(), gemini)


def test_alias_is_listed_and_never_replaces_a_name() -> None:
    entries = [
        {"id": "a", "aliases": ["a-latest", "b"], "deprecation": "2027-01-01"},
        {"id": "b", "aliases": "a"},
        {"id": "c", "aliases": [1, None]},
    ]
    models, _ = read_page(json.dumps({"data": entries}).encode(), model_lists()["mistral"])
    assert models["a-latest"] == models["a"] == ListedModel(on=date(2027, 1, 1))
    assert models["b"] == ListedModel()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": {}}',
        b'{"data": [{}]}',
        b'{"data": [{"id": 1}]}',
        b'{"data": ["m"]}',
        b"[" * 100_000,
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_anything_else_is_no_list(body: bytes) -> None:
    with pytest.raises(JsonError):
        read_page(body, PLAIN)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "data", "status"]), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(model_lists())), st.lists(st.dictionaries(st.text(max_size=5), VALUES), max_size=3), VALUES
)
def test_no_list_raises_anything_else_or_states_a_day_of_another_century(
    provider: str, entries: list[dict[str, Any]], value: object
) -> None:
    row = model_lists()[provider]
    stated: object = value
    for name in reversed(row.end.split(".")):
        stated = {name: stated}
    whole = [
        {**entry, **(stated if isinstance(stated, dict) else {}), row.name: "m", row.state or "s": value}
        for entry in entries
    ]
    try:
        models, _ = read_page(json.dumps({row.entries: whole, row.next or "n": value}).encode(), row)
    except JsonError:
        return
    for model in models.values():
        assert model.on is None or 2015 <= model.on.year <= 2100
        assert model.state in ("", "gone", "leaving", "other")


def test_prefix_of_an_inference_profile_is_cut() -> None:
    row = model_lists()["bedrock"]
    assert row.listed_name("us.anthropic.claude-x-v1:0") == "anthropic.claude-x-v1:0"
    assert row.listed_name("anthropic.claude-x-v1:0") == "anthropic.claude-x-v1:0"
    assert PLAIN.listed_name("us.m") == "us.m"


def test_each_row_is_of_a_provider_and_has_its_source_and_no_key_that_is_not_read() -> None:
    rows = tomllib.loads(FILE.read_text("utf-8"))
    assert rows.keys() <= load_registry().adapters.keys()
    assert rows.keys().isdisjoint({"azure", "vertex", "anthropic-vertex", "llamacpp"})
    cited = {"source", "quote", "as_of", "unconfirmed"}
    for name, row in rows.items():
        assert not Sources({}).cite(name, row | {"quote": row.get("quote", "")}).missing, name
        assert row.keys() - cited <= set(ModelList.__struct_fields__), name
        assert row["path"].startswith(("/", "{base}/")), name
        assert set(row.get("states", {}).values()) <= {"gone", "leaving"}, name
