"""Each field of OpenAI's chat request in each wire format: sent, dropped and named, or refused with a code.

From the client's JSON to the provider's, by the functions that traffic uses: decode, decide, build.
"""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

from gateway.api.errors import from_domain
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan, Refused
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.routing import decide
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.matching.capability_matching import with_supported_choice, without_parameters
from providers.matching.requirements import requirements_of
from providers.openai_json import decode_request
from tests.gateway.location_reports import reported
from tests.kit.configs import Config, table_of

COLUMNS = ("gpt-6", "gpt-4o", "gemini", "qwen", "qwen-thinks", "house")
# One column a territory, so that each is the only deployment that may answer.
PLACES = dict(zip(COLUMNS, ("US", "GB", "JP", "CN", "HK", "DE"), strict=True))
CONFIG = Config.parse("""
version: 1
assistants:
  assistant: {routes: {us: [gpt-6], gb: [gpt-4o], jp: [gemini], cn: [qwen], hk: [qwen-thinks], de: [house]}}
regions:
  us: {territories: [US], boundary: ["*"]}
  gb: {territories: [GB], boundary: ["*"]}
  jp: {territories: [JP], boundary: ["*"]}
  cn: {territories: [CN], boundary: [CN]}
  hk: {territories: [HK], boundary: ["*"]}
  de: {territories: [DE], boundary: [DE]}
deployments:
  gpt-6: {identity: pass, provider: openai, model: gpt-6-luna, endpoint: us, api_key: k}
  gpt-4o: {identity: pass, provider: openai, model: gpt-4o, accept_ended: true, endpoint: global, api_key: k}
  gemini: {identity: pass, provider: gemini, model: gemini-3.8-flash, api_key: k}
  qwen: {identity: pass, provider: dashscope, model: qwen3-max, endpoint: cn-beijing, api_key: k}
  qwen-thinks: {identity: pass, provider: dashscope, model: qwen3.7-plus, endpoint: intl, api_key: k, available: [HK]}
  house: {identity: pass, provider: openai-compatible, model: m, endpoint: "https://llm.example.de/v1", stores: DE, processes: DE}
location:
  signals: [edge_header]
  edges: [{from: [127.0.0.0/8], country: CF-IPCountry}]
""")


def table_with(deployment: dict[str, Any]) -> ConfigVersion:
    """Compile the config with these keys changed in every deployment."""
    return table_of(CONFIG.merge({"deployments": dict.fromkeys(CONFIG.data["deployments"], deployment)}), {})


TABLE = table_with({})
STRIPPING = table_with({"identity": "strip"})
STRICT = table_with({"identity": "strip", "unsupported": "refuse"})
REFUSING = table_with({"unsupported": "refuse"})


@dataclass(frozen=True)
class Sent:
    """The provider gets these values, by path; `...` means that nothing is there."""

    values: dict[str, Any]
    dropped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Refusal_:
    """The client gets a 400 with this code."""

    code: str
    param: str | None = None
    word: str = ""


def sent(dropped: str = "", **values: Any) -> Sent:
    return Sent({name.replace("__", "."): value for name, value in values.items()}, frozenset(dropped.split()))


def dropped(*names: str, absent: str = "") -> Sent:
    return Sent(dict.fromkeys(absent.split(), ...), frozenset(names))


def wrong(param: str) -> Refusal_:
    return Refusal_("invalid_request", param)


def cannot(word: str, param: str | None = None) -> Refusal_:
    return Refusal_("unsupported_capability", param, word)


PLAIN = sent()
Q: dict[str, Any] = {"role": "user", "content": "JSON, please"}
F: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
G: dict[str, Any] = {"type": "function", "function": {"name": "g"}}
G_WITH_SCHEMA: dict[str, Any] = {"type": "function", "function": F["function"] | {"name": "g"}}
CUSTOM: dict[str, Any] = {"type": "custom", "custom": {"name": "c"}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
JSON_SCHEMA: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
IMAGE = "data:image/png;base64,aGk="


def part(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, fields]}]}


def allowed(mode: str) -> dict[str, Any]:
    return {
        "type": "allowed_tools",
        "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": {"name": "f"}}]},
    }


Row = dict[str, Sent | Refusal_]
OPENAI, QWENS = ("gpt-6", "gpt-4o", "house"), ("qwen", "qwen-thinks")


def row(all_: Sent | Refusal_ | None = None, **columns: Sent | Refusal_) -> Row:
    """Return what each column expects: `all_`, except for the named ones (`openai`, `vendor`, `chat` and `qwens` are several)."""
    expected: Row = {} if all_ is None else dict.fromkeys(COLUMNS, all_)
    for name, value in columns.items():
        names = {"openai": OPENAI, "qwens": QWENS, "vendor": ("gpt-6", "gpt-4o"), "chat": ("gpt-4o", "house")}.get(
            name, (name.replace("_", "-"),)
        )
        expected.update(dict.fromkeys(names, value))
    assert expected.keys() == set(COLUMNS), columns
    return expected


CASES: dict[str, tuple[dict[str, Any], Row]] = {
    "n=1": ({"n": 1}, row(openai=sent(n=1), gemini=sent(generationConfig=...), qwens=sent(parameters__n=1))),
    "n=2": ({"n": 2}, row(cannot("does not support n", "n"), vendor=sent(n=2), qwens=sent(parameters__n=2))),
    "seed": (
        {"seed": 2**40 + 3},
        row(openai=sent(seed=2**40 + 3), gemini=sent(generationConfig__seed=3), qwens=sent(parameters__seed=2**31 - 1)),
    ),
    "max_tokens": (
        {"max_tokens": 50},
        row(
            vendor=sent(max_completion_tokens=50, max_tokens=...),
            house=sent(max_tokens=50, max_completion_tokens=...),
            gemini=sent(generationConfig__maxOutputTokens=50),
            qwens=sent(parameters__max_tokens=50),
        ),
    ),
    "max_completion_tokens": (
        {"max_completion_tokens": 50},
        row(
            vendor=sent(max_completion_tokens=50),
            house=sent(max_tokens=50),
            gemini=sent(generationConfig__maxOutputTokens=50),
            qwens=sent(parameters__max_tokens=50),
        ),
    ),
    "both maxima": ({"max_tokens": 5, "max_completion_tokens": 6}, row(wrong("max_tokens"))),
    "temperature": (
        {"temperature": 2.0},
        row(
            dropped("temperature", absent="temperature generationConfig"),
            chat=sent(temperature=2.0),
            qwens=sent(parameters__temperature=1.99),
        ),
    ),
    "top_p": ({"top_p": 0.0}, row(dropped("top_p"), chat=sent(top_p=0.0), qwens=sent(parameters__top_p=0.01))),
    "presence_penalty": (
        {"presence_penalty": 0.5},
        row(dropped("presence_penalty"), chat=sent(presence_penalty=0.5), qwens=sent(parameters__presence_penalty=0.5)),
    ),
    "frequency_penalty": (
        {"frequency_penalty": 0.5},
        row(dropped("frequency_penalty", absent="parameters.frequency_penalty"), chat=sent(frequency_penalty=0.5)),
    ),
    "logit_bias": (
        {"logit_bias": {"7": 5}},
        row(
            dropped("logit_bias", absent="logit_bias parameters.logit_bias generationConfig"),
            chat=sent(logit_bias={"7": 5}),
        ),
    ),
    "stop": (
        {"stop": ["A", "B"]},
        row(
            openai=sent(stop=["A", "B"]),
            gemini=sent(generationConfig__stopSequences=["A", "B"]),
            qwens=sent(parameters__stop=["A", "B"]),
        ),
    ),
    "logprobs": (
        {"logprobs": True, "top_logprobs": 2},
        row(
            cannot("logprobs", "logprobs"),
            gpt_4o=sent(logprobs=True, top_logprobs=2),
            qwens=sent(parameters__logprobs=True, parameters__top_logprobs=2),
        ),
    ),
    "top_logprobs alone": ({"top_logprobs": 2}, row(wrong("top_logprobs"))),
    "stream_options without stream": ({"stream_options": {"include_usage": True}}, row(wrong("stream_options"))),
    "include_obfuscation": (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        row(dropped("stream_options.include_obfuscation")),
    ),
    "no obfuscation": ({"stream": True, "stream_options": {"include_obfuscation": False}}, row(PLAIN)),
    "reasoning_effort": (
        {"reasoning_effort": "high"},
        row(
            dropped("reasoning_effort", absent="reasoning_effort parameters.enable_thinking"),
            gpt_6=sent(reasoning_effort="high"),
            gemini=sent(generationConfig__thinkingConfig={"thinkingLevel": "HIGH", "includeThoughts": True}),
            qwen_thinks=sent(parameters__enable_thinking=True, parameters__thinking_budget=24576),
        ),
    ),
    "reasoning_effort beside tools": (
        {"reasoning_effort": "high", "tools": [F]},
        row(
            dropped("reasoning_effort"),
            gpt_6=sent(reasoning={"effort": "high"}, store=False, include=["reasoning.encrypted_content"]),
            gemini=sent(generationConfig__thinkingConfig__thinkingLevel="HIGH"),
            qwen_thinks=sent(parameters__enable_thinking=True),
        ),
    ),
    "effort none beside tools": (
        {"reasoning_effort": "none", "tools": [F], "stop": "x"},
        row(
            dropped("reasoning_effort"),
            gpt_6=sent(reasoning_effort="none", tools=[F], stop=["x"], input=...),
            gemini=PLAIN,
            qwen_thinks=sent(parameters__enable_thinking=False),
        ),
    ),
    "what the Responses API has no field for": (
        {"tools": [F], "stop": "x", "seed": 7},
        row(
            openai=sent(stop=["x"], seed=7),
            gpt_6=dropped("stop", "seed", absent="stop seed messages"),
            gemini=PLAIN,
            qwens=PLAIN,
        ),
    ),
    "n=2 beside tools": (
        {"tools": [F], "n": 2},
        row(
            cannot("does not support n", "n"),
            gpt_4o=sent(n=2),
            qwens=cannot("returns only one choice if the request has tools"),
        ),
    ),
    "reasoning_content comes back": (
        {"messages": [Q, {"role": "assistant", "content": "a", "reasoning_content": "hm"}, Q]},
        row(
            openai=sent("reasoning_content", messages__1={"role": "assistant", "content": "a"}),
            house=sent(messages__1={"role": "assistant", "content": "a", "reasoning_content": "hm"}),
            gemini=sent("reasoning_content", contents__1__parts=[{"text": "a"}]),
            qwens=sent("reasoning_content"),
        ),
    ),
    "tools": (
        {"tools": [F, G], "parallel_tool_calls": False},
        row(
            openai=sent(tools=[F, G], parallel_tool_calls=False),
            house=sent(tools=[F, G_WITH_SCHEMA], parallel_tool_calls=False),
            gpt_6=sent(tools__1__name="g", tools__1__strict=False, parallel_tool_calls=False, tools__1__function=...),
            gemini=sent("parallel_tool_calls", tools__0__functionDeclarations__1={"name": "g"}),
            qwens=sent(parameters__tools__0=F, parameters__parallel_tool_calls=False),
        ),
    ),
    "parallel_tool_calls without tools": (
        {"parallel_tool_calls": True},
        row(openai=sent(parallel_tool_calls=...), gemini=PLAIN, qwens=PLAIN),
    ),
    "strict tools": (
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        row(dropped("strict_tools"), chat=sent(tools__0__function__strict=True), gpt_6=sent(tools__0__strict=True)),
    ),
    "custom tool": ({"tools": [F, CUSTOM]}, row(cannot("custom tool", "tools[1].type"))),
    "hosted tool": ({"tools": [{"type": "web_search"}]}, row(wrong("tools[0].type"))),
    "tool_choice none": (
        {"tools": [F], "tool_choice": "none"},
        row(
            openai=sent(tool_choice="none"),
            gemini=sent(toolConfig__functionCallingConfig={"mode": "NONE"}),
            qwens=sent(parameters__tool_choice="none"),
        ),
    ),
    "tool_choice auto": (
        {"tools": [F], "tool_choice": "auto"},
        row(
            openai=sent(tool_choice="auto"),
            gemini=sent(toolConfig__functionCallingConfig={"mode": "AUTO"}),
            qwens=sent(parameters__tool_choice="auto"),
        ),
    ),
    "tool_choice required": (
        {"tools": [F, G], "tool_choice": "required"},
        row(
            vendor=sent(tool_choice="required"),
            house=cannot("tool_choice_required", "tool_choice"),
            gemini=sent(toolConfig__functionCallingConfig={"mode": "ANY"}),
            qwens=cannot("tool_choice_required", "tool_choice"),
        ),
    ),
    "tool_choice required of the only tool": (
        {"tools": [F], "tool_choice": "required"},
        row(
            vendor=sent(tool_choice="required"),
            house=cannot("tool_choice_required", "tool_choice"),
            gemini=sent(toolConfig__functionCallingConfig={"mode": "ANY"}),
            qwen=sent(parameters__tool_choice={"type": "function", "function": {"name": "f"}}),
            qwen_thinks=sent(
                parameters__tool_choice={"type": "function", "function": {"name": "f"}},
                parameters__enable_thinking=False,
            ),
        ),
    ),
    "tool_choice function": (
        {"tools": [F, G], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        row(
            vendor=sent(tool_choice={"type": "function", "function": {"name": "f"}}),
            gpt_6=sent(tool_choice={"type": "function", "name": "f"}),
            house=cannot("tool_choice_named", "tool_choice"),
            gemini=sent(toolConfig__functionCallingConfig={"mode": "ANY", "allowedFunctionNames": ["f"]}),
            qwen=sent(parameters__tool_choice={"type": "function", "function": {"name": "f"}}),
            qwen_thinks=sent(
                parameters__tool_choice={"type": "function", "function": {"name": "f"}},
                parameters__enable_thinking=False,
            ),
        ),
    ),
    "tool_choice allowed_tools": (
        {"tools": [F, G], "tool_choice": allowed("auto")},
        row(
            openai=sent(tool_choice=allowed("auto")),
            gpt_6=sent(
                tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
            ),
            gemini=sent(toolConfig__functionCallingConfig={"mode": "VALIDATED", "allowedFunctionNames": ["f"]}),
            qwens=sent(parameters__tools=[F], parameters__tool_choice="auto"),
            house=sent(tools=[F], tool_choice="auto"),
        ),
    ),
    "tool_choice custom": (
        {"tools": [F], "tool_choice": {"type": "custom", "custom": {"name": "c"}}},
        row(cannot("custom tool", "tool_choice.type")),
    ),
    "tool_choice of no tool": ({"tools": [F], "tool_choice": G}, row(wrong("tool_choice.function.name"))),
    "tool_choice without tools": ({"tool_choice": "required"}, row(wrong("tool_choice"))),
    "custom call in the history": (
        {
            "messages": [
                Q,
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "c", "input": ""}}],
                },
            ]
        },
        row(cannot("custom tool", "messages[1].tool_calls[0].type")),
    ),
    "response_format text": (
        {"response_format": {"type": "text"}},
        row(openai=sent(response_format=...), gemini=sent(generationConfig=...), qwens=PLAIN),
    ),
    "response_format json_object": (
        {"response_format": {"type": "json_object"}},
        row(
            vendor=sent(response_format={"type": "json_object"}),
            house=cannot("json_object", "response_format"),
            gemini=sent(generationConfig={"responseMimeType": "application/json"}),
            qwens=sent(parameters__response_format={"type": "json_object"}),
        ),
    ),
    "response_format json_schema": (
        {"response_format": JSON_SCHEMA},
        row(
            vendor=sent(response_format=JSON_SCHEMA),
            house=cannot("json_schema", "response_format"),
            gemini=sent(generationConfig__responseJsonSchema=SCHEMA),
            qwens=sent(parameters__response_format=JSON_SCHEMA),
        ),
    ),
    "image in the request": (
        part(type="image_url", image_url={"url": IMAGE}),
        row(
            vendor=sent(messages__0__content__1={"type": "image_url", "image_url": {"url": IMAGE}}),
            house=cannot("vision", "messages"),
            gemini=sent(contents__0__parts__1={"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
            qwen=cannot("vision", "messages"),
            qwen_thinks=sent(input__messages__0__content__1={"image": IMAGE}),
        ),
    ),
    "image by URL": (
        part(type="image_url", image_url={"url": "https://example.com/a.png"}),
        row(
            vendor=sent(messages__0__content__1__image_url__url="https://example.com/a.png"),
            house=cannot("image_url", "messages"),
            gemini=sent(
                contents__0__parts__1={"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png"}}
            ),
            qwen=cannot("image_url", "messages"),
            qwen_thinks=sent(input__messages__0__content__1={"image": "https://example.com/a.png"}),
        ),
    ),
    "image inside a network": (
        part(type="image_url", image_url={"url": "http://169.254.169.254/latest"}),
        row(wrong("messages[0].content[1].image_url.url")),
    ),
    "detail of an image": (
        part(type="image_url", image_url={"url": IMAGE, "detail": "low"}),
        row(
            vendor=sent(messages__0__content__1__image_url__detail="low"),
            house=cannot("vision", "messages"),
            gemini=dropped("image_detail"),
            qwen=cannot("vision", "messages"),
            qwen_thinks=dropped("image_detail"),
        ),
    ),
    "audio": (
        part(type="input_audio", input_audio={"data": "aGk=", "format": "wav"}),
        row(
            cannot("audio", "messages"),
            gemini=sent(contents__0__parts__1={"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}),
        ),
    ),
    "file": (
        part(type="file", file={"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}),
        row(
            cannot("file", "messages"),
            vendor=sent(messages__0__content__1__file__filename="a.pdf"),
            gemini=sent(contents__0__parts__1__inlineData__mimeType="application/pdf"),
        ),
    ),
    "file that is kept somewhere": (
        part(type="file", file={"file_id": "file-1"}),
        row(wrong("messages[0].content[1].file.file_id")),
    ),
    "breakpoint in a part": (
        part(type="text", text="b", prompt_cache_breakpoint={"mode": "explicit", "ttl": "12h"}),
        row(
            dropped("messages.content.prompt_cache_breakpoint.ttl", "cache_control"),
            gpt_6=dropped("messages.content.prompt_cache_breakpoint.ttl"),
        ),
    ),
    "prediction": (
        {"prediction": {"type": "content", "content": "a"}},
        row(
            dropped("prediction", absent="prediction parameters.prediction"),
            gpt_4o=sent(prediction={"type": "content", "content": "a"}),
        ),
    ),
    "modalities text": ({"modalities": ["text"]}, row(sent(modalities=..., parameters__modalities=...))),
    "modalities audio": (
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
        row(cannot("answers are text", "modalities[1]")),
    ),
    "audio without modalities": ({"audio": {"voice": "alloy", "format": "wav"}}, row(dropped("audio", absent="audio"))),
    "audio in the history": (
        {"messages": [Q, {"role": "assistant", "audio": {"id": "audio_1"}}, Q]},
        row(wrong("messages[1].audio")),
    ),
    "web_search_options": (
        {"web_search_options": {}},
        row(cannot("sends what is asked to a search service", "web_search_options")),
    ),
    "store": ({"store": True}, row(cannot("keeps the conversation at the provider", "store"))),
    "store: false": (
        {"store": False},
        row(vendor=sent(store=False), house=sent(store=...), gemini=sent(store=...), qwens=sent(parameters__store=...)),
    ),
    "metadata": ({"metadata": {"a": "b"}}, row(dropped("metadata", absent="metadata parameters.metadata"))),
    "moderation": (
        {"moderation": {"model": "omni-moderation-latest"}},
        row(cannot("sends what is asked to a moderation service", "moderation")),
    ),
    "prompt_cache_options": (
        {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}},
        row(dropped("prompt_cache_options.mode", absent="prompt_cache_options parameters.prompt_cache_options")),
    ),
    "prompt_cache_retention": (
        {"prompt_cache_retention": "24h"},
        row(cannot("how long the provider keeps", "prompt_cache_retention")),
    ),
    "prompt_cache_key": (
        {"prompt_cache_key": "k"},
        row(dropped("prompt_cache_key"), vendor=sent(prompt_cache_key="k")),
    ),
    "safety_identifier": (
        {"safety_identifier": "u"},
        row(dropped("safety_identifier"), vendor=sent(safety_identifier="u")),
    ),
    "user": ({"user": "u"}, row(dropped("user"), openai=sent(user="u"))),
    "service_tier": ({"service_tier": "flex"}, row(dropped("service_tier"), vendor=sent(service_tier="flex"))),
    "verbosity": ({"verbosity": "low"}, row(dropped("verbosity"), gpt_6=sent(verbosity="low"))),
    "functions": ({"functions": [{"name": "f"}]}, row(wrong("functions"))),
    "function_call": ({"function_call": "auto"}, row(wrong("function_call"))),
    "role function": (
        {"messages": [Q, {"role": "function", "name": "f", "content": "a"}]},
        row(wrong("messages[1].role")),
    ),
    "function_call in the history": (
        {"messages": [Q, {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}]},
        row(wrong("messages[1].function_call")),
    ),
    "developer": (
        {"messages": [{"role": "developer", "content": "Be brief."}, Q]},
        row(
            vendor=sent(messages__0={"role": "developer", "content": "Be brief."}),
            house=sent(messages__0={"role": "system", "content": "Be brief."}),
            gemini=sent(systemInstruction={"parts": [{"text": "Be brief."}]}),
            qwen=sent(input__messages__0={"role": "system", "content": "Be brief."}),
            qwen_thinks=sent(input__messages__0={"role": "system", "content": [{"text": "Be brief."}]}),
        ),
    ),
    "name": ({"messages": [Q | {"name": "ann"}]}, row(dropped("message_name"), openai=sent(messages__0__name="ann"))),
    "refusal": (
        {"messages": [Q, {"role": "assistant", "refusal": "No."}, Q]},
        row(
            vendor=sent(messages__1={"role": "assistant", "content": "", "refusal": "No."}),
            house=sent(messages__1={"role": "assistant", "content": "No."}),
            gemini=sent(contents__1={"role": "model", "parts": [{"text": "No."}]}),
            qwen=sent(input__messages__1={"role": "assistant", "content": "No."}),
            qwen_thinks=sent(input__messages__1={"role": "assistant", "content": [{"text": "No."}]}),
        ),
    ),
    "a field of nobody's": ({"sparkle": 1}, row(dropped("sparkle", absent="sparkle parameters.sparkle"))),
    "another vendor's field": (
        {"top_k": 5},
        row(dropped("top_k"), gemini=dropped("top_k"), qwens=sent(parameters__top_k=5)),
    ),
    "fields that choose who answers": (
        {"models": ["a"], "provider": {"order": ["b"]}},
        row(cannot("`models` chooses who answers; `provider` chooses who answers")),
    ),
    "null is absent": (
        dict.fromkeys(
            "n seed stop tools tool_choice response_format store audio modalities functions function_call user stream "
            "stream_options logit_bias web_search_options sparkle".split()
        ),
        row(PLAIN),
    ),
}


def asked(
    table: ConfigVersion, column: str, fields: dict[str, Any]
) -> tuple[Any, frozenset[str]] | tuple[str, str | None, str]:
    """The provider's body and what was dropped, or the code, param and message of the refusal."""
    try:
        request = decode_request({"model": "assistant", "messages": [Q], **fields})
        location = resolve(table, None, reported(EdgeReport((PLACES[column],))))
        decision = decide(table, table.assistants["assistant"], location, requirements_of(request), {}, 0.0)
        if not isinstance(decision.outcome, Plan):
            raise Refused(decision.outcome)
        [step] = decision.outcome.steps
        deployment = step.deployment
        fitted = with_supported_choice(without_parameters(request, step.dropped), deployment.capabilities)
        wire = deployment.adapter.build_request(fitted, deployment.target)
        return json.loads(wire.body), step.dropped
    except (InvalidRequest, UnsupportedFeature, Refused) as error:
        shown = from_domain(error, [])
        assert shown.status == 400
        return shown.code, shown.param, shown.message


def at(value: Any, path: str) -> Any:
    for step in path.split("."):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError):
            return ...
    return value


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("fields", "expected"), CASES.values(), ids=CASES.keys())
def test_each_field_is_sent_or_named_or_refused(fields: dict[str, Any], expected: Row, column: str) -> None:
    outcome, wanted = asked(TABLE, column, fields), expected[column]
    if isinstance(wanted, Refusal_):
        assert len(outcome) == 3, outcome
        assert outcome[:2] == (wanted.code, wanted.param), outcome
        assert wanted.word in outcome[2]
        if wanted.param:
            assert wanted.param.removesuffix(".type") in outcome[2]
    else:
        assert len(outcome) == 2, outcome
        body, dropped = outcome
        assert dropped == wanted.dropped
        assert {path: at(body, path) for path in wanted.values} == wanted.values


DROPPED = [
    (name, column, wanted.dropped)
    for name, (_, expected) in CASES.items()
    for column, wanted in expected.items()
    if isinstance(wanted, Sent) and wanted.dropped
]


@pytest.mark.parametrize(
    ("name", "column", "dropped"), DROPPED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_unsupported_refuse_rejects_a_field_that_would_be_dropped(
    name: str, column: str, dropped: frozenset[str]
) -> None:
    outcome = asked(REFUSING, column, CASES[name][0])
    assert len(outcome) == 3, outcome
    assert outcome[0] == "unsupported_capability"
    names = ", ".join(f"`{field}`" for field in sorted(dropped))
    assert f"{column}: does not support {names}, and is set to refuse" in outcome[2]


WHO = {"user": "anna", "safety_identifier": "anna", "prompt_cache_key": "anna", "metadata": {"person": "anna"}}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("table", [STRIPPING, STRICT], ids=["drop", "refuse"])
def test_end_user_fields_reach_no_provider_and_are_not_refused(table: ConfigVersion, column: str) -> None:
    for fields in ({name: value} for name, value in WHO.items()):
        [name] = fields
        outcome = asked(table, column, fields)
        if table is STRICT and name not in table.deployments[column].capabilities.parameters:
            assert outcome[0] == "unsupported_capability"
            continue
        body, dropped = outcome[0], outcome[1]
        assert dropped == {name}
        assert "anna" not in json.dumps(body)


def test_the_table_has_every_field_that_the_sdk_sends() -> None:
    fields = typing.get_type_hints(CompletionCreateParamsNonStreaming)
    tested = {name for body, _ in CASES.values() for name in body}
    assert fields.keys() - tested - {"model"} == set()
