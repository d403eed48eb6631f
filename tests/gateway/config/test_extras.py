"""An extra that a configuration needs and an installation lacks is an error of `gateway check` and of the start."""

import tomllib
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

import gateway.config.extras as module
from gateway.config.extras import EXTRAS
from tests.gateway.config.usage_configs import BASE, messages

SIGN_IN = """
sign_ins: {role: {kind: aws_web_identity, role: 'arn:aws:iam::1:role/r', region: eu-central-1, token_file: /run/token}}
deployments: {claude: {provider: bedrock, model: 'eu.amazon.nova-lite-v1:0', endpoint: eu-central-1, sign_in: role}}
"""
EXPORTER = "exporters: {t: {endpoint: 'https://otel.example.de', stores: DE, processes: DE, regions: [eu]}}"
NEEDS = {
    "an AWS sign-in": (SIGN_IN, "sign_ins.role", "aws", "botocore"),
    "an exporter": (EXPORTER, "exporters.t", "otel", "opentelemetry-proto"),
    "a redaction": ("redactions: {personal: {kinds: [email]}}", "redactions", "redaction", "google-re2"),
    "a database": ("{}", "stores.database", "stores", "asyncpg"),
    "Valkey": ("{}", "stores.valkey", "stores", "libvalkey"),
}
OF_NO_CONFIGURATION = {"conformance", "dev", "docs", "evaluate", "google", "sdks", "zstd"}
"""Of commands, of clients' bodies, and of keys: the key of a Google account is tried when it is read."""


def lack(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    def found(name: str) -> ModuleSpec | None:
        if name in modules and "." in name:
            raise ModuleNotFoundError(name)
        return None if name in modules else find_spec(name)

    monkeypatch.setattr(module, "find_spec", found)


@pytest.mark.parametrize("need", EXTRAS)
def test_missing_package_is_an_error_with_its_remedy(need: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, path, extra, package = NEEDS[need]
    config = BASE.merge(patch)
    assert [text for text in messages(config) if "extra" in text] == [], "all are installed here"
    lack(monkeypatch, EXTRAS[need].module)
    wanted = f"{path}: needs the extra `{extra}`, which is not installed; pip install {package}"
    assert [text for text in messages(config) if "extra" in text] == [wanted]


def test_configuration_that_needs_nothing_loads_without_any_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, *(extra.module for extra in EXTRAS.values()))
    assert messages(BASE.merge("{stores: null, secrets: null, usage: {on_loss: null}}")) == []


def test_every_extra_is_checked_or_is_of_no_configuration() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))["project"]
    packages = {name: " ".join(listed) for name, listed in project["optional-dependencies"].items()}
    assert packages.keys() - {extra.name for extra in EXTRAS.values()} == OF_NO_CONFIGURATION
    assert all(extra.package in packages[extra.name] for extra in EXTRAS.values())
