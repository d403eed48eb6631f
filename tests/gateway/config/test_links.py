"""`tls` of deployments: what is read, what is refused, and what is only a warning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.config.compile import Compiled, compile_config
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected
from providers.registry import load_registry
from tests.kit.configs import BASE, KEYS, Config
from tests.kit.network_peers import write_client_files

OWN = {"provider": "openai-compatible", "model": "m", "stores": "US", "processes": "US", "api_key": "${K}"}
ENVIRON = {**KEYS, "K": "k-1"}


def config_of(endpoint: str = "https://llm.example.com/v1", **keys: Any) -> Config:
    """Return a config whose deployment `own` is the last step of the route of a region."""
    routes = {"assistant": {"routes": {"us": ["chatgpt-us", "own"]}}}
    return BASE.merge({"deployments": {"own": {**OWN, "endpoint": endpoint, **keys}}, "assistants": routes})


def compiled(config: Config, folder: Path, *, secrets: bool = True) -> Compiled:
    data = config.text.encode()
    document = parse_document(data, str(folder / "gateway.yaml"), ENVIRON, secrets=secrets)
    return compile_config(document, registry=load_registry())


def problems_of(config: Config, folder: Path) -> list[str]:
    """Return the messages about `own`, with their hints."""
    try:
        problems = compiled(config, folder).warnings
    except ConfigRejected as rejected:
        problems = rejected.problems
    return [f"{problem.severity} {problem.message}; {problem.hint}" for problem in problems if "own" in problem.path]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return write_client_files(tmp_path, trustme.CA(), trustme.CA())


def test_link_has_the_content_of_the_files_and_every_file_is_watched(tmp_path: Path, files: dict[str, str]) -> None:
    made = compiled(config_of(tls=files), tmp_path)
    deployment = made.config.deployments["own"]
    assert deployment.link is not None
    assert deployment.link.ca == (tmp_path / "ca.pem").read_text()
    assert deployment.link.tls is deployment.link.tls
    assert {str(tmp_path / name) for name in files.values()} <= made.files.keys()
    assert "PRIVATE KEY" not in repr(deployment)
    assert problems_of(config_of(tls=files), tmp_path) == []


def test_files_are_not_read_where_secrets_are_not_resolved(tmp_path: Path) -> None:
    names = {"ca": "a.pem", "client_certificate": "b.pem", "client_key": "c.pem"}
    deployment = compiled(config_of(tls=names), tmp_path, secrets=False).config.deployments["own"]
    assert (deployment.link, deployment.tls is not None and deployment.tls.ca) == (None, "a.pem")


def test_deployment_at_a_vendors_site_may_have_a_client_certificate(tmp_path: Path, files: dict[str, str]) -> None:
    certificate = {key: name for key, name in files.items() if key != "ca"}
    config = BASE.merge({"deployments": {"chatgpt-us": {"tls": certificate}}})
    link = compiled(config, tmp_path).config.deployments["chatgpt-us"].link
    assert link is not None
    assert not link.ca


MISTAKES: list[tuple[str, Any, str]] = [
    ("a missing file", {"ca": "none.pem"}, "none.pem can't be read (No such file or directory)"),
    ("a directory", {"ca": "."}, "can't be read (Is a directory)"),
    ("no certificate", {"ca": "client.key"}, "is a file without certificates"),
    ("half a certificate", {"ca": "half.pem"}, "is a file without certificates"),
    ("not text", {"ca": "binary"}, "is not a PEM file"),
    ("no key", {"client_key": None}, "is missing; name both files, or none of them"),
    ("no certificate of a client", {"client_certificate": None}, "is missing; name both files, or none of them"),
    ("another key", {"client_key": "other.key"}, "is not the key of the certificate"),
    ("a key with a passphrase", {"client_key": "encrypted.key"}, "is not a private key in PEM without a passphrase"),
    ("no key in the file", {"client_key": "ca.pem"}, "is not a private key in PEM without a passphrase"),
    ("an unknown key", {"client_cert": "client.pem"}, "unknown key 'client_cert'"),
]
ENCRYPTED = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBDw1fVVwBHaNRHQnIQX
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_mistake_in_tls_is_an_error(change: Any, words: str, tmp_path: Path, files: dict[str, str]) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "half.pem").write_text((tmp_path / "ca.pem").read_text()[:200])
    (tmp_path / "encrypted.key").write_text(ENCRYPTED)
    trustme.CA().issue_cert("other.test").private_key_pem.write_to_path(str(tmp_path / "other.key"))
    found = problems_of(config_of(tls=files).merge({"deployments": {"own": {"tls": change}}}), tmp_path)
    assert [words in problem and problem.startswith("error") for problem in found] == [True], found


def test_catalogued_site_keeps_the_public_authorities(tmp_path: Path, files: dict[str, str]) -> None:
    for endpoint in ("https://us.api.openai.com/v1", "us"):
        config = BASE.merge({"deployments": {"chatgpt-us": {"endpoint": endpoint, "tls": {"ca": "ca.pem"}}}})
        with pytest.raises(ConfigRejected, match=r"deployments\.chatgpt-us\.tls\.ca: is not possible: public auth"):
            compiled(config, tmp_path)


def test_tls_of_an_http_url_is_an_error(tmp_path: Path, files: dict[str, str]) -> None:
    (found,) = problems_of(config_of("http://127.0.0.1:8000/v1", tls=files), tmp_path)
    assert found.startswith("error has no effect on an http:// URL")


@pytest.mark.parametrize(
    ("days", "words"), [(-1, "expired on"), (3, "expires on"), (60, "")], ids=["expired", "soon", "later"]
)
def test_certificate_that_ends_soon_is_a_warning(days: int, words: str, tmp_path: Path, files: dict[str, str]) -> None:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    leaf = trustme.CA().issue_cert("gateway.test", not_before=now - timedelta(days=90), not_after=end)
    (tmp_path / "client.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
    leaf.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    found = problems_of(config_of(tls=files), tmp_path)
    assert [words in problem and problem.startswith("warning") for problem in found] == [True] * bool(words), found
