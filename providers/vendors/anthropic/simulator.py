"""The simulators of Anthropic's Messages API, at Anthropic and at Google's Vertex AI.

This module checks path, key and version, and writes answers and errors. `testkit.claude_messages` reads requests.

Source of formats and refusals: anthropic 2.10.0, platform.claude.com and public captures; read 2026-11-20. For Vertex
AI: anthropic 2.14.0 (`lib/vertex`), BerriAI/litellm#25798 and anthropics/claude-code#2569; read 2026-11-27.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from providers.catalogue import FactsFile
from providers.chat import ChatCompletion, ChatRequest, Choice, Usage, text_of
from providers.failures import FailureKind, InvalidRequest
from providers.json_values import JsonError, as_list, as_map, dumps, loads
from providers.openai_json.fields import mapping, present
from providers.testkit.answer_pieces import arguments_of, cut, cut_in_two
from providers.testkit.claude_messages import read_body, signature_of
from providers.testkit.simulator import IncomingRequest, RequestRejected, error_words, failure_text
from providers.wire import WireResponse

_VERSIONS = ("2023-06-01", "2026-10-21")
_REQUEST_ID = "req_simulated"
_HEADERS = {"content-type": "application/json", "request-id": _REQUEST_ID}
_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_WORDS = error_words(FactsFile("providers.vendors.anthropic", "anthropic"))
_TOO_LONG = "prompt is too long: 200001 tokens > 200000 maximum"
_GEO_REFUSED = {"error": {"type": "forbidden", "message": "Request not allowed"}}
_VERTEX_PATH = re.compile(
    r"/v1/projects/[^/]+/locations/(?P<location>[^/]+)/publishers/anthropic/models/(?P<model>[^/?#]+)"
    r":(?P<method>rawPredict|streamRawPredict)"
)
# Google's documents have the first one; Anthropic's own client has sent the second one since 2.14.0.
_VERTEX_VERSIONS = ("vertex-2023-10-16", "2026-10-21")
_COUNTER = "count-tokens"
_GOOGLES_WORDS = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
_OF_GOOGLE = {
    FailureKind.RATE_LIMITED: "Quota exceeded for aiplatform.googleapis.com/online_prediction_requests_per_base_model "
    "with base model: anthropic-claude-sonnet. Please submit a quota increase request.",
    FailureKind.MODEL_NOT_FOUND: "Publisher Model `projects/p/locations/l/publishers/anthropic/models/m` was not "
    "found or your project does not have access to it.",
    FailureKind.CREDENTIALS: "Request had invalid authentication credentials.",
}


@dataclass(frozen=True, slots=True)
class AnthropicSimulator:
    """See `providers.testkit.simulator.Simulator`."""

    name: str = "anthropic"

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        if incoming.method != "POST" or not incoming.path.endswith("/messages"):
            raise _refused(404, "not_found_error", f"Not found: {incoming.method} {incoming.path[:200]}")
        if not incoming.headers.get("x-api-key") and not incoming.bearer:
            raise _refused(401, "authentication_error", "x-api-key header is required")
        version = incoming.headers.get("anthropic-version")
        if version not in _VERSIONS:
            raise _refused(400, "invalid_request_error", "anthropic-version: header is required")
        return _read(_json(incoming))

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        choice = completion.choices[0]
        message = {
            **_head(completion),
            "content": list(_blocks(choice, completion.model)),
            **_end(choice),
            "usage": {**_input(completion.usage, request), **_output(completion.usage)},
        }
        return WireResponse(200, _HEADERS, dumps(message), 0)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `providers.testkit.simulator.Simulator`. The count of output tokens is sent at the end."""
        choice = completion.choices[0]
        started = {
            **_head(completion),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**_input(completion.usage, request), "output_tokens": 1},
        }
        events = [_event("message_start", message=started)]
        for index, block in enumerate(_blocks(choice, completion.model)):
            events += _block_events(index, block)
            if index == 0:
                events.append(_event("ping"))
        events.append(_event("message_delta", delta=_end(choice), usage=_output(completion.usage)))
        return (*events, _event("message_stop"))

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`. A filtered request gets an answer without text, not an error."""
        if kind is FailureKind.CONTENT_FILTER:
            refused = {"id": "msg_simulated", "type": "message", "role": "assistant", "model": "", "content": []}
            end = {"stop_reason": "refusal", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 0}}
            return WireResponse(200, _HEADERS, dumps({**refused, **end}), 0)
        if kind is FailureKind.GEO_REFUSED:
            return WireResponse(403, _HEADERS, dumps(_GEO_REFUSED), 0)
        response = _error(status, _WORDS.of(kind, status), failure_text(kind, _TOO_LONG))
        if retry_after_s is None:
            return response
        headers = {**_HEADERS, "retry-after": f"{retry_after_s:g}"}
        return WireResponse(status, headers, response.body, 0)

    def write_error_event(self, kind: FailureKind) -> bytes:
        """See `providers.testkit.simulator.Simulator`. A filtered answer ends with the stop reason `refusal`."""
        if kind is FailureKind.CONTENT_FILTER:
            end = {"stop_reason": "refusal", "stop_sequence": None}
            return _event("message_delta", delta=end, usage={"output_tokens": 1}) + _event("message_stop")
        if kind is FailureKind.GEO_REFUSED:
            return b"event: error\ndata: " + dumps({"type": "error", **_GEO_REFUSED}) + b"\n\n"
        error = {"type": _WORDS.of(kind, 529), "message": failure_text(kind, _TOO_LONG)}
        return _event("error", error=error, request_id=_REQUEST_ID)


@dataclass(frozen=True, slots=True)
class VertexSimulator(AnthropicSimulator):
    """See `AnthropicSimulator`. Google's errors come before Anthropic's, and some are in a list."""

    name: str = "anthropic-vertex"

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        path, body = _vertex_call(incoming)
        if "model" in body:
            raise _refused(400, "invalid_request_error", "model: Extra inputs are not permitted")
        if (body.get("stream") is True) != (path["method"] == "streamRawPredict"):
            raise _refused(400, "invalid_request_error", "stream: does not belong to this method")
        if b'"type":"url"' in incoming.body.replace(b" ", b""):
            raise _refused(400, "invalid_request_error", "sources by URL are not supported")
        return _read({**body, "model": unquote(path["model"])})

    def read_count(self, incoming: IncomingRequest) -> ChatRequest | None:
        """See `providers.testkit.simulator.SimulatesCounts`. A model with a version, and marks, are refused."""
        if not incoming.path.endswith(f"/{_COUNTER}:rawPredict"):
            return None
        _, body = _vertex_call(incoming)
        model = body.get("model")
        if not isinstance(model, str) or "@" in model:
            raise _refused(400, "invalid_request_error", f"{model} is not supported for token counting")
        known = {"model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"}
        if extra := sorted(body.keys() - known):
            raise _refused(400, "invalid_request_error", f"{extra[0]}: Extra inputs are not permitted")
        if any(_is_marked(block) for name in ("system", "messages", "tools") for block in as_list(body.get(name))):
            raise _refused(400, "invalid_request_error", "cache_control: Extra inputs are not permitted")
        return _read({**body, "max_tokens": 1})

    def write_count(self, tokens: int, incoming: IncomingRequest) -> WireResponse:
        return WireResponse(200, _HEADERS, dumps({"input_tokens": tokens}), 0)

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        if kind in _OF_GOOGLE and status in _GOOGLES_WORDS:
            headers = {"retry-after": f"{retry_after_s:g}"} if retry_after_s is not None else {}
            response = _googles(status, _OF_GOOGLE[kind])
            return WireResponse(status, {**response.headers, **headers}, response.body, 0)
        return super(VertexSimulator, self).write_error(kind, status, retry_after_s)


def _vertex_call(incoming: IncomingRequest) -> tuple[re.Match[str], dict[str, object]]:
    """Return the parts of the path, and the body without its version. Raises RequestRejected."""
    path = _VERTEX_PATH.fullmatch(incoming.path)
    if incoming.method != "POST" or path is None:
        raise _refused_by_google(404, f"Requested entity was not found: {incoming.method} {incoming.path[:200]}")
    if not incoming.headers.get("x-goog-api-key") and not incoming.bearer:
        raise _refused_by_google(401, "Request is missing required authentication credential.")
    body = dict(_json(incoming))
    if body.pop("anthropic_version", None) not in _VERTEX_VERSIONS:
        raise _refused(400, "invalid_request_error", "anthropic_version: Field required")
    return path, body


def _json(incoming: IncomingRequest) -> Mapping[str, object]:
    try:
        return mapping(loads(incoming.body), "request")
    except JsonError:
        raise _refused(400, "invalid_request_error", "The request body is not valid JSON") from None
    except InvalidRequest as error:
        raise _refused(400, "invalid_request_error", str(error)) from None


def _read(body: Mapping[str, object]) -> ChatRequest:
    try:
        present(body, "max_tokens", "max_tokens")
        return read_body(body)
    except InvalidRequest as error:
        raise _refused(400, "invalid_request_error", str(error)) from None


def _is_marked(block: object) -> bool:
    fields = as_map(block)
    return "cache_control" in fields or any(map(_is_marked, as_list(fields.get("content"))))


def _googles(status: int, message: str) -> WireResponse:
    error = {"error": {"code": status, "message": message, "status": _GOOGLES_WORDS[status]}}
    return WireResponse(status, {"content-type": "application/json; charset=UTF-8"}, dumps([error]), 0)


def _refused_by_google(status: int, message: str) -> RequestRejected:
    return RequestRejected(message, _googles(status, message))


def _refused(status: int, error_type: str, message: str) -> RequestRejected:
    return RequestRejected(message, _error(status, error_type, message))


def _error(status: int, error_type: str, message: str) -> WireResponse:
    body = {"type": "error", "error": {"type": error_type, "message": message}, "request_id": _REQUEST_ID}
    return WireResponse(status, _HEADERS, dumps(body), 0)


def _event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: ".encode() + dumps({"type": kind, **members}) + b"\n\n"


def _head(completion: ChatCompletion) -> dict[str, object]:
    return {"id": completion.id, "type": "message", "role": "assistant", "model": completion.model}


def _end(choice: Choice) -> dict[str, object]:
    reason = choice.raw_finish_reason or _STOP.get(choice.finish_reason, choice.finish_reason)
    if choice.stop_sequence is not None:
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": choice.stop_sequence}


def _input(usage: Usage | None, request: ChatRequest) -> dict[str, object]:
    usage = usage or Usage()
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "inference_geo": request.extra.get("inference_geo", "global"),
    }


def _output(usage: Usage | None) -> dict[str, object]:
    usage = usage or Usage()
    thinking = {"thinking_tokens": usage.reasoning_tokens}
    return {"output_tokens": usage.completion_tokens, "output_tokens_details": thinking}


def _blocks(choice: Choice, model: str) -> Iterator[dict[str, object]]:
    message = choice.message
    if message.reasoning:
        thought = message.reasoning
        yield {"type": "thinking", "thinking": thought, "signature": signature_of(model, thought)}
    if text := text_of(message.content) + (message.refusal or ""):
        yield {"type": "text", "text": text}
    for call in message.tool_calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_of(call)}


def _block_events(index: int, block: Mapping[str, object]) -> Iterator[bytes]:
    """Yield the events of a block. The first piece of a call's input is always empty."""
    deltas: list[dict[str, object]]
    match block["type"]:
        case "thinking":
            empty = {**block, "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in cut(str(block["thinking"]))]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "text":
            empty = {**block, "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in cut(str(block["text"]))]
        case _:
            empty = {**block, "input": {}}
            pieces = ("", *cut_in_two(dumps(block["input"]).decode())) if block["input"] else ("",)
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    yield _event("content_block_start", index=index, content_block=empty)
    for delta in deltas:
        yield _event("content_block_delta", index=index, delta=delta)
    yield _event("content_block_stop", index=index)


SIMULATOR = AnthropicSimulator()
VERTEX = VertexSimulator()
