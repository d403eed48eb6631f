"""The text that a recipient gets, and the one that a client gets back, over HTTP: in each dialect, whole and streamed, and in each role."""

import asyncio
import base64
import hashlib
import itertools
import json
import random
import re
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from gateway.changes.plan import plan_of
from gateway.cli import main
from gateway.config.check_report import render_matrix
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected
from gateway.execution.upstream_client import characters_of
from gateway.features.redaction.policy import finding, placeholders
from gateway.features.redaction.policy.requests import NOTICE
from gateway.policy.reasoning_seal import seal_of
from gateway.telemetry.metric_snapshots import tallies
from providers.chat import AssistantMessage, ChatRequest, JsonSchemaFormat, Tool, UserMessage
from providers.testkit import IncomingRequest, PrefixCache
from providers.value import replace
from tests.gateway.api.simple_requests import CHATS, chunks, completion, sent_chunks, streamed, verdicts_on
from tests.kit.case_files import cases
from tests.kit.configs import Config, table_of
from tests.kit.doc_pages import ROOT
from tests.kit.input_gateway import CONFIG, EMBEDDINGS, JUDGED, MODERATIONS, REDACTED, InputGateway, vectors_of

MAIL, PHONE, CARD = "jane.doe@example.com", "+49 171 1234567", "4111 1111 1111 1111"
VALUES = (MAIL, PHONE, CARD)
PROMPT = f"Write to {MAIL}, call {PHONE} and pay with {CARD}. Again: {MAIL}"
SENT = "Write to QEMAIL1Z, call QPHONE1Z and pay with QCARD1Z. Again: QEMAIL1Z"


def asked_in(body: dict[str, Any]) -> str:
    """Return the last text of a request to a provider."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def stream_of(*deltas: dict[str, Any]) -> httpx.Response:
    return sent_chunks(chunks(*deltas))


def broken_off(*texts: str) -> httpx.Response:
    """Return a stream of these texts without an end."""
    return sent_chunks(chunks(*({"content": text} for text in texts))[:-1], ends=False)


def whole(message: dict[str, Any], finish: str = "stop") -> httpx.Response:
    usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    return httpx.Response(200, json=completion(message, finish, usage=usage))


def echo(request: httpx.Request) -> httpx.Response:
    """Answer with the last text of the request, in a stream cut at random."""
    body = json.loads(request.content)
    text = asked_in(body)
    if not body.get("stream"):
        return whole({"content": text})
    cut = random.Random(len(text))
    pieces = []
    while text:
        size = cut.randrange(1, 5)
        pieces.append(text[:size])
        text = text[size:]
    return stream_of(*({"content": piece} for piece in pieces))


def asking(name: str, text: str) -> tuple[str, Any]:
    path, body = CHATS[name]
    return path, json.loads(json.dumps(body).replace('"hello"', json.dumps(text)).replace('"a"', json.dumps(text)))


def ask(gateway: InputGateway, text: str, name: str = "chat", **more: Any) -> httpx.Response:
    """Send a request with this text, and with these members."""
    path, body = asking(name, text)
    return gateway.post(path, {**body, **more})


def text_of(answer: httpx.Response) -> str:
    """Return all texts of an answer or of a stream's pieces, whatever the dialect is."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.text
    found: list[str] = []
    done = ("message_stop", "response.output_text.done", "response.content_part.done", "response.output_item.done")
    for line in answer.text.splitlines():
        if line.startswith("data: {"):
            event = json.loads(line[6:])
            if event.get("type") not in (*done, "response.completed"):
                _collect(event, found)
    return "".join(found)


def _collect(value: Any, found: list[str]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if name in ("content", "text", "delta") and isinstance(item, str):
                found.append(item)
            else:
                _collect(item, found)
    elif isinstance(value, list):
        for item in value:
            _collect(item, found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CHATS)
def test_a_recipient_gets_placeholders_and_the_client_its_values(name: str, stream: bool) -> None:
    gateway = InputGateway(echo, REDACTED)
    path, body = asking(name, PROMPT)
    if stream:
        path, body = streamed(path, body)
    answer = gateway.post(path, body)
    assert answer.status_code == 200
    assert answer.headers["x-gateway-redacted"] == "card=1, email=1, phone=1"
    (sent,) = gateway.bodies
    assert asked_in(sent) == SENT
    assert [message["content"] for message in sent["messages"] if message["role"] == "system"] == [NOTICE]
    assert not any(value in gateway.requests[0].content.decode() for value in VALUES)
    assert PROMPT in text_of(answer)


@pytest.mark.parametrize("stream", [False, True])
def test_label_mark_and_offsets_of_annotations_are_those_of_the_restored_text(stream: bool) -> None:
    vectors = json.loads((ROOT / "tests/fixtures/marks/vectors.json").read_text("utf-8"))
    label = {"name": "house", "text": {"en": "I am an AI."}, "show": "first_turn", "mark": "signed"}
    patch = {"marks": {"issuer": vectors["issuer"], "key": "${MARK_KEY}"}, "regions": {"default": {"labels": [label]}}}
    citation = {"start_index": 4, "end_index": 12, "title": "QEMAIL1Z", "url": "https://x.example"}
    annotations = [{"type": "url_citation", "url_citation": citation}]
    pieces = [{"content": "See QEM"}, {"content": "AIL1Z."}, {"annotations": annotations}]
    answer = stream_of(*pieces) if stream else whole({"content": "See QEMAIL1Z.", "annotations": annotations})
    served = InputGateway(lambda _: answer, REDACTED.merge(patch), {"MARK_KEY": vectors["private_key"]})
    response = ask(served, MAIL, stream=stream)
    events = [json.loads(it[6:]) for it in response.text.splitlines() if it.startswith("data: {")]
    messages = [one["choices"][0].get("delta") or one["choices"][0].get("message") or {} for one in events]
    last = events[-1] if stream else response.json()
    messages = messages if stream else [last["choices"][0]["message"]]
    text = "".join(it.get("content") or "" for it in messages)
    (shown,) = [note["url_citation"] for it in messages for note in it.get("annotations", ())]
    assert (text, text[shown["start_index"] : shown["end_index"]]) == (f"I am an AI.\n\nSee {MAIL}.", MAIL)
    claims = last["x_gateway"]["labels"][0]["marks"][0].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert claims["sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_without_a_value_is_sent_and_answered_as_without_the_feature(stream: bool) -> None:
    sent = []
    for config in (CONFIG, REDACTED):
        gateway = InputGateway(echo, config)
        answer = ask(gateway, "Nothing of anyone.", stream=stream)
        assert "x-gateway-redacted" not in answer.headers
        sent.append(gateway.requests[0].content)
    assert sent[0] == sent[1]


def test_the_members_of_each_kind_of_message_have_placeholders_and_numbers_in_order() -> None:
    """Tools first, then messages, then stop: one numbering, and equal values are one placeholder."""
    gateway = InputGateway(echo, REDACTED)
    tool = {"name": "look_up", "description": "Ask b@x.org", "parameters": {
        "type": "object", "description": "of c@x.org", "properties": {
            "mail": {"type": "string", "format": "email", "pattern": "@", "enum": ["d@x.org"]},
            "format": {"type": "string", "minLength": 1}}}}  # fmt: skip
    arguments = '{"mail": "b@x.org",  "card": 4111111111111111, "b@x.org": "\\u00e9 e@x.org"}'
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    answer = gateway.post("/v1/chat/completions", {
        "model": "assistant", "stop": ["g@x.org"], "tools": [{"type": "function", "function": tool}],
        "messages": [
            {"role": "system", "content": "I am a@x.org"},
            {"role": "user", "content": [{"type": "text", "text": "f@x"}, {"type": "text", "text": ".org, "}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "b@x.org and h@x.org"},
        ],
    })  # fmt: skip
    assert answer.status_code == 200, answer.text
    (sent,) = gateway.bodies
    function = sent["tools"][0]["function"]
    assert function["description"] == "Ask QEMAIL1Z"
    assert function["parameters"]["description"] == "of QEMAIL2Z"
    mail = {"type": "string", "enum": ["QEMAIL3Z"]}
    assert function["parameters"]["properties"] == {"mail": mail, "format": {"type": "string"}}
    assert answer.headers["x-gateway-dropped"].split(", ") == ["format", "minLength", "pattern"]
    system, user, assistant, result = sent["messages"]
    assert system["content"] == f"I am QEMAIL4Z\n\n{NOTICE}"
    assert [part["text"] for part in user["content"]] == ["QEMAIL5Z", ", "]
    arguments = assistant["tool_calls"][0]["function"]["arguments"]
    assert arguments == '{"mail": "QEMAIL1Z",  "card": "QCARD1Z", "b@x.org": "\\u00e9 QEMAIL6Z"}'
    assert result["content"] == "QEMAIL1Z and QEMAIL7Z"
    assert sent["stop"] == ["QEMAIL8Z"]


SCHEMA = {"type": "object", "title": "-", "properties": {"a": {"type": "string", "example": "-", "x-note": {"b": ["-"]},
          "pattern": "-", "format": "-"}}, "$comment": "-", "$id": "-", "examples": [{"required": ["-"]}]}  # fmt: skip
CLAUSE = {"type": "function", "function": {"name": "look_up", "description": "-", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"a": "-"}'}}
WHOLE: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [
            {"role": "system", "content": "-", "name": "-"}, {"role": "user", "content": [{"type": "text", "text": "-"}]},
            {"role": "assistant", "content": "-", "refusal": "-", "reasoning_content": "-", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "-"}, {"role": "user", "content": "-", "name": "-"}],
        "tools": [CLAUSE], "stop": ["-"], "user": "-", "metadata": {"a": "-"}, "prediction": {"type": "content", "content": "-"},
        "response_format": {"type": "json_schema", "json_schema": {"name": "pay_4111111111111111", "description": "-", "schema": SCHEMA}}},
    "completions": {"prompt": "-", "stop": "-", "user": "-"},
    "responses": {
        "instructions": "-", "user": "-", "metadata": {"a": "-"},
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "-"}]},
                  {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": '{"a": "-"}'},
                  {"type": "function_call_output", "call_id": "c1", "output": "-"}],
        "tools": [{"type": "function", "name": "look_up", "description": "-", "parameters": SCHEMA}],
        "text": {"format": {"type": "json_schema", "name": "pay_4111111111111111", "description": "-", "schema": SCHEMA}}},
    "messages": {
        "system": [{"type": "text", "text": "-"}], "stop_sequences": ["-"], "metadata": {"user_id": "-"},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "-"}]},
                     {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look_up", "input": {"a": "-"}}]},
                     {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "-"}]}],
        "tools": [{"name": "look_up", "description": "-", "input_schema": SCHEMA}]},
    "gemini": {
        "systemInstruction": {"parts": [{"text": "-"}]},
        "contents": [{"role": "user", "parts": [{"text": "-"}]},
                     {"role": "model", "parts": [{"functionCall": {"name": "look_up", "args": {"a": "-"}}}]},
                     {"role": "user", "parts": [{"functionResponse": {"name": "look_up", "response": {"a": "-"}}}]}],
        "tools": [{"functionDeclarations": [{"name": "look_up", "description": "-", "parametersJsonSchema": SCHEMA}]}],
        "generationConfig": {"stopSequences": ["-"]}},
}  # fmt: skip
"""A request of each dialect with all of its members. `-` is a text."""


@pytest.mark.parametrize("name", WHOLE)
def test_a_value_in_any_member_of_a_dialect_arrives_nowhere(name: str) -> None:
    """Also in unknown members, which are added to each object but Gemini's tools, where an unknown one is refused."""

    def with_unknown(value: Any) -> Any:
        if isinstance(value, dict):
            known = {key: with_unknown(item) for key, item in value.items()}
            return known if "functionDeclarations" in value else {**known, "x_unknown": {"c": ["-"]}}
        return [with_unknown(item) for item in value] if isinstance(value, list) else value

    able = {"passthrough": ["x_unknown", "metadata", "prediction", "user"], "capabilities": ["json_schema", "tools"]}
    gateway = InputGateway(echo, REDACTED.merge({"deployments": {"chat": able}}))
    path, body = asking(name, "hello")
    plain = json.dumps({**body, **WHOLE[name]})
    for text in (plain, json.dumps(with_unknown(json.loads(plain)))):
        numbers = itertools.count(1)
        marked = re.sub(r'(?<=")-(?=\\?")', lambda _: f"mark{next(numbers)}@planted.example", text)  # noqa: B023
        answer = gateway.post(path, json.loads(marked))
        assert answer.status_code == 200, answer.text
        assert not [value for value in (b"planted", b"4111") if value in gateway.requests[-1].content]
        assert b"QEMAIL1Z" in gateway.requests[-1].content


def test_all_countries_are_one_word() -> None:
    for countries in ("*", ["*"]):
        gateway = InputGateway(
            echo, REDACTED.merge({"redactions": {"personal": {"kinds": ["id"], "countries": countries}}})
        )
        ask(gateway, "ssn 123-45-6789")
        assert asked_in(gateway.bodies[0]) == "ssn QID1Z"


FIRST, REST = "I am jane.doe@exam", "ple.com indeed"
CUT: dict[str, tuple[str, dict[str, Any]]] = {
    "system of Messages": ("messages", {"system": [
        {"type": "text", "text": FIRST}, {"type": "text", "text": REST, "cache_control": {"type": "ephemeral"}}]}),
    "system of Gemini": ("gemini", {"systemInstruction": {"parts": [{"text": FIRST}, {"text": REST}]}}),
    "instructions": ("responses", {"instructions": FIRST, "input": [
        {"role": "system", "content": REST}, {"role": "user", "content": "hello"}]}),
    "text and refusal": ("chat", {"messages": [
        {"role": "user", "content": "hello"}, {"role": "assistant", "content": FIRST, "refusal": REST},
        {"role": "user", "content": "why?"}]}),
}  # fmt: skip
"""Where a client cuts a text in two that a provider may get as one."""


@pytest.mark.parametrize("where", CUT)
def test_a_value_that_is_cut_between_neighbouring_texts_is_one_value(where: str) -> None:
    gateway = InputGateway(echo, REDACTED)
    name, more = CUT[where]
    answer = ask(gateway, "hello", name, **more)
    assert answer.headers["x-gateway-redacted"] == "email=1"
    (sent,) = gateway.bodies
    assert "jane" not in json.dumps(sent)
    assert "ple.com" not in json.dumps(sent)
    assert "I am QEMAIL1Z" in json.dumps(sent)
    assert " indeed" in json.dumps(sent)


def test_a_system_text_that_becomes_empty_is_left_out_and_its_cache_mark_moves() -> None:
    marked = {"type": "ephemeral"}
    system = [{"type": "text", "text": "jane.doe@exam"}, {"type": "text", "text": "ple.com", "cache_control": marked}]
    claude = {"provider": "anthropic", "model": "claude-opus-4-8", "endpoint": "global", "api_key": "${KEY}"}
    config = REDACTED.merge("deployments: {chat: null}").merge({"deployments": {"chat": claude}})
    gateway = InputGateway(lambda request: httpx.Response(400), config, {"KEY": "k"})
    ask(gateway, "hello", "messages", system=system)
    (first, notice) = gateway.bodies[0]["system"]
    assert first == {"type": "text", "text": "QEMAIL1Z", "cache_control": marked}
    assert notice["text"] == NOTICE


def test_calls_of_tools_are_restored_in_a_stream_also_where_calls_alternate() -> None:
    def provider(request: httpx.Request) -> httpx.Response:
        pieces = [
            {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"to": "qcar'}},
            {"index": 1, "id": "b", "type": "function", "function": {"name": "f", "arguments": ""}},
            {"index": 1, "function": {"arguments": '{"to": "qphone1z'}},
            {"index": 1, "function": {"arguments": '"}'}},
            {"index": 0, "function": {"arguments": 'd1Z", "by": "QIBAN1Z"}'}},
        ]
        first = {"reasoning_content": "about QEMAIL1Z and QEMAIL7"}
        calls = [{"tool_calls": [piece]} for piece in pieces]
        return stream_of(first, {"content": "QEMA"}, {"content": "IL1Z!"}, *calls)

    gateway = InputGateway(provider, REDACTED)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    answer = ask(gateway, PROMPT, stream=True, tools=[tool])
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == f"{MAIL}!"
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == f"about {MAIL} and QEMAIL7"
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    arguments = ["".join(it["function"]["arguments"] for it in calls if it["index"] == index) for index in (0, 1)]
    assert arguments == [f'{{"to": "{CARD}", "by": "QIBAN1Z"}}', f'{{"to": "{PHONE}"}}']


CALLING = {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
ORDERS: dict[str, list[dict[str, Any]]] = {
    "reasoning and a text": [
        {"reasoning_content": "It is in the FAQ"},
        {"content": "Here"},
        {"content": " is the answer to your question."},
    ],
    "reasoning and a short text": [{"reasoning_content": "the FA"}, {"reasoning_content": "Q"}, {"content": "Hi."}],
    "reasoning and a call": [{"reasoning_content": "the FAQ"}, CALLING],
    "reasoning, a short text and a call": [{"reasoning_content": "the FAQ"}, {"content": "Hi Q"}, CALLING],
    "a text and a call": [{"reasoning_content": "so"}, {"content": "See the FAQ"}, CALLING],
    "a text and a refusal": [{"content": "See the FAQ"}, {"refusal": "No."}],
}


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses", "gemini"])
@pytest.mark.parametrize("order", ORDERS)
def test_what_may_begin_a_placeholder_stays_before_what_follows_it(dialect: str, order: str) -> None:
    """The events are those of a deployment that redacts nothing: no block is reopened, and none comes late."""

    def events_of(config: Config) -> list[tuple[str, str]]:
        gateway = InputGateway(lambda _: stream_of(*ORDERS[order]), config)
        path, body = streamed(*asking(dialect, PROMPT))
        found: list[tuple[str, str]] = []
        for event in map(json.loads, re.findall("^data: ({.*)$", gateway.post(path, body).text, re.MULTILINE)):
            kinds: list[str] = []
            texts: list[str] = []
            _shape(event, kinds, texts)
            shape = " ".join(kinds)
            if found and found[-1][0] == shape and texts:
                found[-1] = shape, found[-1][1] + "".join(texts)
            else:
                found.append((shape, "".join(texts)))
        return found

    assert events_of(REDACTED) == events_of(CONFIG)


def _shape(value: Any, kinds: list[str], texts: list[str]) -> None:
    """Collect the names and places of an event, and apart from them the words of its piece of a text."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name in ("content", "reasoning_content", "refusal", "text", "thinking", "delta") and isinstance(item, str):
            kinds.append(str(name))
            texts.append(item)
        elif name in ("type", "index", "output_index", "content_index", "stop_reason", "thought"):
            kinds.append(f"{name}={item}")
        elif name != "role":  # the first chunk alone has it
            kinds.append(str(name))
            _shape(item, kinds, texts)


def test_each_input_of_embeddings_and_each_judged_text_has_numbers_of_its_own() -> None:
    def provider(request: httpx.Request) -> httpx.Response:
        is_judge = request.url.path.endswith("/moderations")
        return verdicts_on(request) if is_judge else httpx.Response(200, json=vectors_of(request))

    for path in (EMBEDDINGS, MODERATIONS):
        gateway = InputGateway(provider, REDACTED)
        answer = gateway.post(path, {"model": "assistant", "input": ["a@x.org b@x.org", "b@x.org"]})
        assert answer.status_code == 200, answer.text
        assert gateway.bodies[0]["input"] == ["QEMAIL1Z QEMAIL2Z", "QEMAIL1Z"]
        assert answer.headers["x-gateway-redacted"] == "email=2"


def test_query_and_documents_of_a_split_rerank_have_one_numbering_and_each_value_counts_once() -> None:
    def provider(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["texts"]
        return httpx.Response(200, json=[{"index": index, "score": 0.5} for index in range(len(texts))])

    scores = {"provider": "tei", "model": "m", "endpoint": "https://scores.example/v1"}
    own = {"deployments": {"scores": {**scores, "stores": "any", "processes": "any"}}}
    gateway = InputGateway(provider, REDACTED.merge(own, "assistants: {assistant: {rerank: {default: [scores]}}}"))
    documents = ["a@x.org", *["none"] * 31, "b@x.org a@x.org", *["none"] * 31, "q@x.org b@x.org"]
    answer = gateway.post("/v1/rerank", {"model": "assistant", "query": "q@x.org?", "documents": documents})
    assert answer.status_code == 200, answer.text
    assert {body["query"] for body in gateway.bodies} == {"QEMAIL1Z?"}
    sent = ["QEMAIL2Z", "QEMAIL3Z QEMAIL2Z", "QEMAIL1Z QEMAIL3Z"]
    assert [body["texts"][0] for body in gateway.bodies] == sent
    assert answer.headers["x-gateway-redacted"] == "email=3"


@cases("more", "reason")
def test_what_a_placeholder_cannot_stand_for_skips_the_step(more: dict[str, Any], reason: str) -> None:
    able = {"capabilities": ["vision", "logprobs", "image_url"]}
    gateway = InputGateway(echo, REDACTED.merge({"deployments": {"chat": able}}))
    answer = ask(gateway, PROMPT, **more)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_capability")
    assert reason in answer.json()["error"]["message"]
    assert gateway.requests == []
    passing = REDACTED.merge({"deployments": {"chat": able}, "redactions": {"personal": {"media": "pass"}}})
    gateway = InputGateway(echo, passing)
    assert ask(gateway, PROMPT, **more).status_code == (200 if reason == "media" else 400)
    # The text of a file is media too: it is sent as it is, where it is sent at all.
    assert "jane.txt" not in str(more) or "jane@example.com" in str(gateway.bodies)


def test_request_that_cannot_be_redacted_shows_nothing_about_a_candidate() -> None:
    able = {"capabilities": ["logprobs", "vision"]}
    route = {"assistants": {"assistant": {"routes": {"default": [{"chat": 1, "spare": 0}, "house"]}}}}
    choice = {"assistants": {"assistant": {"choices": {"c": {"deployments": ["chat"], "title": {"en": "C"}}}}}}
    deployments = {"deployments": {"chat": able, "spare": able, "house": {**able, "redact": False}}}
    gateway = InputGateway(echo, REDACTED.merge(route, choice, deployments))
    path, body = asking("chat", PROMPT)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    for more in ({"logprobs": True}, {"messages": [{"role": "user", "content": [image]}]}):
        answer = gateway.post(path, {**body, **more}, {"x-gateway-prefer": "c"} if "messages" in more else {})
        assert (answer.status_code, answer.headers["x-gateway-deployment"]) == (200, "house")
    assert answer.headers["x-gateway-preference"] == "not_used; reason=capability"
    assert gateway.gateway.recent_requests()[1]["passed_over_codes"] == {"chat": "redaction", "spare": "weight"}

    async def snapshot() -> bytes:
        return gateway.gateway.metrics.snapshot()

    assert tallies([asyncio.run(snapshot())]) == {}


def test_too_many_values_are_an_error_of_the_request() -> None:
    gateway = InputGateway(echo, REDACTED)
    answer = ask(gateway, " ".join(f"u{number}@x.org" for number in range(10_001)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert answer.json()["error"]["reason"] == "request"
    # The texts of embeddings, which have numbers of their own, are one request.
    texts = ["a@x.org b@x.org", "c@x.org d@x.org"]
    with mock.patch.object(placeholders, "MOST_VALUES", 3):
        answer = gateway.post(EMBEDDINGS, {"model": "assistant", "input": texts})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert gateway.requests == []


def test_the_helplines_of_a_region_are_no_values() -> None:
    """A crisis text in the history names one, and the next model should know that."""
    profile = {"locale": "de-DE", "helplines": {"crisis": "0800 111 0 111"}}
    gateway = InputGateway(echo, REDACTED.merge({"regions": {"default": {"profile": profile}}}))
    said = "Bitte rufen Sie 0800 1110111 an, oder Tel. 0800-1110222."
    messages = [{"role": "assistant", "content": said}, {"role": "user", "content": "ok"}]
    assert ask(gateway, "ok", messages=messages).status_code == 200
    contents = [message["content"] for message in gateway.bodies[0]["messages"]]
    assert "Bitte rufen Sie 0800 1110111 an, oder Tel. QPHONE1Z." in contents
    assert any("0800 111 0 111" in content for content in contents)


def test_a_deployment_in_clear_gets_the_values_and_one_of_its_own_redaction_does_not() -> None:
    clear = REDACTED.merge({"deployments": {"chat": {"redact": False}}})
    gateway = InputGateway(echo, clear)
    assert "x-gateway-redacted" not in ask(gateway, PROMPT).headers
    assert asked_in(gateway.bodies[0]) == PROMPT
    own = CONFIG.merge({"redactions": {"mails": {"kinds": ["email"]}}, "deployments": {"chat": {"redact": "mails"}}})
    gateway = InputGateway(echo, own)
    assert ask(gateway, PROMPT).headers["x-gateway-redacted"] == "email=1"
    assert PHONE in asked_in(gateway.bodies[0])


def test_a_json_answer_stays_json() -> None:
    """A value with a quotation mark is escaped, one level, also where the stream cuts the placeholder."""
    terms = {"redactions": {"personal": {"terms": ['the "Q" plan']}}}
    quoting = REDACTED.merge(terms, {"deployments": {"chat": {"capabilities": ["json_object"]}}})

    def provider(request: httpx.Request) -> httpx.Response:
        text = '{"name": "QTERM1Z"}'
        is_stream = b'"stream":true' in request.content
        return stream_of(*({"content": letter} for letter in text)) if is_stream else whole({"content": text})

    for stream in (False, True):
        gateway = InputGateway(provider, quoting)
        answer = ask(gateway, 'about The  "q" PLAN', stream=stream, response_format={"type": "json_object"})
        found = text_of(answer) if stream else answer.json()["choices"][0]["message"]["content"]
        assert json.loads(found) == {"name": 'The  "q" PLAN'}


def rejection_of(config: Config) -> str:
    with pytest.raises(ConfigRejected) as caught:
        table_of(config)
    return str(caught.value)


@cases("redaction", "message")
def test_a_wrong_redaction_is_an_error(
    redaction: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert message in rejection_of(REDACTED.merge({"redactions": {"personal": redaction}}))
    assert capfd.readouterr().err == ""


def test_two_redactions_give_a_name_one_pattern_and_a_key_names_a_known_one() -> None:
    two = {"one": {"patterns": {"AB": "x"}}, "two": {"patterns": {"AB": "y"}}}
    assert "the redaction 'one' has another pattern of this name" in rejection_of(REDACTED.merge({"redactions": two}))
    assert "unknown redaction 'persnal'" in rejection_of(
        REDACTED.merge({"regions": {"default": {"redact": "persnal"}}})
    )
    assert "unknown redaction 'x'" in rejection_of(REDACTED.merge({"deployments": {"chat": {"redact": "x"}}}))


def test_a_consent_covers_the_request_as_it_would_be_sent() -> None:
    consent_rule = "deployments: {chat: {consent: {mode: per_request, recipient: Example}}}"
    gateway = InputGateway(echo, REDACTED.merge(consent_rule))
    path, body = asking("chat", PROMPT)
    consent = gateway.post(path, body).json()["error"]["consent"]
    assert consent["redacted"] == ["card", "email", "phone"]
    assert consent["would_send"] == ["messages (with placeholders)"]
    assert MAIL not in json.dumps(consent)
    agreed = {"x-gateway-consent": consent["token"]}
    assert gateway.post(path, body, agreed).status_code == 200
    # Another address is sent as the same bytes; another text is not.
    assert gateway.post(*asking("chat", PROMPT.replace(MAIL, "john@example.org")), agreed).status_code == 200
    assert gateway.post(*asking("chat", f"{PROMPT}!"), agreed).json()["error"]["code"] == "consent_required"


def test_state_of_reasoning_returns_only_with_the_values_that_its_placeholders_mean() -> None:
    deployment = table_of(REDACTED).deployments["chat"]
    sealed = seal_of((b"k" * 32,), deployment, ("EMAIL:a@x.org", "PHONE:1")).seal("thought of QEMAIL1Z")

    def returned(*values: str) -> str | None:
        return seal_of((b"k" * 32,), deployment, values).unseal(sealed)

    both = ("EMAIL:a@x.org", "PHONE:1")
    assert returned(*both) == returned(*both, "CARD:2") == "thought of QEMAIL1Z"
    assert returned() is returned("EMAIL:a@x.org") is returned("PHONE:1", "EMAIL:a@x.org") is None
    assert returned("EMAIL:b@x.org", "PHONE:1") is None
    plain = seal_of((b"k" * 32,), deployment)
    assert plain.unseal(sealed) is None
    assert seal_of((b"k" * 32,), deployment, ()).unseal(plain.seal("thought")) is None
    assert plain.unseal(plain.seal("thought")) == "thought"


@pytest.mark.parametrize("path", [None, "/v1/embeddings"])
def test_a_large_request_is_searched_in_a_thread_before_its_consent_is_read(path: str | None) -> None:
    """The question, a token and the attempt are as those of a small request, and none searches in the event loop."""
    rule = {"consent": {"mode": "per_request", "recipient": "Example"}}
    gateway = InputGateway(
        echo if path is None else (lambda request: httpx.Response(200, json=vectors_of(request))),
        REDACTED.merge({"deployments": dict.fromkeys(("chat", "house", "spare"), rule)}),
    )
    text = f"{PROMPT}. " * 2000
    path, body = asking("chat", text) if path is None else (path, {"model": "assistant", "input": text})
    found, where = finding.Finder.find, set()

    def find(self: finding.Finder, text: str, clock: Any = None) -> Any:
        if len(text) > 10_000:
            where.add(threading.current_thread() is threading.main_thread())
        return found(self, text, clock)

    with mock.patch.object(finding.Finder, "find", find):
        consent = gateway.post(path, body).json()["error"]["consent"]
        answer = gateway.post(path, body, {"x-gateway-consent": consent["token"]})
    assert (answer.status_code, where) == (200, {False})
    assert consent["redacted"] == ["card", "email", "phone"]


def test_texts_of_tools_schemas_and_fields_count_as_searched() -> None:
    """A request that is large by these only is searched in a thread, too."""
    large, schema = "x" * 50_000, {"properties": {"a": {"enum": ["x" * 50_000]}}}
    asked = ChatRequest("m", (UserMessage("hi"),))
    for more in (
        {"extra": {"metadata": {"a": [large]}}},
        {"stop": (large,)},
        {"tools": (Tool("f", large),)},
        {"tools": (Tool("f", None, schema),)},
        {"response_format": JsonSchemaFormat("n", schema)},
        {"messages": (AssistantMessage(None, reasoning=large),)},
    ):
        assert characters_of(replace(asked, **more)) > 50_000 - 1, more


def test_state_of_reasoning_returns_for_the_values_in_the_order_in_which_they_are_sent() -> None:
    """An emulated schema stands after the system message, and its values are numbered there."""
    thought = {"type": "reasoning.text", "text": "about QEMAIL1Z", "signature": "c2lnbmF0dXJl"}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"to": "QEMAIL3Z"}'}}

    def provider(request: httpx.Request) -> httpx.Response:
        return whole({"reasoning_details": [thought], "tool_calls": [call]}, "tool_calls")

    gateway = InputGateway(provider, REDACTED.merge({"deployments": {"chat": {"structured_output": "emulate"}}}))
    schema = {"type": "object", "description": "of a@x.org"}
    body: dict[str, Any] = {
        "model": "assistant",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        "messages": [{"role": "system", "content": "I am b@x.org"}, {"role": "user", "content": "I am c@x.org"}],
    }
    said = gateway.post("/v1/chat/completions", body).json()["choices"][0]["message"]
    (made,) = said["tool_calls"]
    assert made["function"]["arguments"] == '{"to": "c@x.org"}'
    body["messages"] += [said, {"role": "tool", "tool_call_id": made["id"], "content": "done"}]
    for system, returns in (("I am b@x.org", True), ("I am d@x.org", False)):
        body["messages"][0]["content"] = system
        answer = gateway.post("/v1/chat/completions", body)
        assert ("reasoning_state" in answer.headers.get("x-gateway-dropped", "")) is not returns
        assert ("c2lnbmF0dXJl" in json.dumps(gateway.bodies[-1])) is returns
        assert "x.org" not in json.dumps(gateway.bodies[-1])


def test_check_shows_below_each_step_what_it_does_not_get_and_plan_what_goes() -> None:
    clear = REDACTED.merge({"deployments": {"house": {"redact": False}}})
    report = render_matrix(table_of(clear))
    assert "       redacts: email, phone, iban, card, id, secret\n" in report
    assert "    embeddings: house:" in report
    assert "\n       not redacted\n" in report
    marked = [
        clear,  # `redact: false`
        REDACTED.merge({"regions": {"default": {"redact": None}}}),
        REDACTED.merge({"redactions": {"personal": {"kinds": ["email"]}}}),
        REDACTED.merge({"redactions": {"personal": {"countries": ["DE", "CN"]}}}),
        REDACTED.merge({"redactions": {"personal": {"media": "pass"}}}),
    ]
    before = table_of(REDACTED)
    for config in marked:
        changed = plan_of(before, table_of(config))
        assert [it for item in (*changed.regions, *changed.deployments) for it in item.changes if it.widens]
        back = plan_of(table_of(config), before)
        assert not [it for item in (*back.regions, *back.deployments) for it in item.changes if it.widens]


def test_gateway_redact_prints_the_text_of_a_recipient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("Muster Werke GmbH\n\nNordwind AG\n", "utf-8")
    config = REDACTED.merge({"redactions": {"personal": {"terms": [f"${{file:{terms}}}"]}}})
    file, text = config.write(tmp_path), tmp_path / "text.txt"
    text.write_text(f"MUSTER  Werke GmbH, {MAIL}", "utf-8")
    assert main(["redact", "personal", "--config", str(file), str(text)]) == 0
    assert capsys.readouterr().out == "QTERM1Z, QEMAIL1Z"
    before = parse_document(file.read_bytes(), str(file), {}).version
    terms.write_text("Nordwind AG\n", "utf-8")
    assert parse_document(file.read_bytes(), str(file), {}).version != before
    assert main(["redact", "personl", "--config", str(file), str(text)]) == 2
    assert "did you mean 'personal'?" in capsys.readouterr().err
    terms.unlink()
    assert main(["redact", "personal", "--config", str(file), str(text)]) == 2
    assert "terms.txt can't be read" in capsys.readouterr().err


@pytest.mark.slow("many long requests")
def test_each_turn_of_a_conversation_is_read_from_the_cache_of_its_provider() -> None:
    """Also with tools, after restarts, and with new values in every turn: all that was sent before is sent again."""
    cache, reads = PrefixCache(clock=lambda: 0.0), []

    def provider(request: httpx.Request) -> httpx.Response:
        reads.append(cache.read(IncomingRequest("POST", "/", "", {"authorization": "k"}, request.content), "m"))
        return echo(request)

    messages: list[dict[str, Any]] = [{"role": "system", "content": "I am a@x.org. " + "A rule. " * 600}]
    sent: list[list[Any]] = []
    for turn in range(24):
        if turn % 8 == 0:
            finding._FINDERS.clear()
            gateway = InputGateway(provider, REDACTED)
        arguments = json.dumps({"to": f"u{turn}@x.org", "phone": 491710000000 + turn})
        call = {"id": f"c{turn}", "type": "function", "function": {"name": "f", "arguments": arguments}}
        messages += [
            {"role": "user", "content": f"Write to u{turn}@x.org and u{turn // 2}@x.org, {PHONE}."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{turn}", "content": f"sent to u{turn}@x.org by v{turn}@x.org"},
        ]
        answer = gateway.post("/v1/chat/completions", {"model": "assistant", "messages": messages}).json()
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
        assert f"v{turn}@x.org" in messages[-1]["content"]
        sent.append(gateway.bodies[-1]["messages"])
        assert sent[-1][: len(sent[-2])] == sent[-2] if turn else True
    assert "x.org" not in json.dumps(sent)
    # A block of the cache has 16 tokens, and the one at the end of a prompt is not whole.
    behind = [before.prompt_tokens - now.cached_tokens for before, now in itertools.pairwise(reads)]
    assert max(behind) <= 16, behind


BEHIND = Config.parse("""
version: 1
redactions: {mails: {kinds: [email]}, cards: {kinds: [card]}}
assistants: {assistant: {routes: {default: [house, {hand_off: {when: [failure], redact: mails}}, abroad]}}}
regions: {default: {territories: ["*"], boundary: ["*"], redact: cards}}
deployments:
  house: {provider: openai-compatible, model: c, endpoint: "https://house.example/v1", stores: any, processes: any, redact: false}
  abroad: {provider: openai-compatible, model: c, endpoint: "https://abroad.example/v1", stores: any, processes: any, redact: false}
location: {unknown: default}
""")


def test_what_passes_a_barrier_is_redacted_also_for_a_deployment_in_clear() -> None:
    def provider(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500) if request.url.host == "house.example" else echo(request)

    gateway = InputGateway(provider, BEHIND)
    answer = ask(gateway, PROMPT)
    assert answer.json()["choices"][0]["message"]["content"] == PROMPT
    assert answer.headers["x-gateway-redacted"] == "email=1"
    *private, last = [asked_in(body) for body in gateway.bodies]
    assert set(private) == {PROMPT}
    assert (MAIL in last, CARD in last) == (False, True)


def test_each_barrier_has_its_own_rules_also_if_they_find_the_same() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"to": "QEMAIL1Z"}'}}

    def provider(request: httpx.Request) -> httpx.Response:
        is_private = request.url.host == "house.example"
        return httpx.Response(500) if is_private else whole({"tool_calls": [call]}, "tool_calls")

    barrier = {"hand_off": {"when": ["failure"], "redact": "for_tools"}}
    gateway = InputGateway(provider, BEHIND.merge({
        "redactions": {"for_tools": {"kinds": ["email"], "arguments": "keep"}},
        "assistants": {"other": {"routes": {"default": ["house", barrier, "abroad"]}}},
    }))  # fmt: skip
    body = {"messages": [{"role": "user", "content": MAIL}], "tools": [{"type": "function", "function": {"name": "f"}}]}
    got = []
    for name in ("assistant", "other"):
        answer = gateway.post("/v1/chat/completions", {"model": name, **body}).json()["choices"][0]["message"]
        got.append(json.loads(answer["tool_calls"][0]["function"]["arguments"])["to"])
    assert got == [MAIL, "QEMAIL1Z"]


def test_the_length_of_a_prompt_is_that_of_its_longer_text() -> None:
    """`house` holds the words of the client, and not what it would get in their place."""
    model = {"provider": "cohere", "model": "command-a-translate-08-2025", "redact": "mails", "api_key": "${KEY}"}
    config = BEHIND.merge({
        "redactions": {"mails": {"terms": ["owl"]}, "cards": {"terms": ["elk"]}},
        "assistants": {"assistant": {"routes": {"default": ["house", {"hand_off": {"when": ["context"]}}, "abroad"]}}},
        "deployments": {"house": model},
    })  # fmt: skip
    for text, host in (("owl " * 10, "house.example"), ("owl " * 6000, "abroad.example")):
        gateway = InputGateway(echo, config, {"KEY": "k"})
        assert ask(gateway, text).status_code == 200
        assert [request.url.host for request in gateway.requests] == [host]


SECOND = {**CONFIG.data["deployments"]["chat"], "endpoint": "https://second.example/v1"}
WITH_SECOND = REDACTED.merge({
    "assistants": {"assistant": {"routes": {"default": ["chat", "second"]}, "resume": True}},
    "deployments": {"second": SECOND},
})  # fmt: skip
"""A second step that continues an answer which breaks off."""


def test_a_judge_and_a_second_step_get_placeholders_of_their_own() -> None:
    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/moderations"):
            return verdicts_on(request)
        return httpx.Response(500) if request.url.host == "chat.example" else echo(request)

    judged = {"input": ["judge"], "on_failure": "closed"}
    gateway = InputGateway(provider, WITH_SECOND.merge({"regions": {"default": {"moderation": judged}}}))
    answer = ask(gateway, PROMPT)
    assert answer.json()["choices"][0]["message"]["content"] == PROMPT
    assert {request.url.host for request in gateway.requests} == {"judge.example", "chat.example", "second.example"}
    for request in gateway.requests:
        assert not [value for value in VALUES if value in request.content.decode()]
        assert b"QEMAIL1Z" in request.content


@pytest.mark.parametrize("stream", [False, True])
def test_no_part_of_a_value_reaches_a_judge_that_gets_a_text_in_pieces(stream: bool) -> None:
    """Pieces of long texts, and windows of streamed answers, begin and end within values."""

    def provider(request: httpx.Request) -> httpx.Response:
        return verdicts_on(request) if request.url.path.endswith("/moderations") else echo(request)

    gateway = InputGateway(provider, REDACTED.merge({"regions": {"default": {"moderation": JUDGED}}}))
    for shift in range(0, 42, 6):
        text = f"{'x' * shift} of {MAIL}, {PHONE}" + f" and {CARD}. {MAIL} or {PHONE}" * (5 if stream else 170)
        answer = ask(gateway, text, stream=stream)
        assert text in text_of(answer)
    judged = [text for body in gateway.bodies if "input" in body for text in body["input"]]
    assert len(judged) > 20
    for part in ("jane", ".doe", "doe@", "example", ".com", "+49", "171", "4567", "4111", "1111"):
        assert not [text for text in judged if part in text], part


@pytest.mark.parametrize("is_up", [True, False])
def test_an_answer_that_breaks_off_is_continued_by_a_step_that_gets_placeholders_too(is_up: bool) -> None:
    """The text so far has values, because the client has seen them: it is redacted like any."""

    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.host == "second.example":
            rest = {"content": "Write to QEMAIL1Z, call QPHONE1Z and pay."}
            return stream_of(rest) if is_up else httpx.Response(500)
        return broken_off("Write to QEMA", "IL1Z, call", " QPHON")

    gateway = InputGateway(provider, WITH_SECOND)
    answer = ask(gateway, PROMPT, stream=True)
    assert {request.url.host for request in gateway.requests} == {"chat.example", "second.example"}
    continued = gateway.requests[1].content.decode()
    assert "Write to QEMAIL1Z, call" in continued
    assert not [value for value in VALUES if value in continued]
    shown = f"Write to {MAIL}, call {PHONE} and pay." if is_up else f"Write to {MAIL}, call QPHON"
    assert text_of(answer) == shown


def test_the_last_words_that_a_step_shall_repeat_have_no_part_of_a_value() -> None:
    """They begin at a word, and a number has several."""

    def provider(request: httpx.Request) -> httpx.Response:
        is_second = request.url.host == "second.example"
        return (
            stream_of({"content": "and so on."})
            if is_second
            else broken_off(f"Call QPHONE1Z, pay QCARD1Z {'x' * size} end")
        )

    gateway, parts = InputGateway(provider, WITH_SECOND), set()
    for size in range(30, 75, 4):
        ask(gateway, PROMPT, stream=True)
        sent = gateway.requests[-1]
        assert sent.url.host == "second.example"
        assert not [part for part in ("+49", "171", "4567", "4111", "1111") if part in sent.content.decode()], size
        parts.add(json.loads(sent.content)["messages"][-1]["content"].partition("---")[2].split()[0])
    assert parts >= {"QPHONE1Z,", "pay", "QCARD1Z"}


IBAN = "DE89 3704 0044 0532 0130 00"
PARTS = ("jane", ".doe", "@ex", "DE89", "3704", "0532", "4111", "1111")
"""Parts of the values below, by which a part of a value shows."""


@pytest.mark.parametrize("shift", range(3, 70, 7))
def test_no_part_of_a_value_is_in_an_invalid_answer_that_is_asked_for_again(shift: int) -> None:
    """The problem and the repeated answer quote what the client would get, and end anywhere."""
    value = f"{'x' * (100 - shift)} QEMAIL1Z; QIBAN1Z; QCARD1Z"
    filler = "y" * (20_000 - shift)

    def provider(_: httpx.Request) -> httpx.Response:
        if len(gateway.requests) == 1:
            return whole({"content": json.dumps({"a": value})})
        return whole({"content": f"{filler} QEMAIL1Z; QIBAN1Z; QCARD1Z"})

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    emulating = {"structured_output": "emulate"}
    route = {"assistants": {"assistant": {"routes": {"default": ["chat", "chat2"]}}}}
    deployments = {"chat": emulating, "chat2": {**CONFIG.data["deployments"]["chat"], **emulating}}
    gateway = InputGateway(provider, REDACTED.merge(route, {"deployments": deployments}))
    ask(gateway, f"{MAIL}; {IBAN}; {CARD}", response_format=form)
    again = [one["messages"] for one in gateway.bodies]
    assert [len(one) for one in again] == [2, 4, 2, 4], "each deployment is asked once more"
    assert "is not of type 'integer'" in again[1][-1]["content"]
    sent = json.dumps(again)
    assert not [part for part in PARTS if part in sent]
    assert "QEMAIL1Z" in again[1][-2]["content"]


@pytest.mark.parametrize("value", [IBAN, CARD, MAIL])
@pytest.mark.parametrize("prefill", [True, False])
def test_no_part_of_a_value_is_in_an_answer_that_was_released_in_pieces_and_is_continued(
    prefill: bool, value: str
) -> None:
    """Moderation releases an answer up to a white space, which may stand within a value."""

    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/moderations"):
            return verdicts_on(request)
        if request.url.host == "second.example":
            words = json.loads(request.content)["messages"][-1]["content"].partition("---\n")[2].partition("\n---")[0]
            return stream_of({"content": f"{words} and so on."})
        text = f"{'x' * size} of {name}, so it"
        return broken_off(*(text[at : at + 5] for at in range(0, len(text), 5)))

    config = WITH_SECOND.merge({
        "deployments": {"second": {"capabilities": ["prefill"]} if prefill else {}},
        "regions": {"default": {"moderation": {**JUDGED, "window_chars": 10, "hold_chars": 20}}},
    })  # fmt: skip
    gateway, cut = InputGateway(provider, config), 0
    name = {IBAN: "QIBAN1Z", CARD: "QCARD1Z", MAIL: "QEMAIL1Z"}[value]
    for size in range(1, 30, 2):
        answer = text_of(ask(gateway, f"{MAIL}; {IBAN}; {CARD}", stream=True))
        continued = [one for one in gateway.requests if one.url.host == "second.example"][-1].content.decode()
        assert not [part for part in PARTS if part in continued], size
        told, end = f"{'x' * size} of {value}, so it", " and so on."
        assert answer.endswith(end)
        assert told.startswith(answer.removesuffix(end)), "nothing is twice or lost"
        cut += value[-2:] not in answer
    assert not cut


def test_no_step_that_redacts_continues_an_answer_of_a_deployment_in_clear() -> None:
    """It may have broken off inside a value, whose beginning no rule finds."""
    config = WITH_SECOND.merge("deployments: {chat: {redact: false}}")
    gateway = InputGateway(lambda _: broken_off("Write to jane.do"), config)
    answer = ask(gateway, PROMPT, stream=True)
    assert {request.url.host for request in gateway.requests} == {"chat.example"}
    assert text_of(answer) == "Write to jane.do"
    assert "stream_interrupted" in answer.text
