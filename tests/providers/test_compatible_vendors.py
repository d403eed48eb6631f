"""Test compatible vendors where the kit and recordings do not: how their files are read, and what each rule does."""

import hashlib
import json
import pickle
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import Target
from providers.auth import Bearer, HeaderKey, NoAuth
from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.models import UNKNOWN_MODEL, model_facts
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    Failed,
    FilePart,
    Heartbeat,
    ImagePart,
    JsonObjectFormat,
    Message,
    NamedTool,
    Opened,
    SystemMessage,
    TextPart,
    TextRun,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolMessage,
    UserMessage,
)
from providers.compatible.adapter import CompatibleAdapter, adapter_named, adapter_of
from providers.compatible.dialect import DialectError
from providers.compatible.simulator import CompatibleSimulator, simulator_of
from providers.compatible.simulator_request import objections
from providers.failures import FailureKind, ProviderFailed, UnsupportedFeature
from providers.formats.reasoning_state import pack_call
from providers.matching.capability_matching import match_capabilities
from providers.matching.requirements import requirements_of
from providers.openai_json.read_answer import ThinkTags
from providers.reading.folding import fold
from providers.registry import load_registry
from providers.testkit.simulator import IncomingRequest, RequestRejected, load_simulators
from providers.vendors.openai.adapter import COMPATIBLE
from providers.wire import WireResponse
from tests.kit.case_files import cases

VENDORS = sorted(
    name for name, one in load_registry().adapters.items() if isinstance(one, CompatibleAdapter) and one.chats
)
ASK = ChatRequest("assistant", (UserMessage("Hi"),))
TOOLS = replace(ASK, tools=(Tool("get_time"), Tool("get_weather")))
ACME = """
name = "acme"
[dialect]
auth = "header:x-acme-key"
features = ["tools", "reasoning"]
parameters = ["temperature", "max_tokens", "reasoning_effort"]
[dialect.request]
bounds = { temperature = [0, 1] }
[dialect.thinking.default]
on = { think = true }
off = { think = false }
[dialect.answer]
finish = { out_of_breath = "unavailable" }
[dialect.errors.codes]
quota = ["no_coins"]
[simulator.errors]
quota = ["no_coins", "billing"]
[sites.oslo]
origin = "https://api.acme.example"
base_path = "/v1"
stores = ["NO"]
processes = ["NO"]
api_key_env = "ACME_API_KEY"
[models."acme-*"]
features = ["tools", "reasoning"]
efforts = ["none", "high"]
"""


def target(adapter: CompatibleAdapter, model: str, base_path: str = "/v1") -> Target:
    return Target(model, base_path, model_facts(adapter.models, model))


def sent(provider: str, model: str, request: ChatRequest = ASK) -> dict[str, Any]:
    adapter = adapter_named(provider)
    body: dict[str, Any] = json.loads(adapter.build_request(request, target(adapter, model)).body)
    return body


def response(body: object, status: int = 200, **headers: str) -> WireResponse:
    return WireResponse(status, {"content-type": "application/json", **headers}, json.dumps(body).encode(), 0)


def looped(*between: Message) -> list[Message]:
    call = AssistantMessage(None, tool_calls=(ToolCall("call_1", "get_time", "{}"),))
    return [UserMessage("When?"), call, ToolMessage("call_1", "noon"), *between]


@pytest.mark.parametrize("provider", ["deepseek", "moonshot"])
@pytest.mark.parametrize(
    ("messages", "thoughts"),
    [
        (looped(), [" "]),
        # The answer after the results belongs to the same turn; texts before and after the turn do not.
        ([*looped(AssistantMessage("Noon.")), UserMessage("Thanks.")], [" ", " "]),
        ([*looped(AssistantMessage("Noon.", reasoning="I know.")), UserMessage("Thanks.")], [" ", "I know."]),
        ([UserMessage("Hi"), AssistantMessage("Hello."), *looped()], [None, " "]),
        (
            [*looped(AssistantMessage("Noon.")), UserMessage("?"), AssistantMessage("!"), UserMessage("?")],
            [" ", " ", None],
        ),
        ([UserMessage("Hi"), AssistantMessage("Hello.", reasoning="Hm."), UserMessage("?")], [None]),
        # A message that the model must continue is not an answer yet.
        (looped(AssistantMessage("It is ")), [" ", None]),
    ],
)
def test_turn_with_calls_is_sent_back_with_its_reasoning(
    provider: str, messages: list[Message], thoughts: list[str | None]
) -> None:
    model = {"deepseek": "deepseek-v4-pro", "moonshot": "kimi-k3"}[provider]
    body = sent(provider, model, replace(ASK, messages=tuple(messages)))
    sent_messages = [message for message in body["messages"] if message["role"] == "assistant"]
    assert [message.get("reasoning_content") for message in sent_messages] == thoughts


@cases("provider", "model", "thoughts")
def test_unknown_model_gets_its_reasoning_back(provider: str, model: str, thoughts: list[str | None]) -> None:
    """The vendor's newest model reasons, and refuses the second round of a tool loop without its reasoning."""
    messages = looped(AssistantMessage("Noon.", reasoning="I know."))
    body = sent(provider, model, replace(ASK, messages=(*messages, UserMessage("Thanks."))))
    sent_messages = [message for message in body["messages"] if message["role"] == "assistant"]
    assert [message.get("reasoning_content") for message in sent_messages] == thoughts


@pytest.mark.parametrize("model", adapter_named("azure").models)
def test_openai_models_on_azure_answer_a_last_assistant_message(model: str) -> None:
    """OpenAI's own models do the same. Other models get no such message unless they can continue it."""
    adapter, asked = adapter_named("azure"), replace(ASK, messages=(UserMessage("Hi"), AssistantMessage("Hello.")))
    where = target(adapter, model.replace("*", ""))
    needs = replace(requirements_of(asked), anew=True)
    assert not match_capabilities(
        needs, replace(adapter.capabilities, features=where.facts.features), where.facts
    ).missing
    sent_messages = json.loads(adapter.build_request(asked, where).body)["messages"]
    assert [message["role"] for message in sent_messages] == ["user", "assistant"]
    with pytest.raises(UnsupportedFeature, match="prefill"):
        adapter.build_request(asked, target(adapter, "my-deployment"))


@cases("provider", "model", "details")
def test_image_detail_is_converted(provider: str, model: str, details: list[str | None]) -> None:
    asked = tuple(ImagePart("https://i.example/a.png", word) for word in ("auto", "low", "high", "original", None))
    body = sent(provider, model, replace(ASK, messages=(UserMessage(asked),)))
    assert [part["image_url"].get("detail") for part in body["messages"][0]["content"]] == details


@cases("error", "kind")
def test_known_azure_code_counts_at_any_path(error: object, kind: str) -> None:
    assert adapter_named("azure").classify_error(response(error, 400)).kind == FailureKind(kind)


@pytest.mark.parametrize(
    ("user", "user_id"),
    [
        ("ann", "ann"),
        ("a" * 512, "a" * 512),
        ("a" * 513, hashlib.sha256(b"a" * 513).hexdigest()),
        ("é" * 256, "é" * 256),
        ("é" * 257, hashlib.sha256(("é" * 257).encode()).hexdigest()),
    ],
)
def test_user_is_shortened_to_deepseeks_limit(user: str, user_id: str) -> None:
    assert sent("deepseek", "deepseek-v4-pro", replace(ASK, user=user))["user_id"] == user_id


# --- reading the files ----------------------------------------------------------------------------


def test_third_party_toml_gives_an_adapter_and_a_simulator() -> None:
    adapter, dialect = adapter_of(ACME), simulator_of(ACME)
    assert (adapter.name, adapter.auth, dialect.name) == ("acme", HeaderKey("x-acme-key"), "acme")
    assert adapter_of(ACME.replace("x-acme-key", "x-acme-key|bearer")).auth == HeaderKey("x-acme-key", or_token=True)
    assert adapter_named("azure").auth == HeaderKey("api-key", or_token=True)
    assert adapter.sites["oslo"].origin == "https://api.acme.example"
    body = json.loads(
        adapter.build_request(replace(ASK, temperature=2, reasoning_effort="low"), target(adapter, "acme-1")).body
    )
    assert (body["temperature"], body["think"]) == (1, True)
    assert adapter.classify_error(dialect.write_error(FailureKind.QUOTA, 429)).kind is FailureKind.QUOTA


def test_simulator_uses_the_configured_path() -> None:
    toml = ACME.replace("[dialect.request]", '[dialect.request]\npath = "/talk"')
    adapter, dialect = adapter_of(toml), simulator_of(toml)
    wire = adapter.build_request(ASK, target(adapter, "acme-1"))
    assert wire.path == "/v1/talk"
    headers = {**dict(wire.headers), "x-acme-key": "any"}
    assert dialect.read_request(IncomingRequest("POST", wire.path, "", headers, wire.body)).messages == ASK.messages
    with pytest.raises(RequestRejected, match="unknown path"):
        dialect.read_request(IncomingRequest("POST", "/v1/chat/completions", "", headers, wire.body))


@pytest.mark.parametrize("name", VENDORS)
def test_simulator_refuses_unknown_paths(name: str) -> None:
    with pytest.raises(RequestRejected, match="unknown path"):
        load_simulators().named(name).read_request(IncomingRequest("POST", "/v1/elsewhere", "", {}, b"{}"))


def test_vendor_without_a_quota_code_uses_status_402() -> None:
    toml = ACME.replace('quota = ["no_coins"]\n', "").replace('quota = ["no_coins", "billing"]\n', "")
    adapter, dialect = adapter_of(toml), simulator_of(toml)
    error = dialect.write_error(FailureKind.QUOTA, 429)
    assert (error.status, adapter.classify_error(error).kind) == (402, FailureKind.QUOTA)
    assert dialect.write_error(FailureKind.RATE_LIMITED, 429).status == 429
    assert simulator_of(ACME).write_error(FailureKind.QUOTA, 429).status == 429


def test_cached_tokens_are_read_at_a_dotted_path() -> None:
    adapter = adapter_of('name = "acme"\n[dialect.answer]\ncached = ["stash.hits", "stash.deep.hits"]\n')
    usage = b'{"prompt_tokens": 9, "completion_tokens": 2, "stash": {"deep": {"hits": 4}}}'
    body = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": ' + usage + b"}"
    answer = adapter.parse_response(WireResponse(200, {}, body, 0), target(adapter, "acme-1"))
    assert answer.usage.cached_tokens == 4


@pytest.mark.parametrize("form", ["prefix", "partial", "go_on"])
def test_prefill_field_allows_a_last_assistant_message_with_alternating_roles(form: str) -> None:
    head = 'name = "acme"\n[dialect]\nfeatures = ["prefill"]\n'
    rule = f'[dialect.request]\nturns = "alternate"\nprefill = {{ message = {{ {form} = true }} }}\n'
    adapter = adapter_of(head + rule)
    facts = target(adapter, "acme-1").facts
    last: dict[str, object] = {"role": "assistant", "content": "One,"}
    body = {"model": "acme-1", "messages": [{"role": "user", "content": "Count."}, last]}
    assert [*objections(body, adapter.dialect, facts, "/v1/chat/completions")]
    last[form] = True
    assert not [*objections(body, adapter.dialect, facts, "/v1/chat/completions")]


@cases("changed", "complaint")
def test_error_in_the_dialect_names_its_place(changed: tuple[str, str], complaint: str) -> None:
    assert changed[0] in ACME
    with pytest.raises(DialectError) as raised:
        adapter_of(ACME.replace(*changed, 1))
    assert str(raised.value).startswith(complaint)


@cases("old", "new", "complaint")
def test_vendor_file_of_this_repository_is_checked_like_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    from providers.compatible import adapter

    (tmp_path / "acme_facts").mkdir()
    (tmp_path / "acme_facts" / f"{tmp_path.name}.toml").write_text(ACME.replace(old, new, 1), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "acme_facts", raising=False)
    monkeypatch.setattr(adapter, "facts_of", lambda name: FactsFile("acme_facts", name))
    with pytest.raises(DialectError) as raised:
        adapter_named(tmp_path.name)
    assert str(raised.value).startswith(complaint)


SITE = 'processes = ["NO"]'


@cases("old", "new", "complaint")
def test_invalid_fact_is_an_error(old: str, new: str, complaint: str) -> None:
    assert old in ACME
    with pytest.raises((DialectError, CatalogueError)) as raised:
        adapter_of(ACME.replace(old, new, 1))
    assert str(raised.value).startswith(complaint)


def test_never_accepts_territory_groups() -> None:
    site = adapter_of(ACME.replace(SITE, f'{SITE}\nnever = ["@EU", "CN"]')).sites["oslo"]
    assert {"CN", "DE"} <= site.availability.never


WRONG: list[object] = [True, -1, 1.5, "", " x", [], [1], [[]], [""], {}, {"a": 1}, [{}]]


def places_in(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    entries: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    for key, inner in entries:
        yield (*path, key)
        yield from places_in(inner, (*path, key))


def as_toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(as_toml, value)) + "]" if isinstance(value, list) else json.dumps(value)


def refusal(toml: str) -> str | None:
    try:
        adapter_of(toml)
    except (DialectError, CatalogueError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", list(places_in(tomllib.loads(ACME))), ids=lambda path: ".".join(map(str, path)))
def test_no_value_in_the_file_makes_the_reader_raise_another_error(path: tuple[str | int, ...]) -> None:
    """Each value is accepted, or refused with a message that begins with the name of its table."""
    for wrong in WRONG:
        data: Any = tomllib.loads(ACME)
        inner = data
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = wrong
        complaint = refusal("\n".join(f"{key} = {as_toml(value)}" for key, value in data.items()))
        assert complaint is None or complaint.startswith(str(path[0]))


def test_error_in_the_simulator_section_names_its_place() -> None:
    for wrong in ("[simulator]\ncolour = 1\n[simulator.errors]", '[simulator]\nusage = "never"\n[simulator.errors]'):
        with pytest.raises(DialectError, match=r"^simulator"):
            simulator_of(ACME.replace("[simulator.errors]", wrong))


@pytest.mark.parametrize("name", VENDORS)
def test_every_compatible_vendor_is_registered_and_can_be_pickled(name: str) -> None:
    adapter = load_registry().adapters[name]
    assert adapter is adapter_named(name)
    assert isinstance(load_simulators().simulators[name], CompatibleSimulator)
    assert pickle.loads(pickle.dumps(adapter)) == adapter  # noqa: S301  # our own bytes
    assert isinstance(adapter.auth, Bearer | HeaderKey | NoAuth)


def test_unknown_vendor_is_an_attribute_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from providers.compatible import adapter, simulator

    for module in (adapter, simulator):
        with pytest.raises(AttributeError, match="no compatible vendor 'nobody'"):
            module.nobody  # noqa: B018
    monkeypatch.setattr(adapter, "facts_of", lambda name: FactsFile("providers.catalogue", name))
    with pytest.raises(DialectError):
        adapter_named("availability")


# --- requests -------------------------------------------------------------------------------------


@cases("provider", "model", "effort", "expected")
def test_reasoning_effort_is_converted_for_each_vendor(
    provider: str, model: str, effort: str | None, expected: dict[str, Any]
) -> None:
    body = sent(provider, model, replace(ASK, reasoning_effort=effort))
    words = {"thinking", "reasoning_effort", "enable_thinking", "thinking_budget", "chat_template_kwargs", "stream"}
    assert {name: body[name] for name in words & body.keys()} == expected


def test_forced_tool_switches_thinking_off_if_the_vendor_requires_it() -> None:
    for choice in ("required", AllowedTools("required", ("get_time",))):
        asked = replace(TOOLS, tool_choice=choice, reasoning_effort="high")  # type: ignore[arg-type]
        body = sent("deepseek", "deepseek-v4-pro", replace(asked, extra={"thinking": {"type": "enabled"}}))
        assert body["thinking"] == {"type": "disabled"}
        assert "reasoning_effort" not in body


def test_clients_own_thinking_switch_overrides_the_effort() -> None:
    asked = replace(ASK, reasoning_effort="none", extra={"thinking": {"type": "enabled"}})
    assert sent("deepseek", "deepseek-v4-pro", asked)["thinking"] == {"type": "enabled"}


@pytest.mark.parametrize(
    ("provider", "model", "request_", "feature"),
    [
        ("zhipu", "glm-5.3", replace(TOOLS, tool_choice="required"), "tool_choice_required"),
        ("zhipu", "glm-5.3", replace(ASK, n=2), "n"),
        ("deepseek", "deepseek-v4-pro", replace(ASK, response_format=JsonObjectFormat()), "json_object"),
        ("qianfan", "ernie-5.1", replace(ASK, stop=("x" * 21,)), "stop"),
        ("ark", "deepseek-v3.2", replace(ASK, stop=("a", "b", "c", "d", "e")), "stop"),
        ("ollama", "m", replace(TOOLS, tool_choice=NamedTool("get_time")), "tool_choice_named"),
        ("qianfan", "ernie-5.1", replace(ASK, messages=(UserMessage("Hi"), AssistantMessage("Well,"))), "prefill"),
        ("xai", "grok-4.3", replace(ASK, messages=(UserMessage((FilePart("data:a/b;base64,AA=="),)),)), "file"),
        ("azure", "..", ASK, "model"),
    ],
)
def test_unsupported_feature_is_refused(provider: str, model: str, request_: ChatRequest, feature: str) -> None:
    adapter = adapter_named(provider)
    with pytest.raises(UnsupportedFeature) as raised:
        adapter.build_request(request_, target(adapter, model, "/openai" if provider == "azure" else "/v1"))
    assert raised.value.feature == feature


STRICT = [("qianfan", "ernie-5.1"), ("mistral", "mistral-large-4")]
"""Vendors with rules for the order of roles."""
CALLED = AssistantMessage(None, tool_calls=(ToolCall("aB3dE5gH7", "get_time", "{}"),))
NOON = ToolMessage("aB3dE5gH7", "12:00")


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ((SystemMessage("Be brief."),), "system user"),
        ((UserMessage("Hi"), AssistantMessage(""), UserMessage("Hi?")), "user"),
        ((UserMessage("Hi"), AssistantMessage("Yes"), SystemMessage("Go on.")), "user assistant user"),
        ((UserMessage("Hi"), CALLED, NOON, UserMessage("And?")), "user assistant tool assistant user"),
        ((UserMessage("Hi"), CALLED, NOON), "user assistant tool"),
        ((UserMessage("Hi"), AssistantMessage(" "), UserMessage("Hi?")), "user"),
        ((AssistantMessage("Hello!"), UserMessage("Hi")), "assistant user"),
        ((UserMessage("Hi"), AssistantMessage(None, refusal="No."), UserMessage("Why?")), "user assistant user"),
    ],
)
@pytest.mark.parametrize(("provider", "model"), STRICT)
def test_conversation_is_accepted_by_vendors_with_rules_for_roles(
    provider: str, model: str, messages: tuple[Message, ...], roles: str
) -> None:
    assert roles_sent(provider, model, *messages) == roles


@pytest.mark.parametrize(
    ("messages", "roles"),
    [
        ((UserMessage("Hi"), AssistantMessage("Well,")), "user assistant"),
        ((UserMessage("Hi"), AssistantMessage("Well,"), AssistantMessage("then")), "user assistant"),
        ((UserMessage("Hi"), AssistantMessage(" ")), "user"),
        ((UserMessage("Hi"), AssistantMessage("Yes"), AssistantMessage(" ")), "user assistant user"),
    ],
)
def test_prefill_stays_the_last_turn_unless_it_is_blank(messages: tuple[Message, ...], roles: str) -> None:
    assert roles_sent("mistral", "mistral-large-4", *messages) == roles


def test_merged_assistant_messages_keep_their_calls() -> None:
    messages = (UserMessage("Hi"), CALLED, AssistantMessage("Wait."), UserMessage("Well?"))
    body = sent("mistral", "mistral-large-4", replace(TOOLS, messages=messages))
    assert [call["id"] for call in body["messages"][1]["tool_calls"]] == ["aB3dE5gH7"]


def roles_sent(provider: str, model: str, *messages: Message) -> str:
    """Return the roles of the messages in a request that the simulator accepts."""
    body, adapter = sent(provider, model, replace(TOOLS, messages=messages)), adapter_named(provider)
    assert not [*objections(body, adapter.dialect, target(adapter, model).facts, "/v1/chat/completions")]
    return " ".join(message["role"] for message in body["messages"])


AS_JSON = replace(
    ASK, messages=(SystemMessage("Answer in JSON."), UserMessage("Hi")), response_format=JsonObjectFormat()
)
SERIAL = replace(TOOLS, parallel_tool_calls=False)


@pytest.mark.parametrize(
    ("provider", "model", "request_", "field", "value"),
    [
        ("deepseek", "deepseek-v4-pro", AS_JSON, "response_format", {"type": "json_object"}),
        ("huawei", "openpangu-2.0-pro", SERIAL, "parallel_tool_calls", False),
        ("huawei", "openpangu-2.0-pro", TOOLS, "parallel_tool_calls", None),
        ("dashscope-compatible", "qwen-plus", SERIAL, "parallel_tool_calls", False),
        ("dashscope-compatible", "qwen-plus", TOOLS, "parallel_tool_calls", True),
        ("dashscope-compatible", "qwen-plus", ASK, "parallel_tool_calls", None),
    ],
)
def test_field_is_sent_only_to_vendors_that_support_it(
    provider: str, model: str, request_: ChatRequest, field: str, value: object
) -> None:
    assert sent(provider, model, request_).get(field) == value


def test_mistrals_own_fields_are_claimed() -> None:
    own = {"top_k": 5, "min_tokens": 2}
    assert own.keys() <= adapter_named("mistral").capabilities.parameters
    assert sent("mistral", "mistral-large-4", replace(ASK, extra=own)).items() >= own.items()


@pytest.mark.parametrize(
    ("provider", "model", "sent_ones"),
    [
        ("ark", "doubao-seed-2-1-pro-260915", set()),
        ("azure", "gpt-4o", {"n"}),
        ("dashscope-compatible", "qwq-plus", set()),
        ("mistral", "mistral-large-4", {"n"}),
        ("moonshot", "kimi-k3", set()),
        ("zhipu", "glm-5.3", set()),
    ],
)
def test_default_values_are_not_sent_to_vendors_without_the_field(
    provider: str, model: str, sent_ones: set[str]
) -> None:
    """`n: 1` and `logprobs: false` are the defaults of all vendors, but frameworks send them explicitly."""
    assert {"n", "logprobs"} & sent(provider, model, replace(ASK, n=1, logprobs=False)).keys() == sent_ones


@cases("base_path", "path")
def test_every_azure_endpoint_selects_one_of_its_two_apis(base_path: str, path: str) -> None:
    adapter = adapter_named("azure")
    wire = adapter.build_request(ASK, target(adapter, "my-gpt", base_path))
    assert (wire.path, dict(wire.query)) == (path, {"api-version": "2024-10-21"} if "deployments" in path else {})
    assert adapter.usual_base_path == "/openai/v1"


@pytest.mark.parametrize("effort", [None, "none", "high"])
def test_tools_switch_thinking_off_if_the_model_requires_it(effort: str | None) -> None:
    adapter = adapter_named("azure")
    facts = target(adapter, "gpt-5.6-luna").facts
    asked = replace(TOOLS, reasoning_effort=effort)
    assert sent("azure", "gpt-5.6-luna", asked)["reasoning_effort"] == "none"
    dropped = match_capabilities(requirements_of(asked), adapter.capabilities, facts).unsupported
    assert dropped == ({"reasoning_effort"} if effort == "high" else frozenset())
    assert sent("azure", "gpt-5.6-luna", replace(ASK, reasoning_effort="high"))["reasoning_effort"] == "high"
    assert "reasoning_effort" not in sent("azure", "my-gpt", TOOLS)


@pytest.mark.parametrize("provider", VENDORS)
def test_limit_has_one_field_and_stream_options_only_if_supported(provider: str) -> None:
    adapter = adapter_named(provider)
    requests = adapter.dialect.requests
    body = sent(provider, next(iter(adapter.models), "m"), replace(ASK, stream=True, max_tokens=64))
    assert {"max_tokens", "max_completion_tokens", requests.max_tokens} & body.keys() == {requests.max_tokens}
    assert ("stream_options" in body) is requests.stream_options
    assert body["stream"] is True


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["moonshot", "zhipu", "siliconflow", "minimax", "ark", "tokenhub", "huawei"])
def test_detail_of_a_refused_key_mentions_the_other_site(provider: str) -> None:
    adapter = adapter_named(provider)
    failure = adapter.classify_error(load_simulators().simulators[provider].write_error(FailureKind.CREDENTIALS, 401))
    assert failure.kind is FailureKind.CREDENTIALS
    assert failure.detail.startswith("this key may belong to another site (")
    assert all(site in failure.detail for site in adapter.sites)
    assert "site" not in failure.message, "the client must not see the operator's accounts"


def test_detail_of_a_refused_key_mentions_no_other_site_if_there_is_one() -> None:
    failure = adapter_named("deepseek").classify_error(response({"error": {"message": "no"}}, 401))
    assert failure.detail == "no"


def stream_events(provider: str, *chunks: object, model: str = "m", done: bool = True) -> list[Any]:
    return events_of(adapter_named(provider), *chunks, model=model, done=done)


def events_of(adapter: CompatibleAdapter, *chunks: object, model: str = "m", done: bool = True) -> list[Any]:
    parser = adapter.stream_parser(target(adapter, model))
    data = b"".join(b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n" for chunk in chunks)
    return [*parser.feed(data + (b"data: [DONE]\n\n" if done else b"")), *parser.close()]


@pytest.mark.parametrize("side", ["input_sensitive", "output_sensitive"])
def test_blocked_answer_without_choices_is_filtered(side: str) -> None:
    """A blocked request must not fail over, unlike a lost answer."""
    adapter = adapter_named("minimax")
    blocked = {"id": "x", "choices": None, side: True, f"{side}_type": 1, "base_resp": {"status_code": 0}}
    with pytest.raises(ProviderFailed) as raised:
        adapter.parse_response(response(blocked, 200), target(adapter, "m"))
    first, late = stream_events("minimax", blocked), stream_events("minimax", chunk("Hi"), blocked)
    assert raised.value.failure.kind is FailureKind.CONTENT_FILTER
    assert isinstance(first[-1], Failed)
    assert first[-1].failure.kind is FailureKind.CONTENT_FILTER
    assert fold(late).choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize("provider", ["tokenhub", "minimax", "vllm"])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking", "reasoning_details"])
def test_reasoning_is_read_under_each_name(provider: str, name: str) -> None:
    reasoning = {name: [{"text": "why"}] if name == "reasoning_details" else "why"}
    first = {"id": "r", "created": 7, "choices": [{"index": 0, "delta": reasoning, "finish_reason": None}]}
    choice = {"message": {"content": "Hi", **reasoning}, "index": 0, "finish_reason": "stop"}
    repeated = fold(stream_events(provider, first, chunk("Hi"), {"choices": [choice]}))
    assert (repeated.choices[0].message.reasoning, repeated.choices[0].message.content) == ("why", "Hi")


@pytest.mark.parametrize("thoughts", ["why", [{"text": "w"}, {"text": "hy"}], [{"type": "thought", "text": "why"}]])
def test_reasoning_is_read_in_a_member_that_the_file_names(thoughts: object) -> None:
    adapter = adapter_of('name = "acme"\n[dialect.answer]\nthoughts = ["ideas", "thoughts"]\n')
    message = {"role": "assistant", "content": "Hi", "thoughts": thoughts}
    whole = response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    answer = adapter.parse_response(whole, target(adapter, "m"))
    first = {"choices": [{"index": 0, "delta": {"thoughts": thoughts}}]}
    for read in (answer, fold(events_of(adapter, first, chunk("Hi"), chunk(None, "stop")))):
        assert (read.choices[0].message.reasoning, read.choices[0].message.content) == ("why", "Hi")


def chunk(text: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    return {
        "id": "r",
        "created": 7,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}],
    }


def test_text_is_relayed_in_runs_if_no_rule_reads_it() -> None:
    chunks = [chunk(f"word{number} ", flag=0) for number in range(20)]
    events = stream_events("qianfan", *chunks, chunk(None, "stop", flag=0))
    assert any(isinstance(event, TextRun) for event in events)
    assert fold(events).choices[0].message.content == "".join(f"word{number} " for number in range(20))
    inline = stream_events("minimax", *chunks, chunk(None, "stop"))
    assert not any(isinstance(event, TextRun) for event in inline)


def test_safety_flag_in_a_relayed_run_is_read() -> None:
    chunks = [chunk(f"word{number} ", flag=int(number == 12)) for number in range(20)]
    answer = fold(stream_events("qianfan", *chunks, chunk(None, "stop", flag=0)))
    assert answer.choices[0].finish_reason == "content_filter"
    assert str(answer.choices[0].message.content).endswith("word19 ")


def test_redefined_finish_reason_applies_to_whole_answers() -> None:
    adapter = adapter_of(ACME.replace("out_of_breath", "length"))
    body = chunk(None, "length", message={"role": "assistant", "content": "Half"})
    with pytest.raises(ProviderFailed) as failed:
        adapter.parse_response(WireResponse(200, {}, json.dumps(body).encode(), 0), target(adapter, "m"))
    assert failed.value.failure.kind is FailureKind.UNAVAILABLE


def test_usage_in_text_chunks_is_read_each_time() -> None:
    """The last counts apply, even if they equal earlier ones."""
    counts = [{"prompt_tokens": 1, "completion_tokens": count} for count in (1, 2)]
    chunks = [
        chunk("a", usage=counts[0]),
        chunk("b", usage=counts[1]),
        chunk("a", usage=counts[0]),
        chunk(None, "stop"),
    ]
    usage = fold(stream_events("moonshot", *chunks)).usage
    assert usage.completion_tokens == 1


def test_think_tags_are_text_for_vendors_without_them() -> None:
    """Edge case 37."""
    answer = fold(stream_events("qianfan", chunk("<think>abc</think>Hi"), chunk(None, "stop")))
    assert answer.choices[0].message.content == "<think>abc</think>Hi"


def test_unclosed_think_tag_is_reasoning() -> None:
    answer = fold(stream_events("minimax", chunk("<think>abc</th"), chunk(None, "length"), model="MiniMax-M3"))
    assert (answer.choices[0].message.reasoning, answer.choices[0].message.content) == ("abc</th", "")


@given(
    thought=st.text(alphabet="ab<>/thinkThink\n ", max_size=30).filter(lambda text: "</think>" not in text),
    text=st.text(alphabet="ab<>/think\n ", max_size=30),
    cuts=st.lists(st.integers(0, 90), max_size=12),
    at_once=st.booleans(),
    opened=st.booleans(),
)
def test_think_tags_are_found_in_any_pieces(
    thought: str, text: str, cuts: list[int], at_once: bool, opened: bool
) -> None:
    thought = thought if opened else f"a{thought}"
    complete_text = f"{'<think>' if opened or not at_once else ''}{thought}</think>{text}"
    places = sorted({0, len(complete_text), *(cut for cut in cuts if cut < len(complete_text))})
    tags, thoughts, text = ThinkTags(at_once), "", ""
    for start, end in pairwise(places):
        more = tags.split(complete_text[start:end], False)
        thoughts, text = thoughts + more[0], text + more[1]
    last = tags.split("", True)
    # A closing tag inside the reasoning ends it, as for any other reader.
    expected = complete_text.removeprefix("<think>").partition("</think>")
    assert thoughts + last[0] == expected[0]
    assert text + last[1] == expected[2].lstrip()


# --- rules of single vendors ----------------------------------------------------------------------

CALL = AssistantMessage(None, tool_calls=(ToolCall("call_1", "get_time", "{}"),))


def sent_turns(provider: str, model: str, *messages: Any) -> list[tuple[str, object]]:
    body = sent(provider, model, replace(TOOLS, messages=messages))
    return [(message["role"], message["content"]) for message in body["messages"]]


@pytest.mark.parametrize(("provider", "model"), STRICT)
def test_roles_alternate_if_the_vendor_requires_it(provider: str, model: str) -> None:
    turns = sent_turns(
        provider,
        model,
        SystemMessage("A"),
        UserMessage("one"),
        SystemMessage("B"),
        UserMessage("two"),
        AssistantMessage("x"),
        CALL,
        ToolMessage("call_1", "noon"),
        UserMessage("and?"),
        AssistantMessage(""),
        UserMessage("well?"),
    )
    assert turns == [
        ("system", "A"),
        ("user", "one\n\n[System message]\nB\n\ntwo"),
        ("assistant", "x"),
        ("tool", "noon"),
        ("assistant", "."),
        ("user", "and?\n\nwell?"),
    ]


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ((UserMessage("Do it."), CALL, ToolMessage("call_1", "")), [("user", "Do it."), ("tool", ".")]),
        ((UserMessage("Do it."), CALL, ToolMessage("call_1", " \n")), [("user", "Do it."), ("tool", ".")]),
        ((UserMessage(" "),), [("user", ".")]),
        ((UserMessage((TextPart(""),)),), [("user", ".")]),
        ((UserMessage(""), AssistantMessage("Yes?"), UserMessage("Hi")), [("user", "."), ("user", "Hi")]),
    ],
)
@pytest.mark.parametrize(("provider", "model"), STRICT)
def test_blank_messages_become_fillers(
    provider: str, model: str, messages: tuple[Message, ...], turns: list[tuple[str, str]]
) -> None:
    """Empty tool results are common. Qianfan refuses a blank last message, and other vendors an empty result."""
    assert [turn for turn in sent_turns(provider, model, *messages) if turn[0] != "assistant"] == turns


@pytest.mark.parametrize(("provider", "model"), [("moonshot", "kimi-k3"), ("zhipu", "glm-5.3")])
def test_empty_answer_in_the_history_is_omitted(provider: str, model: str) -> None:
    """Such an answer was truncated or filtered. Kimi and GLM refuse all later requests that contain it."""
    cut = (UserMessage("one"), AssistantMessage(""), AssistantMessage(None, reasoning="Hm."), UserMessage("two"))
    assert sent_turns(provider, model, SystemMessage(" "), *cut) == [("user", "one"), ("user", "two")]
    looped = (UserMessage(" "), CALL, ToolMessage("call_1", ""), AssistantMessage("Noon."), UserMessage("So?"))
    assert sent_turns(provider, model, *looped) == [
        ("user", "."),
        ("assistant", ""),
        ("tool", "."),
        ("assistant", "Noon."),
        ("user", "So?"),
    ]
    assert sent_turns(provider, model, SystemMessage("")) == [("user", ".")]
    adapter, blank = adapter_named(provider), {"role": "assistant", "content": ""}
    body = {"model": model, "messages": [{"role": "user", "content": "one"}, blank, {"role": "user", "content": "two"}]}
    objected = objections(body, adapter.dialect, model_facts(adapter.models, model), "/v1/chat/completions")
    refused = "the message at position 1 with role 'assistant' must not be empty"
    assert [*objected] == [refused], "the simulated vendor refuses it too"


def test_moved_system_messages_leave_no_last_assistant_message() -> None:
    ask = (UserMessage("One."), AssistantMessage("A."))
    turns = sent_turns("dashscope-compatible", "qwen-plus", *ask, SystemMessage("Go on."))
    assert turns == [("user", "One."), ("assistant", "A."), ("user", "[System message]\nGo on.")]
    assert sent_turns("dashscope-compatible", "qwen-plus", SystemMessage("Begin.")) == [
        ("system", "Begin."),
        ("user", "."),
    ]


def test_audio_has_the_vendors_format() -> None:
    """DashScope's compatible API requires a URI; OpenAI and vLLM require plain base64. Both refuse the other form (400)."""
    sound = replace(ASK, messages=(UserMessage((TextPart("What is it?"), AudioPart("aGk=", "wav"))),))
    for provider, model, data in (
        ("dashscope-compatible", "qwen3.8-omni-flash", "data:;base64,aGk="),
        ("vllm", "my-omni", "aGk="),
    ):
        (message,) = sent(provider, model, sound)["messages"]
        assert message["content"][1] == {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def test_n_above_the_limit_is_refused() -> None:
    assert sent("dashscope-compatible", "qwen-plus", replace(ASK, n=4))["n"] == 4
    for asked in (replace(ASK, n=5), replace(TOOLS, n=2)):
        with pytest.raises(UnsupportedFeature) as raised:
            sent("dashscope-compatible", "qwen-plus", asked)
        assert raised.value.feature == "n"


def test_compatible_mode_has_the_models_of_the_native_api() -> None:
    json = replace(ASK, messages=(UserMessage("json"),), response_format=JsonObjectFormat(), reasoning_effort="high")
    assert sent("dashscope-compatible", "qwen-plus", json)["enable_thinking"] is False
    assert sent("dashscope-compatible", "qwen3.7-plus", json)["enable_thinking"] is True
    for model in ("qwq-plus", "deepseek-r1", "qwen3.8-omni-flash"):
        body = sent("dashscope-compatible", model)
        assert body["stream"] is True, "it answers in streams alone"
        assert "enable_thinking" not in body


@cases("status", "message", "kind")
def test_status_decides_for_the_unspecific_code_of_siliconflow(status: int, message: str, kind: FailureKind) -> None:
    body = json.dumps({"code": 20012, "message": message, "data": None}).encode()
    failure = adapter_named("siliconflow").classify_error(WireResponse(status, {}, body, 0))
    assert (failure.kind, failure.code) == (kind, "20012")


@cases("status", "code", "kind")
def test_filter_code_overrides_status_500(status: int, code: str, kind: FailureKind) -> None:
    body = json.dumps({"error": {"code": code, "message": "m", "type": code}, "request_id": "r"}).encode()
    failure = adapter_named("dashscope-compatible").classify_error(WireResponse(status, {}, body, 0))
    assert (failure.kind, failure.status, failure.code) == (kind, status, code)


@pytest.mark.parametrize("provider", ["ark", "deepseek"])
def test_too_many_tools_are_refused(provider: str) -> None:
    adapter = adapter_named(provider)
    model = next(name for name, facts in adapter.models.items() if "tools" in facts.features)
    many = replace(ASK, tools=tuple(Tool(f"t{number}") for number in range(129)))
    assert len(sent(provider, model, replace(many, tools=many.tools[:128]))["tools"]) == 128
    with pytest.raises(UnsupportedFeature, match="at most 128 tools"):
        sent(provider, model, many)
    some = replace(many, tool_choice=AllowedTools("auto", ("t3", "t128")))
    assert [tool["function"]["name"] for tool in sent(provider, model, some)["tools"]] == ["t3", "t128"]
    body = sent(provider, model, ASK) | {
        "tools": [{"type": "function", "function": {"name": "t", "parameters": {}}}] * 129
    }
    facts = model_facts(adapter.models, model)
    assert "tools has more than 128 entries" in list(objections(body, adapter.dialect, facts, "/chat/completions"))


@pytest.mark.parametrize(("model", "takes"), [("seed-1-6-250915", True), ("seed-1-8-251228", False)])
def test_penalties_are_sent_to_ark_models_before_1_8(model: str, takes: bool) -> None:
    adapter = adapter_named("ark")
    for name in (model, f"doubao-{model}"):
        refused = model_facts(adapter.models, name).without
        assert {"presence_penalty", "frequency_penalty"}.isdisjoint(refused) is takes
        assert {"stop", "logit_bias"} <= refused


@pytest.mark.parametrize("body", [b'"Invalid token"', b"Invalid token", b"  Invalid token\n"])
def test_plain_text_error_is_kept_as_detail(body: bytes) -> None:
    failure = adapter_named("siliconflow").classify_error(WireResponse(401, {}, body, 0))
    assert failure.kind is FailureKind.CREDENTIALS
    assert failure.detail.endswith(": Invalid token")
    assert "token" not in failure.message


@pytest.mark.parametrize(
    ("body", "headers"), [(b"<html>x", {"content-type": "text/html"}), (b"<x/>", {}), (b'{"a', {})]
)
def test_binary_error_is_not_kept_as_detail(body: bytes, headers: dict[str, str]) -> None:
    failure = adapter_named("deepseek").classify_error(WireResponse(502, headers, body, 0))
    assert (failure.kind, failure.detail) == (FailureKind.UNAVAILABLE, "")


@pytest.mark.parametrize("base_path", ["", "/v1"])
def test_deepseeks_beta_path_replaces_the_version(base_path: str) -> None:
    adapter = adapter_named("deepseek")
    begun = replace(ASK, messages=(UserMessage("Tell."), AssistantMessage("Once")))
    at = target(adapter, "deepseek-v4-pro", base_path)
    assert adapter.build_request(begun, at).path == "/beta/chat/completions"
    assert adapter.build_request(ASK, at).path == f"{base_path}/chat/completions"


def test_forced_tool_is_sent_to_kimi_models_that_support_it() -> None:
    """Only k3 can be forced to call a tool while it thinks. Older models must not think then, and 2.7 always thinks."""
    forced = replace(TOOLS, tool_choice="required")
    assert sent("moonshot", "kimi-k2.6", forced)["thinking"] == {"type": "disabled"}
    assert "thinking" not in sent("moonshot", "kimi-k2.6", TOOLS)
    assert "thinking" not in sent("moonshot", "kimi-k3", forced)
    models = adapter_named("moonshot").models
    for model, able in (("kimi-k2.6", True), ("kimi-k2.7-code", False), ("kimi-k3", True)):
        assert ("tool_choice_required" in model_facts(models, model).features) is able


def test_glm_gets_kept_reasoning_back() -> None:
    """Between calls, GLM continues from its reasoning. A blank is not sent."""
    for thoughts in ("I know.", None):
        call = AssistantMessage(None, None, thoughts, (ToolCall("call_1", "get_time", "{}"),))
        body = sent(
            "zhipu", "glm-5.3", replace(TOOLS, messages=(UserMessage("?"), call, ToolMessage("call_1", "noon")))
        )
        assert body["messages"][1].get("reasoning_content") == thoughts


@pytest.mark.parametrize(("provider", "flag"), [("qianfan", {"flag": 2}), ("ark", {"moderation_hit_type": "violence"})])
@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([chunk("Half")], "Half"),
        ([chunk("Half"), {"error": {"code": "x", "message": "down", "type": "server_error"}}], "Half"),
        ([chunk(None)], ""),
    ],
)
def test_truncated_filtered_stream_is_filtered_not_interrupted(
    provider: str, flag: dict[str, Any], chunks: list[dict[str, Any]], expected: str
) -> None:
    """Edge case 67: an interrupted answer would be requested from, or continued by, the next provider."""
    flagged = {**chunks[0], "choices": [{**chunks[0]["choices"][0], **flag}]}
    answer = fold(stream_events(provider, flagged, *chunks[1:], done=False))
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (expected, "content_filter")


@pytest.mark.parametrize(("asked", "expected"), [(2**31 - 1, 65536), (65536, 65536), (9, 9)])
def test_max_tokens_is_limited_to_the_qwen_model(asked: int, expected: int) -> None:
    """Like the native API, the compatible API refuses more."""
    assert sent("dashscope-compatible", "qwen3-max", replace(ASK, max_tokens=asked))["max_tokens"] == expected
    assert sent("dashscope-compatible", "some-new-model", replace(ASK, max_tokens=asked))["max_tokens"] == asked


@pytest.mark.parametrize("name", sorted(adapter_named("openrouter").sites))
def test_openrouter_cannot_choose_another_vendor_and_no_client_can(name: str) -> None:
    """OpenRouter passes prompts on, so its routing moves data: it is pinned, and refused in a request."""
    adapter = adapter_named("openrouter")
    site = adapter.sites[name]
    routed = {"provider": {"order": ["elsewhere"], "allow_fallbacks": True}, "models": ["other/model"], "preset": "p"}
    assert set(requirements_of(replace(ASK, extra=routed)).moving) == set(routed)
    sent_to = Target("openai/gpt-6-luna", site.base_path, UNKNOWN_MODEL, pins=site.pins)
    body = json.loads(adapter.build_request(replace(ASK, extra=routed), sent_to).body)
    assert body["provider"] == site.pins["provider"]
    assert (body["provider"]["allow_fallbacks"], body["provider"]["data_collection"]) == (False, "deny")


SEALED = {
    "type": "reasoning.encrypted",
    "data": "c2ln",
    "id": "tool_0_get_time",
    "format": "google-gemini-v1",
    "index": 0,
}
SIGNED_CALL = {
    "index": 0,
    "id": "tool_0_get_time",
    "type": "function",
    "function": {"name": "get_time", "arguments": "{}"},
}


OPEN_CALL = {**SIGNED_CALL, "function": {"name": "get_time", "arguments": ""}}
SIGNED_TEXT = {
    "type": "reasoning.text",
    "text": "Hm, so.",
    "format": "anthropic-claude-v1",
    "index": 1,
    "signature": "c2k",
}
TEXT_PIECES = [
    {**SIGNED_TEXT, "text": "Hm", "signature": None},
    {**SIGNED_TEXT, "text": ", so.", "signature": None},
    {"type": "reasoning.text", "index": 1, "signature": "c2k"},
]
SIGNATURE = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def any_compatible(provider: str) -> Any:
    return COMPATIBLE if provider == COMPATIBLE.name else adapter_named(provider)


def answered_call(provider: str, *parts: dict[str, Any], stream: bool = True) -> ToolCall:
    """Return the call of an answer that is a message, or of a stream with these deltas, each in a read of its own."""
    adapter, where = any_compatible(provider), Target("m", "/v1", UNKNOWN_MODEL)
    name = "delta" if stream else "message"
    chunks = [{"id": "c", "choices": [{"index": 0, name: part, "finish_reason": None}]} for part in parts]
    if stream:
        chunks.append({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        parser = adapter.stream_parser(where)
        fed = [parser.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n") for chunk in chunks]
        answer = fold((*chain(*fed), *parser.close()))
    else:
        chunks[0]["choices"][0]["finish_reason"] = "tool_calls"  # type: ignore[index]
        answer = adapter.parse_response(WireResponse(200, {}, json.dumps(chunks[0]).encode(), 0), where)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.id, call.name, call.arguments) == ("tool_0_get_time", "get_time", "{}")
    return call


def sent_back(provider: str, call: ToolCall, model: str = "m") -> dict[str, Any]:
    """Return the message of the next request that has the call."""
    history = (UserMessage("When?"), AssistantMessage(None, tool_calls=(call,)), ToolMessage(call.id, "noon"))
    request = any_compatible(provider).build_request(
        replace(ASK, messages=history), Target(model, "/v1", UNKNOWN_MODEL)
    )
    message: dict[str, Any] = json.loads(request.body)["messages"][1]
    return message


def test_sealed_reasoning_that_cannot_be_written_is_left_out() -> None:
    assert pack_call([{**SEALED, "data": "\ud83d"}], {}, "a", "m") is None
    unsealed = [{"type": "reasoning.text", "text": "Hm."}, {"type": "reasoning.encrypted", "data": 1}]
    call = answered_call("openrouter", {"reasoning_details": unsealed}, {"tool_calls": [SIGNED_CALL]})
    assert call.signature is None


@pytest.mark.parametrize("provider", ["openai-compatible", "openrouter", "vllm"])
@pytest.mark.parametrize(
    ("parts", "details"),
    [
        ([{"tool_calls": [SIGNED_CALL], "reasoning_details": [SEALED, SIGNED_TEXT]}], [SEALED, SIGNED_TEXT]),
        ([{"reasoning_details": [SEALED]}, {"tool_calls": [SIGNED_CALL]}], [SEALED]),
        ([*({"reasoning_details": [one]} for one in TEXT_PIECES), {"tool_calls": [SIGNED_CALL]}], [SIGNED_TEXT]),
        ([{"tool_calls": [OPEN_CALL]}, {"reasoning_details": [SEALED]}], [SEALED]),
        ([{"tool_calls": [SIGNED_CALL]}, {"reasoning_details": [SEALED]}], [SEALED]),
        ([{"reasoning_details": [SEALED]}, {"tool_calls": [SIGNED_CALL]}, {"reasoning_details": [SEALED]}], [SEALED]),
    ],
    ids=["at once", "before", "in pieces", "after the name", "after the call", "repeated"],
)
def test_call_carries_the_sealed_reasoning_of_its_message(
    provider: str, parts: list[dict[str, Any]], details: list[dict[str, Any]]
) -> None:
    """Gemini refuses a call without its signature, and most clients keep only the call."""
    for stream in (True, False)[: 2 if len(parts) == 1 else 1]:
        call = answered_call(provider, *parts, stream=stream)
        message = sent_back(provider, call)
        assert message["reasoning_details"] == details
        assert "reasoning_details" not in sent_back(provider, call, "another")
        broken = replace(call, signature=f"{(call.signature or '').partition('.')[0]}.!")
        assert "reasoning_details" not in sent_back(provider, broken)


@pytest.mark.parametrize(
    ("pieces", "members"),
    [
        ([OPEN_CALL, {"index": 0, "function": {"arguments": "{}"}, **SIGNATURE}], SIGNATURE),
        ([SIGNED_CALL, {"index": 0, **SIGNATURE}], SIGNATURE),
        ([{**SIGNED_CALL, "a": "b"}, {"index": 0, **SIGNATURE}], {"a": "b", **SIGNATURE}),
        ([{**OPEN_CALL, "a": "b"}, {"index": 0, "function": {"arguments": "{}"}, "a": "b"}], {"a": "b"}),
    ],
    ids=["with arguments", "after the call", "two members", "repeated"],
)
def test_signature_in_a_later_piece_of_a_call_is_carried(pieces: list[dict[str, Any]], members: dict[str, Any]) -> None:
    call = answered_call("openai-compatible", *({"tool_calls": [piece]} for piece in pieces))
    plain = {name: value for name, value in SIGNED_CALL.items() if name != "index"}
    assert sent_back("openai-compatible", call)["tool_calls"] == [{**plain, **members}]
    assert sent_back("openai-compatible", call, "another")["tool_calls"] == [plain]


def test_call_that_the_client_has_gets_no_signature() -> None:
    """Its id would change. A sign of life after the call shows that no piece of it is near."""
    parser = COMPATIBLE.stream_parser(Target("m", "/v1", UNKNOWN_MODEL))
    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [SIGNED_CALL]}, "finish_reason": None}]}
    held = parser.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    released = parser.feed(b": alive\n\n")
    assert [type(event) for event in (*held, *released)] == [Opened, ToolCallDelta, Heartbeat]
    assert not any(isinstance(event, ToolCallDelta) for event in held)
    late = {**chunk, "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **SIGNATURE}]}}]}
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    rest = [event for one in (late, end) for event in parser.feed(b"data: " + json.dumps(one).encode() + b"\n\n")]
    (call,) = fold((*held, *released, *rest, *parser.close())).choices[0].message.tool_calls
    assert (call.arguments, call.signature) == ("{}", None)


def test_members_that_are_no_state_are_not_carried() -> None:
    plain = {"name": "get_time", "arguments": "{}", "status": "completed", "object": "tool", "empty": "", "nothing": {}}
    assert answered_call("openai-compatible", {"tool_calls": [{**SIGNED_CALL, **plain, "count": 3}]}).signature is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", ["openai-compatible", "openrouter", "vllm"])
@pytest.mark.parametrize("beside", [SIGNATURE, {"vendor": {"a": 1}}, {"thought_signature": "c2ln"}, {"seals": ["a"]}])
def test_members_next_to_the_function_of_a_call_return_to_the_model_that_sent_them(
    provider: str, beside: dict[str, object], stream: bool
) -> None:
    call = answered_call(provider, {"role": "assistant", "tool_calls": [{**SIGNED_CALL, **beside}]}, stream=stream)
    plain = {name: value for name, value in SIGNED_CALL.items() if name != "index"}
    for model, members in (("m", beside), ("another", {})):
        assert sent_back(provider, call, model)["tool_calls"] == [{**plain, **members}]
