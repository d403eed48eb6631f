"""The simulator of OpenAI's two APIs.

This module checks path and key, and writes the answers of chat completions; `providers.openai_json` reads their
requests. `responses_simulator` reads the requests of the Responses API, and `responses_simulator_answer` writes its
answers. Unknown fields are ignored, and no model refuses a parameter.

Source of formats and refusals: openai 3.51.0 (request, response and chunk types) and captured error bodies, read
2026-11-20.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from providers.chat import ChatCompletion, ChatRequest, Choice, ToolCall, text_of
from providers.embeddings import (
    EmbeddingAnswer,
    EmbeddingRequest,
    Encoding,
    decode_embedding_request,
    encode_embeddings,
)
from providers.failures import FailureKind, InvalidRequest, UnsupportedFeature
from providers.json_values import JsonError, as_map, dumps, loads, read_str
from providers.moderations import ModerationAnswer, ModerationRequest, decode_moderation_request, encode_moderations
from providers.openai_json import decode_request, encode_usage
from providers.testkit.answer_pieces import cut, cut_in_two
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.openai.responses_simulator import read_body
from providers.vendors.openai.responses_simulator_answer import wants_response, write_events, write_response
from providers.wire import WireResponse

_CHAT, _RESPONSES = "/chat/completions", "/responses"
_EMBEDDINGS, _MODERATIONS = "/embeddings", "/moderations"
_FINGERPRINT = "fp_simulated"
_HIDES_REASONING = re.compile(r"gpt-(?!oss)|o\d")
_END = b"data: [DONE]\n\n"
# Each failure kind as (type, code).
_ERRORS: dict[FailureKind, tuple[str, str | None]] = {
    FailureKind.RATE_LIMITED: ("requests", "rate_limit_exceeded"),
    FailureKind.QUOTA: ("insufficient_quota", "insufficient_quota"),
    FailureKind.CREDENTIALS: ("invalid_request_error", "invalid_api_key"),
    FailureKind.MODEL_NOT_FOUND: ("invalid_request_error", "model_not_found"),
    FailureKind.GEO_REFUSED: ("request_forbidden", "unsupported_country_region_territory"),
    FailureKind.CONTEXT_LENGTH: ("invalid_request_error", "context_length_exceeded"),
    FailureKind.CONTENT_FILTER: ("invalid_request_error", "invalid_prompt"),
    FailureKind.INVALID_REQUEST: ("invalid_request_error", None),
}
_SERVER_ERROR = ("server_error", None)


@dataclass(frozen=True, slots=True)
class OpenAISimulator:
    """See `providers.testkit.simulator.Simulator`."""

    name: str = "openai"

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        """See `providers.testkit.simulator.Simulator`."""
        if not incoming.path.endswith((_CHAT, _RESPONSES)):
            raise _refused(404, f"Unknown request URL: {incoming.method} {incoming.path}", "unknown_url")
        _check_head(incoming)
        try:
            body = loads(incoming.body)
            return read_body(as_map(body)) if incoming.path.endswith(_RESPONSES) else decode_request(body)
        except JsonError:
            raise _refused(400, "We could not parse the JSON body of your request.") from None
        except (InvalidRequest, UnsupportedFeature) as error:
            raise _refused(400, str(error), param=error.param) from None

    def read_input(self, incoming: IncomingRequest) -> EmbeddingRequest | ModerationRequest | None:
        """See `providers.testkit.simulator.SimulatesInputs`."""
        if not incoming.path.endswith((_EMBEDDINGS, _MODERATIONS)):
            return None
        _check_head(incoming)
        try:
            body = loads(incoming.body)
            if incoming.path.endswith(_MODERATIONS):
                return decode_moderation_request(body)
            return decode_embedding_request(body)[0]
        except JsonError:
            raise _refused(400, "We could not parse the JSON body of your request.") from None
        except InvalidRequest as error:
            raise _refused(400, str(error), param=error.param) from None

    def write_embeddings(self, answer: EmbeddingAnswer, incoming: IncomingRequest) -> WireResponse:
        """See `providers.testkit.simulator.SimulatesInputs`."""
        body = as_map(loads(incoming.body))
        encoding: Encoding = "base64" if body.get("encoding_format") == "base64" else "float"
        return _sent(encode_embeddings(answer, read_str(body, "model") or "", encoding))

    def write_moderations(self, answer: ModerationAnswer, incoming: IncomingRequest) -> WireResponse:
        """See `providers.testkit.simulator.SimulatesInputs`."""
        model = read_str(as_map(loads(incoming.body)), "model") or "omni-moderation-latest"
        return _sent(encode_moderations(answer, model, "modr-simulated"))

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`."""
        if wants_response(request):
            return _response(200, write_response(completion, request), completion.id)
        body = {
            **_frame(completion, "chat.completion"),
            "choices": [_choice(choice) for choice in _shown(completion)],
            "usage": None if completion.usage is None else encode_usage(completion.usage),
        }
        return _response(200, body, completion.id)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `providers.testkit.simulator.Simulator`. Usage is sent only if the request asks for it."""
        if wants_response(request):
            return write_events(completion, request)
        frame = _frame(completion, "chat.completion.chunk")
        events: list[bytes] = []
        for choice in _deltas(_shown(completion)):
            chunk = {**frame, "choices": [choice]}
            if request.include_usage:
                chunk["usage"] = None
            # The vendor pads every chunk, so that its length does not reveal the length of the text.
            chunk["obfuscation"] = hashlib.sha256(f"{completion.id}{len(events)}".encode()).hexdigest()[:8]
            events.append(_event(chunk))
        if request.include_usage and completion.usage is not None:
            events.append(_event({**frame, "choices": [], "usage": encode_usage(completion.usage)}))
        return (*events, _END)

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`."""
        response = _response(status, _error(kind), f"req_simulated_{kind.value}")
        if retry_after_s is None:
            return response
        whole = float(retry_after_s).is_integer()
        wait = ("retry-after", f"{retry_after_s:.0f}") if whole else ("retry-after-ms", f"{retry_after_s * 1000:.0f}")
        return WireResponse(status, {**response.headers, wait[0]: wait[1]}, response.body, 0)

    def write_error_event(self, kind: FailureKind) -> bytes:
        """See `providers.testkit.simulator.Simulator`."""
        return _event(_error(kind))


def _check_head(incoming: IncomingRequest) -> None:
    """Check method, key and content type of a request. Raises RequestRejected."""
    if incoming.method != "POST":
        raise _refused(405, f"Not allowed to {incoming.method} on {incoming.path}")
    scheme, _, key = incoming.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise _refused(401, "You didn't provide an API key.", "invalid_api_key")
    if incoming.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _refused(400, "The content type must be 'application/json'.")


def _sent(body: bytes) -> WireResponse:
    return WireResponse(200, {"content-type": "application/json", "x-request-id": "req_simulated"}, body, 0)


def _refused(status: int, message: str, code: str | None = None, param: str | None = None) -> RequestRejected:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return RequestRejected(message, _response(status, {"error": error}, "req_simulated_refused"))


def _response(status: int, body: Mapping[str, object], request_id: str) -> WireResponse:
    return WireResponse(status, {"content-type": "application/json", "x-request-id": request_id}, dumps(body), 0)


def _error(kind: FailureKind) -> dict[str, object]:
    error_type, code = _ERRORS.get(kind, _SERVER_ERROR)
    return {"error": {"message": f"Simulated failure: {kind.value}.", "type": error_type, "param": None, "code": code}}


def _event(value: Mapping[str, object]) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def _frame(completion: ChatCompletion, kind: str) -> dict[str, object]:
    return {
        "id": completion.id,
        "object": kind,
        "created": completion.created,
        "model": completion.model,
        "service_tier": "default",
        "system_fingerprint": _FINGERPRINT,
    }


def _shown(completion: ChatCompletion) -> tuple[Choice, ...]:
    """Return the choices as this model shows them: OpenAI's own models never show reasoning, compatible servers do."""
    if not _HIDES_REASONING.match(completion.model):
        return completion.choices
    return tuple(replace(choice, message=replace(choice.message, reasoning=None)) for choice in completion.choices)


def _finish_reason(choice: Choice) -> str:
    return choice.raw_finish_reason or choice.finish_reason


def _choice(choice: Choice) -> dict[str, object]:
    message = choice.message
    body: dict[str, object] = {
        "role": "assistant",
        "content": None if message.content is None else text_of(message.content),
        "refusal": message.refusal,
        "annotations": [],
    }
    if message.reasoning is not None:
        body["reasoning_content"] = message.reasoning
    if message.tool_calls:
        body["tool_calls"] = [_call(call) for call in message.tool_calls]
    return {
        "index": choice.index,
        "message": body,
        "logprobs": choice.logprobs,
        "finish_reason": _finish_reason(choice),
    }


def _call(call: ToolCall) -> dict[str, object]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _deltas(choices: Sequence[Choice]) -> Iterator[dict[str, object]]:
    """Yield the choices of all chunks, in the order of a stream: roles, contents, finishes."""
    for choice in choices:
        yield _delta(choice.index, {"role": "assistant", "content": "", "refusal": None})
    for choice in choices:
        yield from _content_deltas(choice)
    for choice in choices:
        yield {"index": choice.index, "delta": {}, "logprobs": None, "finish_reason": _finish_reason(choice)}


def _content_deltas(choice: Choice) -> Iterator[dict[str, object]]:
    message, index = choice.message, choice.index
    for piece in cut(message.reasoning or ""):
        yield _delta(index, {"reasoning_content": piece})
    if choice.logprobs:
        yield {**_delta(index, {"content": text_of(message.content)}), "logprobs": choice.logprobs}
    else:
        for piece in cut(text_of(message.content)):
            yield _delta(index, {"content": piece})
    for piece in cut(message.refusal or ""):
        yield _delta(index, {"refusal": piece})
    for position, call in enumerate(message.tool_calls):
        yield _delta(index, {"tool_calls": [{"index": position, **_call(call), "function": _opening(call)}]})
        for half in cut_in_two(call.arguments):
            yield _delta(index, {"tool_calls": [{"index": position, "function": {"arguments": half}}]})


def _opening(call: ToolCall) -> dict[str, object]:
    return {"name": call.name, "arguments": ""}


def _delta(index: int, delta: dict[str, object]) -> dict[str, object]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


SIMULATOR = OpenAISimulator()
