"""Compile consent rules, the treatment of identity fields, and the gateway's own keys."""

import pytest

from gateway.model.config_version import Secrets
from gateway.model.consent import ConsentRule
from gateway.model.deployment import Deployment
from providers.auth import Secret
from tests.kit.case_files import cases
from tests.kit.config_cases import compiled, edited, more, rejected, sections

LONG = "0123456789abcdef0123456789abcdef"
BOTH = "secrets: {consent: '${CONSENT}', identity: '${IDENTITY}'}"
ENVIRON = {"CONSENT": LONG, "IDENTITY": f"{LONG}i", "CN_KEY": "a", "EU_KEY": "b", "US_KEY": "c"}
KNOWN = "{provider: openai, model: gpt-6-luna, endpoint: us, api_key: '${US_KEY}', %s}"
HOUSE = "{provider: openai-compatible, model: m, endpoint: 'https://a.example/v1', stores: DE, processes: DE, %s}"


def text(written: str, secrets: str = BOTH, of: str = KNOWN) -> str:
    return sections(deployments=more("deployments", f"x: {of % written}"), secrets=secrets)


def deployment(written: str, secrets: str = BOTH, of: str = KNOWN) -> Deployment:
    return compiled(text(written, secrets, of), environ=ENVIRON).config.deployments["x"]


def warnings(written: str, secrets: str = BOTH) -> list[str]:
    found = compiled(text(written, secrets), environ=ENVIRON).warnings
    return [str(item) for item in found if "no route uses" not in item.message]


def test_consent_rule_is_compiled() -> None:
    assert deployment("enabled: true").consent is None
    assert deployment("consent: {mode: standing}").consent == ConsentRule("openai", "refuse", mode="standing")
    full = "consent: {mode: per_request, on_missing: skip, recipient: OpenAI (ChatGPT)}"
    assert deployment(full).consent == ConsentRule("OpenAI (ChatGPT)", "skip", mode="per_request")
    house = deployment("consent: {mode: standing, recipient: We}", of=HOUSE)
    assert house.consent == ConsentRule("We", mode="standing")


def test_config_version_lists_the_recipients_of_consent() -> None:
    assert compiled(text("enabled: true"), environ=ENVIRON).config.recipients == frozenset()
    assert compiled(text("consent: {mode: standing}"), environ=ENVIRON).config.recipients == {"openai"}


def test_invalid_consent_rule_removes_the_deployment() -> None:
    routed = edited(text("consent: {mode: never}"), ("us: [chatgpt-us]", "us: [x]"))
    found = rejected(routed, environ=ENVIRON)
    assert [item.path for item in found if item.severity == "error"] == [("deployments", "x", "consent", "mode")]


def test_identity_is_stripped_by_default() -> None:
    assert (deployment("enabled: true").identity, deployment("enabled: true").pseudonym_key) == ("strip", None)
    assert (deployment("identity: pass").identity, deployment("identity: pass").pseudonym_key) == ("pass", None)
    hashed = deployment("identity: hash")
    assert (hashed.identity, hashed.pseudonym_key) == ("hash", Secret(f"{LONG}i"))
    assert LONG not in repr(hashed)


def test_the_gateways_own_keys() -> None:
    table = compiled(text("enabled: true"), environ=ENVIRON).config
    assert table.secrets == Secrets((Secret(LONG),), (Secret(f"{LONG}i"),))
    assert LONG not in repr(table.secrets)
    assert compiled(text("enabled: true", ""), environ=ENVIRON).config.secrets == Secrets()


def test_missing_consent_secret_is_a_warning() -> None:
    assert warnings("consent: {mode: standing}") == []
    [warning] = warnings("consent: {mode: standing}", "")
    assert "deployments.x.consent: `secrets.consent` is not set" in warning
    assert warnings("enabled: true", "") == []
    [warning] = warnings("enabled: true", f"secrets: {{consent: '{LONG}'}}")
    assert "a secret is written in the config" in warning
    assert LONG not in warning


@pytest.mark.parametrize("written", ["consent: {mode: standing}", "identity: hash"])
@pytest.mark.parametrize("secrets", ["secrets: [a]", "secrets: {consent: [a], identity: '${IDENTITY}'}"])
def test_invalid_secrets_section_is_not_reported_as_missing(written: str, secrets: str) -> None:
    found = [item for item in rejected(text(written, secrets), environ=ENVIRON) if "no route uses" not in item.message]
    assert {item.path[0] for item in found} == {"secrets"}


def test_a_demo_needs_no_key_for_tokens() -> None:
    demo = """
version: 1
demo: true
assistants: {a: {routes: {us: [x]}}}
regions: {us: {territories: [US], boundary: [US]}}
deployments:
  x: {provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: us, consent: {mode: standing}}
"""
    assert compiled(demo, environ={}).warnings == ()


@cases("secrets", "hint")
def test_hint_explains_how_to_fix_a_key(secrets: str, hint: str) -> None:
    [found] = [item for item in rejected(text("enabled: true", secrets), environ=ENVIRON) if item.severity == "error"]
    assert found.hint == hint


def test_unresolved_key_counts_as_set() -> None:
    assert not [item for item in compiled(text("identity: hash"), secrets=False).warnings if "secret" in item.message]
