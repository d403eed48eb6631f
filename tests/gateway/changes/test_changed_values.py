"""A plan shows the old and the new value of every key that differs, and no secret."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from gateway.changes.plan import Change, changed_values
from gateway.config.yaml_document import parse_yaml

CONFIGS = Path(__file__).parents[3] / "config"
SECRET = "sk-of-mine-in-clear"
DOCUMENT: dict[str, Any] = {
    **parse_yaml((CONFIGS / "gateway.yaml").read_bytes(), "gateway.yaml").values,
    "exporters": {"traces": {"endpoint": "https://otel.example", "stores": "DE", "headers": {"x-a": "${TOKEN}"}}},
    "secrets": {"consent": "${CONSENT}"},
    "catalogue": {"models": ["own.yaml"]},
    "receipts": {"keep": "30d"},
    "blocked_by": "https://example.com/blocked",
    "admin_keys": ["key-1"],
}
SECRETS: list[tuple[tuple[str | int, ...], object]] = [
    (("secrets", "consent"), SECRET),
    (("exporters", "traces", "headers", "x-a"), SECRET),
    (("location", "edges"), [{"secret": {"header": "X", "value": SECRET}}]),
    (("location", "claim"), {"secret": SECRET}),
    (("deployments", "house"), {"api_key": [SECRET, SECRET], "headers": {"x-a": SECRET}}),
    (("clients", "app", "keys"), ["sha256:" + SECRET]),
]


def leaves(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    return [path]


def changed(path: tuple[str | int, ...], value: object) -> list[Change]:
    new = deepcopy(DOCUMENT)
    node: Any = new
    for part in path[:-1]:
        node = node.setdefault(part, {})
    node[path[-1]] = value
    return list(changed_values(DOCUMENT, new))


@pytest.mark.parametrize("path", leaves(DOCUMENT), ids=lambda path: ".".join(map(str, path)))
def test_each_changed_key_is_shown_with_both_values(path: tuple[str | int, ...]) -> None:
    old: Any = DOCUMENT
    for part in path:
        old = old[part]
    (change,) = changed(path, "something-else")
    assert change.what == ".".join(map(str, path))
    if "keys" not in path:
        text = old if isinstance(old, str) else json.dumps(old, ensure_ascii=False)
        assert change.before[:150] == text[:150]
        assert change.after == (
            "(not shown)"
            if "api_key" in path or path[0] == "secrets" or "headers" in path or path[-1] == "value"
            else "something-else"
        )


@pytest.mark.parametrize(("path", "value"), SECRETS)
def test_secret_in_clear_is_not_shown(path: tuple[str | int, ...], value: object) -> None:
    changes = changed(path, value)
    assert changes
    assert SECRET not in repr(changes)
    assert "(not shown)" in repr(changes)


def test_key_that_is_added_or_removed_is_shown_as_not_set() -> None:
    assert list(changed_values({"a": {"b": 1}}, {"a": {"c": [2]}})) == [
        Change("a.b", "1", "not set", kind="removed"),
        Change("a.c", "not set", "[2]", kind="added"),
    ]


def test_long_value_is_shortened() -> None:
    (change,) = changed_values({"a": "x" * 500}, {"a": ""})
    assert (len(change.before), change.after) == (160, "(empty)")
