"""Every key of the schema that may hold a secret is in the table that hides secrets, or is listed here as public."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel, Field, create_model

from gateway.changes.plan import changed_values
from gateway.config.field_types import Section
from gateway.config.problems import KeyPath
from gateway.config.schema.file import GatewaySection
from gateway.config.source_text import (
    SECRET_NAMES,
    SENSITIVE_KEYS,
    may_refer,
    places_of_references,
    secrets_in_clear,
)
from gateway.model.section import PlainSection

_SECRET_WORD = re.compile(r"key|secret|token|password|passphrase|credential|cookie|pepper|private|webhook|auth|headers")
_PUBLIC: tuple[KeyPath, ...] = (
    ("admin_keys",),  # public keys
    ("deployments", "*", "tls", "client_key"),  # the name of a file
    ("stores", "database", "url"),  # without a password, and one that is written there is not shown
    ("stores", "valkey", "url"),
    ("deployments", "*", "approvals", "authority"),
    ("deployments", "*", "first_token"),  # numbers
    ("resilience", "first_token"),
    ("clients", "*", "budgets", "tokens"),
    ("clients", "*", "user_budget", "tokens"),
    ("projects", "*", "budgets", "tokens"),
)
"""The keys that sound like a secret and are none."""


def keys_of(model: type, path: KeyPath = ()) -> Iterator[tuple[KeyPath, bool]]:
    """Yield the path of each key, without indexes of lists, and whether its value is left out of `repr`."""
    if issubclass(model, BaseModel):
        fields = {info.alias or name: (info.annotation, not info.repr) for name, info in model.model_fields.items()}
    else:
        hints = get_type_hints(model, include_extras=True)
        fields = {
            it.metadata.get("alias", name): (hints[name], not it.repr)
            for name, it in model.__dataclass_fields__.items()
        }
    for name, (annotation, is_hidden) in fields.items():
        yield from _below(annotation, (*path, name), is_hidden)


def _below(annotation: Any, path: KeyPath, is_hidden: bool) -> Iterator[tuple[KeyPath, bool]]:
    sections = {(one, depth) for one, depth in _sections(annotation, 0)}
    has_names = any(depth for _, depth in _sections(annotation, 0)) or _is_mapping(annotation)
    here = (*path, "*") if has_names else path
    if not sections:
        yield here, is_hidden
    for section, _ in sections:
        yield from keys_of(section, here)


def _is_mapping(annotation: Any) -> bool:
    origin = getattr(annotation, "__origin__", None)
    return origin is dict or any(_is_mapping(each) for each in get_args(annotation))


def _sections(annotation: Any, depth: int) -> Iterator[tuple[type, int]]:
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or (is_dataclass(annotation) and issubclass(annotation, PlainSection))
    ):
        yield annotation, depth
        return
    inside = depth + (getattr(annotation, "__origin__", None) is dict)
    for each in get_args(annotation):
        yield from _sections(each, inside)


def missing_from_the_table(model: type) -> list[str]:
    """Return the keys that sound like a secret, or are left out of `repr`, and that no list has."""
    return sorted(
        ".".join(map(str, path))
        for path, is_hidden in set(keys_of(model))
        if (
            is_hidden or any(_SECRET_WORD.search(str(part)) for part in (path[-1], path[-2] if path[-1] == "*" else ""))
        )
        and path not in _PUBLIC
        and not any(key.matches(path) for key in SENSITIVE_KEYS)
    )


def test_every_key_of_the_schema_that_may_be_secret_is_listed() -> None:
    assert missing_from_the_table(GatewaySection) == []


@pytest.mark.parametrize("name", ["api_key", "signing_secret", "token", "smtp_password", "credential"])
def test_new_secret_that_is_not_listed_is_found(name: str) -> None:
    fields: Any = {name: (str | None, None)}
    mail = create_model("MailSection", __base__=Section, **fields)
    extended = create_model("Extended", __base__=GatewaySection, mail=(dict[str, mail], Field({})))  # type: ignore[valid-type]
    assert missing_from_the_table(extended) == [f"mail.*.{name}"]


def test_every_row_of_the_table_is_a_key_of_the_schema() -> None:
    paths = [path for path, _ in keys_of(GatewaySection)]
    assert [key.path for key in SENSITIVE_KEYS if not any(key.matches(path) for path in paths)] == []
    assert [path for path in _PUBLIC if path not in paths] == []
    secrets = {path[1] for path in paths if path[0] == "secrets"}
    assert secrets == {*SECRET_NAMES, "file"}


def _document(path: KeyPath, value: str) -> dict[str, object]:
    document: object = value
    for part in reversed(path):
        document = {"x-name" if part == "*" else str(part): document}
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("key", SENSITIVE_KEYS, ids=lambda key: ".".join(key.path))
def test_listed_secret_is_neither_shown_nor_stored_and_a_reference_is(key: Any) -> None:
    plain, reference = _document(key.path, "plain-text"), _document(key.path, "${NAME}")
    assert bool(secrets_in_clear(plain)) == key.is_secret
    assert secrets_in_clear(reference) == []
    assert ("plain-text" in str([*changed_values({}, plain)])) == key.is_shown
    assert "${NAME}" in str([*changed_values({}, reference)])
    named = tuple("x-name" if part == "*" else part for part in key.path)
    assert may_refer(named) == may_refer((*named, 0)) == bool(key.words)


def test_message_names_every_place_of_a_reference_once() -> None:
    assert (
        places_of_references()
        == "`api_key`, `headers`, the `url` of a proxy, `secrets`, `password`, an edge's secret and a claim's keys"
    )
