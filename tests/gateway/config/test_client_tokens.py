"""The section `token_issuers`: what is compiled, and each mistake with its key."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.compile import Compiled
from gateway.config.destinations import service_permits
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected
from gateway.features.configuration import compile_config
from gateway.model.client_token import path_of, token_key
from providers.registry import load_registry
from tests.kit.token_gateway import CONFIG


def compiled(change: dict[str, Any], **more: Any) -> Compiled:
    """Compile the configuration with a change of its issuer."""
    config = CONFIG.merge({"token_issuers": {"entra": change}, **more})
    return compile_config(parse_document(config.text.encode(), "test.yaml", {}), registry=load_registry())


def rule(where: Any, client: str = "batch") -> dict[str, Any]:
    clients = [{"client": name, "where": {"x": "y"}} for name in ("research", "batch")]
    return {"clients": [*clients, {"client": client, "where": where}]}


def test_paths_values_and_defaults() -> None:
    where = {"https://app.example/roles": ["a", True], "/a~1b/~0c/0": "d"}
    found = compiled({**rule(where), "issued_after": "1970-01-01T01:00:10+01:00", "user": "/a/b"})
    issuer = found.config.token_issuers["entra"]
    assert issuer.clients[2].where == (("https://app.example/roles", ("a", True)), ("/a~1b/~0c/0", ("d",)))
    assert [path_of(name) for name, _ in issuer.clients[2].where] == [tuple(where)[:1], ("a/b", "~c", "0")]
    assert (issuer.issued_after, issuer.longest_s, issuer.user) == (10.0, 86_400.0, "/a/b")
    assert not found.config.clients[token_key("research")].key_hash
    assert dict(service_permits(found.config)).keys() == {"token_issuers.entra.jwks"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}, "entra.issuer: has a placeholder"),
        ({"issuer": "https://login.microsoftonline.com/common/v2.0"}, "entra.issuer: `common` stands for every tenant"),
        ({"issuer": "https://login.microsoftonline.com/organizations/v2.0"}, "`organizations` stands for every tenant"),
        ({"algorithms": ["HS256"]}, "entra.algorithms[0]"),
        ({"algorithms": []}, "entra.algorithms"),
        ({"jwks": "keys.json"}, "entra.jwks: is neither a URL nor the absolute path of a file"),
        ({"jwks": "http://login.example/keys"}, "http:// to another machine"),
        ({"longest": "0h"}, "entra.longest"),
        ({"issued_after": "2026-11-27"}, "must be a time with its zone"),
        ({"issued_after": "2026-13-27T10:00:00Z"}, "there is no such time"),
        (rule({}), "clients[2].where"),
        (rule({"groups": 7}), "a number can't be compared with a member of a token; put it in quotes"),
        (rule({"groups": ["a", 7]}), "a number can't be compared with a member of a token; put it in quotes"),
        (rule({"groups": []}), "must be a text, true or false"),
        (rule({"groups": None}), "where.groups: is empty"),
        (rule({"/a~b": "c"}), "is not a JSON Pointer; write ~0"),
        (rule({"x": "y"}, "nobody"), "unknown client 'nobody'"),
        ({"clients": None}, "needs `clients` or `roles`"),
        ({"denied": {"oid": 7}}, "a number can't be compared"),
        ({"surprise": 1}, "surprise"),
        ({"roles": [{"role": "owner", "where": {"x": "y"}}]}, "roles[0].role"),
    ],
)
def test_mistakes_are_reported_with_their_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigRejected) as caught:
        compiled(change)
    text = "\n".join(str(problem) for problem in caught.value.problems if problem.severity == "error")
    assert message in text, text


def test_two_issuers_with_one_issuer_and_audience_are_an_error() -> None:
    twin = CONFIG.data["token_issuers"]["entra"]
    with pytest.raises(ConfigRejected, match="has the `issuer` and the `audience` of 'entra'"):
        compiled({}, token_issuers={"entra": twin, "twin": twin})
    compiled({}, token_issuers={"entra": twin, "twin": {**twin, "audience": "api://other"}})


def test_a_client_without_keys_is_a_warning_once_no_rule_names_it() -> None:
    left = [one for one in CONFIG.data["token_issuers"]["entra"]["clients"] if one["client"] != "batch"]
    found = compiled({"clients": left})
    assert token_key("batch") not in found.config.clients
    assert [it for it in found.warnings if "clients.batch: has neither keys nor a rule" in str(it)]


@pytest.mark.parametrize(
    ("change", "warns_of"),
    [
        ({}, []),
        (rule({"email": "a@b.example", "/x/upn": "c"}), ["email", "upn"]),
        ({"audience": "11112222-bbbb-3333-cccc-4444dddd5555"}, ["audience"]),
        ({"audience": "1234-abc.apps.googleusercontent.com"}, ["audience"]),
    ],
)
def test_members_that_users_can_change_and_audiences_of_apps_are_warnings(
    change: dict[str, Any], warns_of: list[str]
) -> None:
    warnings = [str(it) for it in compiled(change).warnings if "token_issuers" in str(it)]
    assert len(warnings) == len(warns_of)
    assert all(word in text for word, text in zip(warns_of, warnings, strict=True))
