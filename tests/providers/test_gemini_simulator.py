"""Test the Gemini simulators: their checks, and round trips between adapter and simulator."""

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from providers import chat
from providers.adapter import Target
from providers.auth import Secret, apply
from providers.catalogue.models import model_facts
from providers.failures import FailureKind
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.gemini.adapter import ADAPTER
from providers.vendors.gemini.simulator import SIMULATOR, VERTEX
from providers.wire import WireRequest
from tests.kit.case_files import cases
from tests.kit.vendor_checks import CheckedSimulator

CHECKED = CheckedSimulator(SIMULATOR)
NEW, FREE, OLD = "gemini-3.8-flash", "gemini-3.5-flash", "gemini-2.5-flash"
SIGNATURE = base64.b64encode(b"anything").decode()


def target(model: str) -> Target:
    return Target(model, "/v1beta", model_facts(ADAPTER.models, model))


def incoming(wire: WireRequest) -> IncomingRequest:
    signed = apply(ADAPTER.auth, wire, "https://generativelanguage.googleapis.com", Secret("k"), 0)
    return IncomingRequest(signed.method, signed.path, urlencode(signed.query), dict(signed.headers), signed.body)


def raw(body: object, model: str = NEW, **changes: Any) -> IncomingRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = f"/v1beta/models/{model}:generateContent"
    return replace(IncomingRequest("POST", path, "", {"x-goog-api-key": "k"}, data), **changes)


@cases("headers", "lets_in")
def test_vertex_accepts_a_token_or_an_api_key_in_its_own_header(headers: dict[str, str], lets_in: bool) -> None:
    path = f"/v1/projects/p/locations/global/publishers/google/models/{NEW}:generateContent"
    body = b'{"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}'
    request = IncomingRequest("POST", path, "", headers, body)
    if lets_in:
        assert VERTEX.read_request(request).model == NEW
        return
    with pytest.raises(RequestRejected) as caught:
        VERTEX.read_request(request)
    assert caught.value.response.status == 401


def refused(request: IncomingRequest) -> dict[str, Any]:
    with pytest.raises(RequestRejected) as caught:
        CHECKED.read_request(request)
    error = json.loads(caught.value.response.body)["error"]
    assert isinstance(error, dict)
    assert error["code"] == caught.value.response.status
    return error


# --- path and key ---------------------------------------------------------------------------------

HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def test_wrong_path_or_key_is_refused() -> None:
    assert SIMULATOR.read_request(raw(HELLO)) == chat.ChatRequest(NEW, (chat.UserMessage("Hi"),))
    assert refused(raw(HELLO, headers={}))["status"] == "PERMISSION_DENIED"
    assert refused(raw(HELLO, method="GET"))["code"] == 404
    assert refused(raw(HELLO, path="/v1beta/models/x:countTokens"))["status"] == "NOT_FOUND"
    assert refused(raw(b"{"))["status"] == "INVALID_ARGUMENT"
    stream = raw(HELLO, path=f"/v1beta/models/{NEW}:streamGenerateContent")
    assert refused(stream)["code"] == 400
    assert SIMULATOR.read_request(replace(stream, query="alt=sse")).stream


def test_the_model_is_read_from_the_path() -> None:
    strange = ADAPTER.build_request(chat.ChatRequest("a", (chat.UserMessage("Hi"),)), target("x/../y?z#"))
    assert SIMULATOR.read_request(incoming(strange)).model == "x/../y?z#"


# --- strictness -----------------------------------------------------------------------------------


def turns(*contents: tuple[str, list[object]]) -> dict[str, object]:
    return {"contents": [{"role": role, "parts": parts} for role, parts in contents]}


GO: tuple[str, list[object]] = ("user", [{"text": "Go"}])


def call(id: str | None = "a", signature: str | None = SIGNATURE) -> dict[str, object]:
    function: dict[str, object] = {"name": "f", "args": {}}
    if id:
        function["id"] = id
    return {"functionCall": function, **({"thoughtSignature": signature} if signature else {})}


def result(id: str | None = "a", **more: object) -> dict[str, object]:
    return {"functionResponse": {"name": "f", "response": {"output": "1"}, **({"id": id} if id else {}), **more}}


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ([], NEW),
        ({}, NEW),
        ({"contents": []}, NEW),
        (turns(("system", [{"text": "x"}])), NEW),
        (turns(("user", [])), NEW),
        (turns(("user", [{"text": ""}])), NEW),
        (turns(("user", [{}])), NEW),
        (turns(("user", [{"text": "a", "inlineData": {"mimeType": "image/png", "data": "AAAA"}}])), NEW),
        (turns(("user", [{"image": "x"}])), NEW),
        (turns(("user", [{"inlineData": {"mimeType": "image/png", "data": "?"}}])), NEW),
        (turns(("user", [{"fileData": {"fileUri": "file:///etc"}}])), NEW),
        (turns(("user", [{"fileData": {"fileUri": "https://a.example/x.png"}}])), "gemini-2.0-flash"),
        (turns(("user", [call()])), NEW),
        (turns(GO, ("model", [result()])), FREE),
        (turns(GO, ("model", [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]), GO), NEW),
        (turns(("user", [{"inlineData": {"mimeType": "", "data": "AAAA"}}])), NEW),
        ({**HELLO, "systemInstruction": {"parts": []}}, NEW),
        ({**HELLO, "systemInstruction": {"parts": [{"fileData": {"fileUri": "https://a.example"}}]}}, NEW),
        ({**HELLO, "systemInstruction": {"parts": [{"text": ""}]}}, NEW),
        # calls, results, signatures
        (turns(GO, ("model", [call(), call("b")]), ("user", [result()])), NEW),
        (turns(GO, ("user", [result()])), NEW),
        (turns(GO, ("model", [call()]), ("user", [result(), {"text": "x"}])), NEW),
        (turns(GO, ("model", [call()]), GO), NEW),
        (turns(GO, ("model", [call()]), ("model", [{"text": "x"}]), GO), NEW),
        (turns(GO, ("model", [call(None)]), ("user", [result()])), NEW),
        (turns(GO, ("model", [call()]), ("user", [result(None)])), NEW),
        (turns(GO, ("model", [call()]), ("user", [result("b")])), NEW),
        (turns(GO, ("model", [call()]), ("user", [result(response="1")])), NEW),
        (turns(GO, ("model", [call()]), ("user", [result()])), OLD),
        (turns(GO, ("model", [call(None)]), ("user", [result()])), OLD),
        (turns(GO, ("model", [call(signature=None)]), ("user", [result()])), NEW),
        (turns(GO, ("model", [call(signature="not base64!")]), ("user", [result()])), NEW),
        (turns(GO, ("model", [{"functionCall": {"id": "a"}}]), ("user", [result()])), NEW),
        # the model's turn is the last one
        (turns(GO, ("model", [{"text": "Well"}])), NEW),
        (turns(GO, ("model", [call()])), FREE),
        # tools
        ({**HELLO, "tools": [{"googleSearch": {}}]}, NEW),
        ({**HELLO, "tools": [{"functionDeclarations": [{"name": "1a"}]}]}, NEW),
        ({**HELLO, "tools": [{"functionDeclarations": [{"name": "a"}, {"name": "a"}]}]}, NEW),
        (
            {
                **HELLO,
                "tools": [{"functionDeclarations": [{"name": "a", "parameters": {}, "parametersJsonSchema": {}}]}],
            },
            NEW,
        ),
        ({**HELLO, "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}}}, NEW),
    ],
)
def test_invalid_request_is_refused(body: object, model: str) -> None:
    assert refused(raw(body, model))["status"] == "INVALID_ARGUMENT"


@cases("fields", "model")
def test_configuration_that_the_model_refuses(fields: dict[str, object], model: str) -> None:
    assert refused(raw({**HELLO, "generationConfig": fields}, model))["status"] == "INVALID_ARGUMENT"


@cases("calling")
def test_function_calling_configs_that_are_refused(calling: object) -> None:
    declared = [{"functionDeclarations": [{"name": "f"}]}]
    refused(raw({**HELLO, "tools": declared, "toolConfig": {"functionCallingConfig": calling}}))


@pytest.mark.slow
@cases("more")
def test_unknown_fields_are_refused_by_the_client_types(more: dict[str, object]) -> None:
    pytest.importorskip("google.genai")
    assert refused(raw({**HELLO, **more}))["status"] == "INVALID_ARGUMENT"


def test_signature_of_another_model_is_refused_and_the_bypass_accepted() -> None:
    def history(signature: str) -> dict[str, object]:
        return turns(GO, ("model", [call(signature=signature)]), ("user", [result()]))

    completion = chat.ChatCompletion(
        "i", NEW, 0, (chat.Choice(chat.AssistantMessage(tool_calls=(chat.ToolCall("a", "f", "{}"),)), "stop"),)
    )
    answer = json.loads(SIMULATOR.write_answer(completion, chat.ChatRequest(NEW, ())).body)
    theirs = answer["candidates"][0]["content"]["parts"][0]["thoughtSignature"]
    words = "skip_thought_signature_validator"
    for signature in (theirs, SIGNATURE, words, base64.b64encode(words.encode()).decode()):
        assert len(CHECKED.read_request(raw(history(signature))).messages) == 3
    with pytest.raises(RequestRejected, match="signature"):
        CHECKED.read_request(raw(history(theirs), FREE))


# --- round trips ----------------------------------------------------------------------------------


MANY = chat.Choice(
    chat.AssistantMessage("Grüß Gott, 你好 👋\u2028 all", reasoning="Think first, then greet."), "stop", 0, None, None
)
USAGE = chat.Usage(11, 40, 5, 13)


def test_stream_has_the_vendors_layout() -> None:
    completion = chat.ChatCompletion("r1", NEW, 0, (MANY,), USAGE)
    pieces = SIMULATOR.write_stream(completion, chat.ChatRequest(NEW, (), stream=True))
    assert all(piece.startswith(b"data: {") and piece.endswith(b"}\r\n\r\n") for piece in pieces)
    assert all(piece.count(b"\n") == 2 for piece in pieces)
    chunks = [json.loads(piece[6:]) for piece in pieces]
    assert len(chunks) > 5
    assert ["finishReason" in chunk["candidates"][0] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    counts = [chunk["usageMetadata"]["candidatesTokenCount"] for chunk in chunks]
    assert counts == sorted(counts)
    assert (counts[-1], chunks[-1]["usageMetadata"]["totalTokenCount"]) == (27, 51)


def test_arguments_that_are_not_json_cannot_be_written() -> None:
    broken = chat.Choice(chat.AssistantMessage(tool_calls=(chat.ToolCall("a", "f", "{"),)), "tool_calls")
    response = SIMULATOR.write_answer(chat.ChatCompletion("r", NEW, 0, (broken,)), chat.ChatRequest(NEW, ()))
    completion = ADAPTER.parse_response(response, target(NEW))
    assert completion.choices[0].message.tool_calls[0].arguments == "{}"


# --- errors ---------------------------------------------------------------------------------------


@cases("kind", "status", "own_status", "read")
def test_errors_round_trip(kind: FailureKind, status: int, own_status: int, read: FailureKind) -> None:
    response = SIMULATOR.write_error(kind, status, 1.5)
    failure = ADAPTER.classify_error(response)
    assert (response.status, failure.kind, failure.retry_after_s) == (own_status, read, 1.5)
    parser = ADAPTER.stream_parser(target(NEW))
    (event,) = parser.feed(SIMULATOR.write_error_event(kind))
    assert isinstance(event, chat.Failed)
    assert event.failure.kind is read
