"""Each key of the schema that may be a secret has a rule, or is listed here as public. The rules are followed."""

import re
from typing import Annotated, Any

import pytest
from pydantic import Field, create_model

from gateway.changes.plan import changed_values
from gateway.config.field_types import Section
from gateway.config.problems import KeyPath
from gateway.config.sensitive_keys import (
    may_refer,
    places_of_references,
    secret_names,
    secrets_in_clear,
    sensitive_keys,
)
from gateway.features.configuration import GatewayFile
from gateway.model.section import Sensitive
from scripts.sensitive_keys import keys_of, sensitive_keys_of

_SECRET_WORD = re.compile(r"key|secret|token|password|passphrase|credential|cookie|pepper|private|webhook|auth|headers")
_PUBLIC: tuple[KeyPath, ...] = (
    ("admin_keys",),  # public keys
    ("deployments", "*", "cache_key"),  # a word
    ("cors", "headers"),  # names without values
    ("deployments", "*", "tls", "client_key"),  # the name of a file
    ("sign_ins", "*", "tls", "client_key"),
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


def missing_rules(model: type) -> list[str]:
    """Return the keys that sound like a secret, or are left out of `repr`, and that have no rule."""
    return sorted(
        {
            ".".join(key.path)
            for key in keys_of(model)
            if (key.is_hidden or _SECRET_WORD.search(key.path[-1 if key.path[-1] != "*" else -2]))
            and key.path not in _PUBLIC
            and key.rule is None
        }
    )


def test_every_key_of_the_schema_that_may_be_secret_has_a_rule() -> None:
    assert missing_rules(GatewayFile) == []


def _with_mail(**fields: Any) -> type[GatewayFile]:  # type: ignore[valid-type]
    mail = create_model("MailSection", __base__=Section, **fields)
    return create_model("Extended", __base__=GatewayFile, mail=(dict[str, mail], Field({})))  # type: ignore[valid-type]


@pytest.mark.parametrize("name", ["api_key", "signing_secret", "token", "smtp_password", "credential"])
def test_new_secret_without_a_rule_is_found(name: str) -> None:
    assert missing_rules(_with_mail(**{name: (str | None, None)})) == [f"mail.*.{name}"]


def test_new_secret_with_a_rule_is_hidden_and_may_be_a_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    extended = _with_mail(words=(Annotated[str | None, Sensitive("the words of a mail")], Field(None, repr=False)))
    monkeypatch.setattr("gateway.config.sensitive_keys.sensitive_keys", lambda: sensitive_keys_of(extended))
    values = {"mail": {"one": {"words": "plain-text"}}}
    assert missing_rules(extended) == []
    assert secrets_in_clear(values) == ["mail.one.words"]
    assert "plain-text" not in str([*changed_values({}, values)])
    assert may_refer(("mail", "one", "words"))
    assert "the words of a mail" in places_of_references()


def test_public_keys_are_keys_of_the_schema() -> None:
    paths = [key.path for key in keys_of(GatewayFile)]
    assert [path for path in _PUBLIC if path not in paths] == []
    assert {path[1] for path in paths if path[0] == "secrets"} == {*secret_names(), "file", "*"}


def _document(path: KeyPath, value: str) -> dict[str, object]:
    document: object = value
    for part in reversed(path):
        document = {"x-name" if part == "*" else str(part): document}
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize("key", sensitive_keys(), ids=lambda key: ".".join(key.path))
def test_listed_secret_is_neither_shown_nor_stored_and_a_reference_is(key: Any) -> None:
    plain, reference = _document(key.path, "plain-text"), _document(key.path, "${NAME}")
    assert bool(secrets_in_clear(plain)) == key.rule.is_secret
    assert secrets_in_clear(reference) == []
    assert ("plain-text" in str([*changed_values({}, plain)])) == key.rule.is_shown
    assert "${NAME}" in str([*changed_values({}, reference)])
    named = tuple("x-name" if part == "*" else part for part in key.path)
    assert may_refer(named) == may_refer((*named, 0)) == bool(key.rule.words)


def test_message_names_every_place_of_a_reference_once() -> None:
    assert (
        places_of_references()
        == "`api_key`, `headers`, the `url` of a proxy, `sign_ins`, an issuer's keys, `password`, `secrets`, an edge's secret, "
        "a claim's keys, `terms` and `marks.key`"
    )
