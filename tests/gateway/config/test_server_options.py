"""What an operator says of how one server speaks: taken where the provider's adapter has it, named where it hasn't."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.config.problems import dotted
from providers.auth import Secret
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from tests.kit.config_cases import ENVIRON, compiled, more, rejected, sections

HOUSE = "endpoint: 'https://llm.example.com/v1', stores: US, processes: US, model: m"


def config(text: str) -> str:
    return sections(deployments=more("deployments", f"x: {{{text}}}"))


def test_a_server_that_refuses_the_field_for_usage_is_without_it() -> None:
    for provider in ("openai-compatible", "vllm"):
        for key, without in (
            ("", frozenset()),
            (", stream_options: true", frozenset()),
            (", stream_options: false", {"stream_options"}),
        ):
            x = compiled(config(f"provider: {provider}, {HOUSE}{key}")).table.deployments["x"]
            assert x.target.facts.without == without


def test_who_is_never_sent_the_field_needs_no_key_for_it() -> None:
    for provider, where in (("gemini", "model: gemini-3.5-flash"), ("mistral", "model: mistral-small-2603")):
        found = compiled(config(f"provider: {provider}, {where}, api_key: '${{G_KEY}}', stream_options: false"))
        told = [(dotted(one.path), one.message) for one in found.warnings if "stream_options" in one.path]
        assert told == [("deployments.x.stream_options", f"{provider} never receives this field")]


# --- headers --------------------------------------------------------------------------------------

ERNIE = "provider: qianfan, model: ernie-5.1, api_key: '${CN_KEY}'"
QWEN = "provider: dashscope, model: qwen3-max, endpoint: cn-beijing, api_key: '${CN_KEY}'"
KEYS = ENVIRON | {"SPACE": "ws-secret", "ODD": "not a workspace"}


def test_a_header_that_its_provider_is_known_to_have_is_sent_under_its_own_name() -> None:
    for text in ("X-DashScope-WorkSpace: ws-secret", "x-dashscope-workspace: '${SPACE}'"):
        x = compiled(config(f"{QWEN}, headers: {{{text}}}"), KEYS).table.deployments["x"]
        assert x.headers == (("X-DashScope-WorkSpace", Secret("ws-secret")),)
        assert "ws-secret" not in repr(x)
        assert x.has_credential


def test_a_header_that_is_unset_takes_the_deployment_out() -> None:
    found = compiled(config(f"{QWEN}, headers: {{X-DashScope-WorkSpace: '${{NOBODY}}'}}"), KEYS)
    x = found.table.deployments["x"]
    assert (x.has_credential, x.missing_credentials) == (False, ("NOBODY",))
    assert [one.message for one in found.warnings if "headers" in one.path] == [
        "NOBODY is not set: the deployment is skipped"
    ]
    house = compiled(config(f"provider: vllm, {HOUSE}")).table.deployments["x"]
    assert (house.headers, house.has_credential) == ((), True)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "X-Region: cn-beijing",
            "is not a header that dashscope accepts",
            "headers are allowed: X-DashScope-WorkSpace",
        ),
        ("X-DashScope-DataInspection: enable", "is not a header that dashscope accepts", "change where prompts go"),
        ("Host: evil.example", "is not a header that dashscope accepts", "change where prompts go"),
        ("Authorization: 'Bearer ws-secret'", "is not a header that dashscope accepts", "change where prompts go"),
        ("X-DashScope-WorkSpace: ws-one, x-dashscope-workspace: ws-two", "is listed twice", "only known headers"),
        (
            "X-DashScope-WorkSpace: '${ODD}'",
            "ODD is not a value that 'X-DashScope-WorkSpace' accepts",
            "it must have the form",
        ),
        (
            "X-DashScope-WorkSpace: abc",
            "the value is not a value that 'X-DashScope-WorkSpace' accepts",
            "it must have the form",
        ),
        ("X-DashScope-WorkSpace: 'a${SPACE}'", "the value is not a reference that can be resolved", "write ${NAME}"),
    ],
)
def test_any_other_header_or_value_is_a_mistake_that_shows_no_value(text: str, message: str, hint: str) -> None:
    problems = [one for one in rejected(config(f"{QWEN}, headers: {{{text}}}"), KEYS) if one.severity == "error"]
    assert [one.message for one in problems] == [message]
    assert hint in problems[0].hint
    assert problems[0].path[:3] == ("deployments", "x", "headers")
    for secret in ("ws-secret", "ws-two", "not a workspace", "evil"):
        assert secret not in str(problems[0])


def test_who_has_none_is_told_so() -> None:
    for provider, where in (("openai", "model: gpt-6-luna, endpoint: us"), ("mistral", "model: mistral-small-2603")):
        text = f"provider: {provider}, {where}, api_key: '${{US_KEY}}', headers: {{OpenAI-Project: proj_1}}"
        (problem,) = (one for one in rejected(config(text)) if one.severity == "error")
        assert problem.message == f"is not a header that {provider} accepts"
        assert problem.hint.endswith("are allowed: none")


def test_without_secrets_nothing_is_said_of_what_was_not_looked_up() -> None:
    for form in (f"{QWEN}, headers: {{X-DashScope-WorkSpace: '${{ODD}}'}}", f"{ERNIE}, headers: {{appid: '${{ODD}}'}}"):
        assert compiled(config(form), KEYS, secrets=False).table.deployments["x"].headers


def test_one_that_is_written_and_empty_is_unset_under_its_own_name() -> None:
    x = compiled(config(f"{ERNIE}, headers: {{appid: ''}}"), KEYS).table.deployments["x"]
    assert (x.has_credential, x.missing_credentials) == (False, ("appid",))


def test_a_server_that_needs_no_key_is_not_asked_without_its_header() -> None:
    row = adapter_of(
        'name = "acme"\n[dialect]\nauth = "none"\n[headers.x-acme-team]\nvalue = "team-[a-z]{1,20}"\n'
        'about = "who pays"\nsource = "its page"\n'
    )
    registry = replace(load_registry(), adapters={**load_registry().adapters, "acme": row})
    text = config(f"provider: acme, {HOUSE}, headers: {{x-acme-team: '${{NOBODY}}'}}")
    assert not compiled(text, KEYS, registry=registry).table.deployments["x"].has_credential


def test_a_simulator_is_sent_none() -> None:
    simulated = {
        "assistants": "assistants: {a: {routes: {cn: [x]}}}",
        "regions": "regions: {cn: {territories: [CN], boundary: [CN]}}",
    }
    one = "deployments: {x: {provider: qianfan, model: m, endpoint: simulator, simulates: cn, headers: {appid: app-1}}}"
    text = sections(version="version: 1\ndemo: true", cell="", blocked="", deployments=one, **simulated)
    found = compiled(text, simulators={("qianfan", "cn"): "http://127.0.0.1:9"}, demo=True)
    assert found.table.deployments["x"].headers == ()
    told = [(one.path, one.message) for one in found.warnings if "headers" in one.path]
    assert told == [(("deployments", "x", "headers"), "headers are not sent to a simulator")]
