"""The simulator of OpenAI's two APIs.

This module checks path and key, and writes the answers of chat completions; `providers.openai_json` reads their
requests. `responses_simulator` reads the requests of the Responses API, and writes its answers. Unknown fields are
ignored, and no model refuses a parameter.

Source of formats and refusals: openai 3.51.0 (request, response and chunk types) and captured error bodies, read
2026-11-20.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from providers.catalogue import FactsFile
from providers.chat import ChatCompletion, ChatRequest
from providers.compatible.simulator_answer import END, encode_answer, encode_chunks, encode_event, read_simulator_format
from providers.failures import FailureKind, InvalidRequest, UnsupportedFeature
from providers.inputs.embeddings.formats import Encoding, decode_embedding_request, encode_embeddings
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.inputs.moderations import decode_moderation_request, encode_moderations
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.json_values import JsonError, as_map, dumps, loads, read_str
from providers.moderations.values import ModerationAnswer, ModerationRequest
from providers.openai_json import decode_request
from providers.testkit.simulated_audio import answer_audio
from providers.testkit.simulated_inputs import answer_decisions, read_sent_rerank, write_sent_rerank
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.value import replace
from providers.vendors.openai.responses_simulator import read_body, wants_response, write_events, write_response
from providers.wire import WireResponse

_CHAT, _RESPONSES = "/chat/completions", "/responses"
_EMBEDDINGS, _MODERATIONS = "/embeddings", "/moderations"
_FORMAT = replace(
    read_simulator_format(as_map(FactsFile("providers.vendors.openai", "openai").read()["simulator"])),
    choice={"logprobs": None},
    message={"refusal": None},
)
_HIDES_REASONING = re.compile(r"gpt-(?!oss)|o\d")
_OPENAI_HEARS = re.compile(rb"\r\n(?:whisper-1|gpt-[a-z0-9-]*)\r\n")
"""The names of OpenAI's own transcribers, as a form has them. Servers of one's own have others."""
_HEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class OpenAISimulator:
    """See `providers.testkit.simulator.Simulator`."""

    name: str = "openai"

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
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
        body = as_map(loads(incoming.body))
        encoding: Encoding = "base64" if body.get("encoding_format") == "base64" else "float"
        return _sent(encode_embeddings(answer, read_str(body, "model") or "", encoding))

    def write_moderations(self, answer: ModerationAnswer, incoming: IncomingRequest) -> WireResponse:
        model = read_str(as_map(loads(incoming.body)), "model") or "omni-moderation-latest"
        return _sent(encode_moderations(answer, model, "modr-simulated"))

    def read_rerank(self, incoming: IncomingRequest) -> RerankRequest | None:
        """See `providers.testkit.simulator.SimulatesRerank`. OpenAI itself has none, but operators' own servers do."""
        return read_sent_rerank("openai-compatible", incoming, _check_head, lambda message: _refused(400, message))

    def write_rerank(self, answer: RerankAnswer, incoming: IncomingRequest) -> WireResponse:
        return write_sent_rerank("openai-compatible", answer, incoming)

    def answer_decisions(self, incoming: IncomingRequest) -> WireResponse | None:
        """See `providers.testkit.simulator.SimulatesDecisions`. Operators' own servers have other models."""
        name = self.name if b'"gpt-6-luna"' in incoming.body else "openai-compatible"
        return answer_decisions(name, incoming, _check_head, lambda message: _refused(400, message))

    def answer_audio(self, incoming: IncomingRequest) -> WireResponse | None:
        """See `providers.testkit.simulator.SimulatesAudio`. OpenAI itself speaks no more, but operators' servers do."""
        is_own = incoming.path.endswith("/speech") or not _OPENAI_HEARS.search(incoming.body[:_HEAD_BYTES])
        name = "openai-compatible" if is_own else self.name
        return answer_audio(name, incoming, _check_key, lambda message: _refused(400, message))

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        if wants_response(request):
            return _response(200, write_response(completion, request), completion.id)
        return _response(200, encode_answer(_shown(completion), _FORMAT), completion.id)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `providers.testkit.simulator.Simulator`. Usage is sent only if the request asks for it."""
        if wants_response(request):
            return write_events(completion, request)
        events: list[bytes] = []
        for chunk in encode_chunks(_shown(completion), _FORMAT, request.include_usage):
            if chunk["choices"]:
                # The vendor pads a chunk, so that its length does not reveal the length of the text.
                chunk["obfuscation"] = hashlib.sha256(f"{completion.id}{len(events)}".encode()).hexdigest()[:8]
            without_usage = {"usage": None} if request.include_usage else {}
            events.append(encode_event({**without_usage, **chunk}, _FORMAT))
        return (*events, END)

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        response = _response(status, _error(kind), f"req_simulated_{kind.value}")
        if retry_after_s is None:
            return response
        whole = float(retry_after_s).is_integer()
        wait = ("retry-after", f"{retry_after_s:.0f}") if whole else ("retry-after-ms", f"{retry_after_s * 1000:.0f}")
        return WireResponse(status, {**response.headers, wait[0]: wait[1]}, response.body, 0)

    def write_error_event(self, kind: FailureKind) -> bytes:
        return encode_event(_error(kind), _FORMAT)


def _check_head(incoming: IncomingRequest) -> None:
    """Check method, key and content type of a request. Raises RequestRejected."""
    _check_key(incoming)
    if incoming.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _refused(400, "The content type must be 'application/json'.")


def _check_key(incoming: IncomingRequest) -> None:
    """Check method and key of a request. Raises RequestRejected."""
    if incoming.method != "POST":
        raise _refused(405, f"Not allowed to {incoming.method} on {incoming.path}")
    if not incoming.bearer:
        raise _refused(401, "You didn't provide an API key.", "invalid_api_key")


def _sent(body: bytes) -> WireResponse:
    return WireResponse(200, {"content-type": "application/json", "x-request-id": "req_simulated"}, body, 0)


def _refused(status: int, message: str, code: str | None = None, param: str | None = None) -> RequestRejected:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return RequestRejected(message, _response(status, {"error": error}, "req_simulated_refused"))


def _response(status: int, body: Mapping[str, object], request_id: str) -> WireResponse:
    return WireResponse(status, {"content-type": "application/json", "x-request-id": request_id}, dumps(body), 0)


def _error(kind: FailureKind) -> dict[str, object]:
    code, error_type = _FORMAT.errors.get(kind, ("", "server_error"))
    message = f"Simulated failure: {kind.value}."
    return {"error": {"message": message, "type": error_type, "param": None, "code": code or None}}


def _shown(completion: ChatCompletion) -> ChatCompletion:
    """Return the answer as this model shows it: OpenAI's own models never show reasoning, compatible servers do."""
    if not _HIDES_REASONING.match(completion.model):
        return completion
    shown = (replace(choice, message=replace(choice.message, reasoning=None)) for choice in completion.choices)
    return replace(completion, choices=tuple(shown))


SIMULATOR = OpenAISimulator()
