"""The simulators that read leniently ignore unknown fields, refuse what they cannot answer, and survive any request."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.chat import ChatRequest
from providers.conformance.cases import feature_requests
from providers.conformance.subject import Subject, incoming_of, subjects_of
from providers.json_values import as_map, dumps, loads
from providers.registry import load_registry
from providers.testkit.simulated_model import respond
from providers.testkit.simulator import IncomingRequest, RequestRejected, load_simulators
from providers.wire import WireRequest
from tests.kit.chat_strategies import unhurried
from tests.kit.vendor_checks import CHECKED_VENDORS

KEYS = {"authorization": "Bearer k", "x-api-key": "k", "x-goog-api-key": "k"}
LOOP = feature_requests()["tools"]["tool_parallel"]


def ablest(vendor: str) -> Subject:
    return subjects_of(load_registry().adapters[vendor], load_simulators().simulators[vendor])[0]


def built(vendor: str) -> tuple[Subject, WireRequest]:
    """Return the request of a tool loop, as the adapter of the vendor writes it for its most capable model."""
    subject = ablest(vendor)
    return subject, subject.build(LOOP)


def read(vendor: str, body: bytes, **changes: Any) -> ChatRequest:
    subject, wire = built(vendor)
    incoming = incoming_of(replace(wire, body=body))
    authenticated = replace(incoming, headers={**incoming.headers, **KEYS})
    return subject.simulator.read_request(replace(authenticated, **changes))


def status_of(vendor: str, body: bytes, **changes: Any) -> int:
    with pytest.raises(RequestRejected) as caught:
        read(vendor, body, **changes)
    return caught.value.response.status


@pytest.mark.parametrize("vendor", CHECKED_VENDORS)
def test_unknown_fields_are_ignored_at_any_depth(vendor: str) -> None:
    _, wire = built(vendor)
    request = read(vendor, wire.body)
    grown = read(vendor, dumps(_with_unknown_fields(loads(wire.body))))
    assert (grown.messages, grown.tools) == (request.messages, request.tools)
    assert len(request.messages) == 5


def _with_unknown_fields(value: object) -> object:
    """Return the value with a new member in each object, except in the client's own objects."""
    if isinstance(value, dict):
        own = _OWN if isinstance(value.get("input"), list) else (*_OWN, "input")
        grown = {name: member if name in own else _with_unknown_fields(member) for name, member in value.items()}
        return {**grown, "x_new": 1}
    return [_with_unknown_fields(member) for member in value] if isinstance(value, list) else value


_OWN = ("parameters", "parametersJsonSchema", "input_schema", "json", "args", "response")


@pytest.mark.parametrize("vendor", CHECKED_VENDORS)
def test_unanswerable_request_is_refused(vendor: str) -> None:
    _, wire = built(vendor)
    assert read(vendor, wire.body).messages
    assert status_of(vendor, wire.body, path="/v1/nothing") == 404
    assert status_of(vendor, wire.body, method="GET") in (404, 405)
    assert status_of(vendor, wire.body, headers={"content-type": "application/json"}) in (401, 403)
    for body in (b"{", b"", b"[]", b"null", b"{}"):
        assert status_of(vendor, body) == 400
    fields = as_map(loads(wire.body))
    for name in ("model", "messages", "contents", "input"):
        if name in fields:
            assert status_of(vendor, dumps({one: fields[one] for one in fields if one != name})) == 400


NAMES = (
    "content text thinking type source data media_type tool_use_id name input id image document title toolUse toolResult "
    "toolUseId json bytes format reasoningContent reasoningText role function function_call call_id arguments output "
    "parts functionCall functionResponse inlineData thought args response tools toolSpec inputSchema input_schema "
    "tool_choice toolChoice any auto tool toolConfig mode functionDeclarations allowedFunctionNames n stream thinkingConfig"
).split()
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(["", "user", "assistant", "model", "text", "image", "tool_use", "function", "AAAA", "\ud83d"]),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
    max_leaves=20,
)
TURNS = ("messages", "contents", "input")
SETTINGS = (
    "system systemInstruction instructions tools tool_choice toolConfig thinking output_config outputConfig text "
    "inferenceConfig generationConfig additionalModelRequestFields reasoning stop_sequences metadata include"
).split()


@pytest.mark.parametrize("vendor", ["openai", "responses", "anthropic", "gemini", "bedrock"])
@unhurried
@given(turns=JSON, settings=st.dictionaries(st.sampled_from(SETTINGS), JSON, max_size=3))
def test_no_request_makes_a_simulator_raise(vendor: str, turns: object, settings: dict[str, object]) -> None:
    """Any request is refused, or answered whole and streamed."""
    body = {"model": "gpt-6", "max_tokens": 99, **dict.fromkeys(TURNS, turns), **settings}
    changes = {"path": "/v1/responses"} if vendor == "responses" else {}
    name = "openai" if vendor == "responses" else vendor
    try:
        request = read(name, json.dumps(body).encode(), **changes)
    except RequestRejected as rejection:
        status = rejection.response.status
    else:
        status = 200
    assert status in (200, 400)
    if status == 200:
        completion, dialect = respond(request, "Testland"), load_simulators().simulators[name]
        assert dialect.write_answer(completion, request).status == 200
        assert dialect.write_stream(completion, request)


def test_wrong_bedrock_signature_is_refused() -> None:
    subject, wire = built("bedrock")
    incoming = IncomingRequest("POST", wire.path, "", {"authorization": "AWS4-HMAC-SHA256 Credential=x"}, wire.body)
    with pytest.raises(RequestRejected, match="Authentication"):
        subject.simulator.read_request(incoming)
