"""The section `token_issuers`: what is compiled. `patches/token_issuers.yaml` has its mistakes."""

from typing import Any

from gateway.config.compile import Compiled
from gateway.config.destinations import service_permits
from gateway.model.client_token import path_of
from gateway.model.signed_token import token_key
from tests.kit import config_cases
from tests.kit.token_gateway import CONFIG


def compiled(change: dict[str, Any], **more: Any) -> Compiled:
    """Compile the configuration with a change of its issuer."""
    return config_cases.compiled(CONFIG.merge({"token_issuers": {"entra": change}, **more}).text, {})


def test_paths_values_and_defaults() -> None:
    where = {"https://app.example/roles": ["a", True], "/a~1b/~0c/0": "d"}
    clients = [{"client": "research", "where": where}]
    found = compiled({"clients": clients, "issued_after": "1970-01-01T01:00:10+01:00", "user": "/a/b"})
    issuer = found.config.token_issuers["entra"]
    assert issuer.clients[0].where == (("https://app.example/roles", ("a", True)), ("/a~1b/~0c/0", ("d",)))
    assert [path_of(name) for name, _ in issuer.clients[0].where] == [tuple(where)[:1], ("a/b", "~c", "0")]
    assert (issuer.issued_after, issuer.longest_s, issuer.user) == (10.0, 86_400.0, "/a/b")
    assert not found.config.clients[token_key("research")].key_hash
    assert dict(service_permits(found.config)).keys() == {"token_issuers.entra.jwks"}


def test_a_client_without_keys_is_a_warning_once_no_rule_names_it() -> None:
    left = [one for one in CONFIG.data["token_issuers"]["entra"]["clients"] if one["client"] != "batch"]
    found = compiled({"clients": left})
    assert token_key("batch") not in found.config.clients
    assert [it for it in found.warnings if "clients.batch: has neither keys nor a rule" in str(it)]
