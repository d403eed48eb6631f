"""Options of one server: accepted if the provider's adapter supports them, reported otherwise."""

from dataclasses import replace

from providers.auth import Secret
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from tests.kit.config_cases import ENVIRON, compiled, sections, with_deployment

HOUSE = "endpoint: 'https://llm.example.com/v1', stores: US, processes: US, model: m"


def test_stream_options_false_removes_the_parameter() -> None:
    for provider in ("openai-compatible", "vllm"):
        for key, without in (
            ("", frozenset()),
            (", stream_options: true", frozenset()),
            (", stream_options: false", {"stream_options"}),
        ):
            x = compiled(with_deployment(f"provider: {provider}, {HOUSE}{key}")).config.deployments["x"]
            assert x.target.facts.without == without


def test_inline_thoughts_are_for_servers_with_the_form_of_openai() -> None:
    for provider, flags in (("openai-compatible", {"thinks_at_once"}), ("vllm", {"thinks_at_once"}), ("gemini", set())):
        where = HOUSE if flags else "model: gemini-3.5-flash, api_key: '${G_KEY}'"
        found = compiled(with_deployment(f"provider: {provider}, {where}, inline_thoughts: end_tag"))
        reported = [one.message for one in found.warnings if "inline_thoughts" in one.path]
        assert reported == ([] if flags else ["gemini has reasoning in a field of its own"])
        assert found.config.deployments["x"].target.facts.flags & {"thinks_at_once"} == flags


# --- headers --------------------------------------------------------------------------------------

ERNIE = "provider: qianfan, model: ernie-5.1, api_key: '${CN_KEY}'"
QWEN = "provider: dashscope, model: qwen-plus, endpoint: cn-beijing, api_key: '${CN_KEY}'"
KEYS = ENVIRON | {"SPACE": "ws-secret", "ODD": "not a workspace"}


def test_known_header_is_sent_under_its_canonical_name() -> None:
    for text in ("X-DashScope-WorkSpace: ws-secret", "x-dashscope-workspace: '${SPACE}'"):
        x = compiled(with_deployment(f"{QWEN}, headers: {{{text}}}"), KEYS).config.deployments["x"]
        assert x.headers == (("X-DashScope-WorkSpace", Secret("ws-secret")),)
        assert "ws-secret" not in repr(x)
        assert x.has_credential


def test_unset_header_excludes_the_deployment() -> None:
    found = compiled(with_deployment(f"{QWEN}, headers: {{X-DashScope-WorkSpace: '${{NOBODY}}'}}"), KEYS)
    x = found.config.deployments["x"]
    assert (x.has_credential, x.missing_credentials) == (False, ("NOBODY",))
    assert [one.message for one in found.warnings if "headers" in one.path] == [
        "NOBODY is not set: the deployment is skipped"
    ]
    deployment = compiled(with_deployment(f"provider: vllm, {HOUSE}")).config.deployments["x"]
    assert (deployment.headers, deployment.has_credential) == ((), True)


def test_header_value_is_not_checked_if_references_are_not_resolved() -> None:
    for form in (f"{QWEN}, headers: {{X-DashScope-WorkSpace: '${{ODD}}'}}", f"{ERNIE}, headers: {{appid: '${{ODD}}'}}"):
        assert compiled(with_deployment(form), KEYS, secrets=False).config.deployments["x"].headers


def test_empty_header_value_is_reported_by_its_name() -> None:
    x = compiled(with_deployment(f"{ERNIE}, headers: {{appid: ''}}"), KEYS).config.deployments["x"]
    assert (x.has_credential, x.missing_credentials) == (False, ("appid",))


def test_server_without_key_needs_its_header() -> None:
    row = adapter_of(
        'name = "acme"\n[dialect]\nauth = "none"\n[headers.x-acme-team]\nvalue = "team-[a-z]{1,20}"\n'
        'about = "who pays"\nsource = "its page"\n'
    )
    registry = replace(load_registry(), adapters={**load_registry().adapters, "acme": row})
    text = with_deployment(f"provider: acme, {HOUSE}, headers: {{x-acme-team: '${{NOBODY}}'}}")
    assert not compiled(text, KEYS, registry=registry).config.deployments["x"].has_credential


def test_headers_are_not_sent_to_a_simulator() -> None:
    simulated = {
        "assistants": "assistants: {a: {routes: {cn: [x]}}}",
        "regions": "regions: {cn: {territories: [CN], boundary: [CN]}}",
    }
    one = "deployments: {x: {provider: qianfan, model: m, endpoint: simulator, simulates: cn, headers: {appid: app-1}}}"
    text = sections(version="version: 1\ndemo: true", cell="", blocked="", deployments=one, **simulated)
    found = compiled(text, simulators={("qianfan", "cn"): "http://127.0.0.1:9"}, demo=True)
    assert found.config.deployments["x"].headers == ()
    reported = [(one.path, one.message) for one in found.warnings if "headers" in one.path]
    assert reported == [(("deployments", "x", "headers"), "headers are not sent to a simulator")]
