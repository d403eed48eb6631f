"""`tls` and `proxy` of deployments: which are read, which are refused, and which are only warned of."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.config.compile import Compiled
from gateway.config.problems import ConfigRejected
from gateway.model.deployment import Proxy
from providers.territories import parse_places
from tests.kit.config_cases import compiled_file
from tests.kit.configs import BASE, KEYS, Config
from tests.kit.network_peers import write_client_files

OWN = {"provider": "openai-compatible", "model": "m", "stores": "US", "processes": "US", "api_key": "${K}"}
PROXY_ENVIRON = {"USER": "gateway", "PASSWORD": "pass-word", "PAIR": "gateway:pass-word", "COLON": "a:b"}
ENVIRON = {**KEYS, "K": "k-1", **PROXY_ENVIRON}


def config_of(endpoint: str = "https://llm.example.com/v1", **keys: Any) -> Config:
    """Return a config whose deployment `own` is the last step of the route of a region."""
    routes = {"assistant": {"routes": {"us": ["chatgpt-us", "own"]}}}
    return BASE.merge({"deployments": {"own": {**OWN, "endpoint": endpoint, **keys}}, "assistants": routes})


def compiled(config: Config, folder: Path, *, secrets: bool = True, environ: dict[str, str] = ENVIRON) -> Compiled:
    return compiled_file(config.write(folder), environ, secrets=secrets)


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
    assert deployment.link.ca == (tmp_path / "ca.pem").read_text()
    assert deployment.link.tls is deployment.link.tls
    assert {str(tmp_path / name) for name in files.values()} <= made.files.keys()
    assert "PRIVATE KEY" not in repr(deployment)
    assert problems_of(config_of(tls=files), tmp_path) == []


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", "# F\u0151tan\u00fas\u00edtv\u00e1ny\r\n".encode(), b"# T\xfcr\n"])
def test_authorities_may_have_comments_and_windows_line_ends(
    before: bytes, tmp_path: Path, files: dict[str, str]
) -> None:
    pem = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "ca.pem").write_bytes(before + pem.replace(b"\n", b"\r\n") + b"# \xc3\xa9\r\n" + pem)
    assert problems_of(config_of(tls=files), tmp_path) == []
    own = compiled(config_of(tls=files), tmp_path).config.deployments["own"]
    assert own.link.tls.cert_store_stats()["x509_ca"] == 1


def test_files_are_not_read_where_secrets_are_not_resolved(tmp_path: Path) -> None:
    names = {"ca": "a.pem", "client_certificate": "b.pem", "client_key": "c.pem"}
    deployment = compiled(config_of(tls=names), tmp_path, secrets=False).config.deployments["own"]
    assert (deployment.link, deployment.tls is not None and deployment.tls.ca) == (None, "a.pem")


def test_deployment_at_a_vendors_site_may_have_a_client_certificate(tmp_path: Path, files: dict[str, str]) -> None:
    certificate = {key: name for key, name in files.items() if key != "ca"}
    config = BASE.merge({"deployments": {"chatgpt-us": {"tls": certificate}}})
    assert not compiled(config, tmp_path).config.deployments["chatgpt-us"].link.ca


MISTAKES: list[tuple[str, Any, str]] = [
    ("a missing file", {"ca": "none.pem"}, "none.pem can't be read (No such file or directory)"),
    ("a directory", {"ca": "."}, "can't be read (Is a directory)"),
    ("no certificate", {"ca": "client.key"}, "is a file without certificates"),
    ("half a certificate", {"ca": "half.pem"}, "is a file without certificates"),
    ("not text", {"ca": "binary"}, "is a file without certificates"),
    ("too large", {"ca": "large"}, "is larger than a PEM file"),
    ("no name", {"ca": ""}, "is empty"),
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
    (tmp_path / "large").write_bytes(b"#" * (1024 * 1024 + 1))
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


PROXY = {"url": "https://${USER}:${PASSWORD}@Proxy.example:3129", "territory": "US"}
CREDENTIALS = f"Basic {b64encode(b'gateway:pass-word').decode()}"


@pytest.mark.parametrize(
    ("url", "origin", "authorization"),
    [
        ("https://${USER}:${PASSWORD}@Proxy.example:3129", "https://proxy.example:3129", CREDENTIALS),
        ("https://gateway:${PASSWORD}@proxy.example:443/", "https://proxy.example", CREDENTIALS),
        ("https://${PAIR}@proxy.example", "https://proxy.example", CREDENTIALS),
        ("https://${USER}@proxy.example", "https://proxy.example", f"Basic {b64encode(b'gateway:').decode()}"),
        ("https://${file:SECRET}@proxy.example", "https://proxy.example", CREDENTIALS),
        ("http://127.0.0.1:3128", "http://127.0.0.1:3128", ""),
        ("https://[::1]:3128", "https://[::1]:3128", ""),
    ],
)
def test_proxy_has_its_address_without_the_credentials(
    url: str, origin: str, authorization: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("gateway:pass-word\n")
    url = url.replace("SECRET", str(tmp_path / "secret"))
    made = compiled(config_of(proxy={**PROXY, "url": url}), tmp_path)
    deployment = made.config.deployments["own"]
    assert deployment.proxy == Proxy(origin, parse_places(["US"]))
    assert (deployment.link.proxy, deployment.link.authorization) == (origin, authorization)
    assert "pass-word" not in repr(deployment)
    assert not {CREDENTIALS, "pass-word"} & set(repr(made.config).split("'"))
    assert ("file:" in url) == (str(tmp_path / "secret") in made.files)


def test_deployment_whose_proxy_has_no_credentials_is_skipped(tmp_path: Path) -> None:
    made = compiled(config_of(proxy=PROXY), tmp_path, environ={**KEYS, "K": "k-1"})
    deployment = made.config.deployments["own"]
    assert (deployment.has_credential, deployment.missing_credentials) == (False, ("USER", "PASSWORD"))
    assert any("USER is not set: the deployment is skipped" in str(warning) for warning in made.warnings)
    without = compiled(config_of(proxy=PROXY), tmp_path, secrets=False).config.deployments["own"]
    assert (without.has_credential, without.proxy) == (True, deployment.proxy)


def test_proxy_that_inspects_is_a_place_of_processing_and_may_have_the_authority_of_a_site(
    tmp_path: Path, files: dict[str, str]
) -> None:
    proxy = {"url": "https://proxy.example", "territory": "US", "inspects": True}
    config = config_of(proxy={**proxy, "territory": "CA"}).merge("regions: {us: {boundary: [US, CA]}}")
    assert compiled(config, tmp_path).config.deployments["own"].places == ("US", "CA, US")
    patch = {"deployments": {"chatgpt-us": {"tls": {"ca": files["ca"]}, "proxy": proxy}}}
    assert compiled(BASE.merge(patch), tmp_path).config.deployments["chatgpt-us"].link.ca
    patch["deployments"]["chatgpt-us"]["proxy"] = {**proxy, "inspects": False}
    with pytest.raises(ConfigRejected, match=r"tls\.ca: is not possible"):
        compiled(BASE.merge(patch), tmp_path)


def test_simulator_has_neither_certificates_nor_a_proxy(tmp_path: Path, files: dict[str, str]) -> None:
    simulated = {"endpoint": "simulator", "simulates": "us", "tls": files, "proxy": PROXY}
    others = ("qwen-cn", "qwen-intl", "chatgpt-eu", "gemini")
    config = BASE.without("clients", "location").merge(
        {"demo": True, "deployments": {"chatgpt-us": simulated, **dict.fromkeys(others)}},
        {"assistants": {"assistant": {"routes": dict.fromkeys(["cn", "eu", "default"])}}},
    )
    made = compiled(config, tmp_path)
    deployment = made.config.deployments["chatgpt-us"]
    assert (deployment.tls, deployment.proxy, deployment.link) == (None, None, None)
    assert sum("is not used with a simulator" in warning.message for warning in made.warnings) == 2
