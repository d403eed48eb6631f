"""The simulators of Gemini's Developer API and of Vertex AI.

This module checks path and key, and writes answers and errors. `simulator_request` reads requests leniently.

Source of formats and refusals: google-genai 3.3.0, ai.google.dev and public captures; read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from providers.catalogue import FactsFile
from providers.catalogue.models import load_models, model_facts
from providers.chat import ChatCompletion, ChatRequest, Choice, Logprobs, ToolCall, Usage, text_of
from providers.failures import FailureKind, InvalidRequest
from providers.inputs.embeddings.facts import load_embedding_facts
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.json_values import JsonError, as_map, dumps, loads, read_int, read_list, read_map, read_str
from providers.testkit.answer_pieces import arguments_of, cut
from providers.testkit.simulated_inputs import answer_decisions
from providers.testkit.simulator import IncomingRequest, RequestRejected, error_words, failure_text, status_of
from providers.vendors.gemini.simulator_request import read_body, signature_of
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.gemini", "gemini")
_PATH = re.compile(r"(/[^?#]*)?/models/(?P<model>[^/?#]+):(?P<method>generateContent|streamGenerateContent)")
_EMBEDDINGS_PATH = re.compile(r"(/[^?#]*)?/models/(?P<model>[^/?#]+):batchEmbedContents")
_TASKS = frozenset(
    "RETRIEVAL_QUERY RETRIEVAL_DOCUMENT SEMANTIC_SIMILARITY CLASSIFICATION CLUSTERING QUESTION_ANSWERING"
    " FACT_VERIFICATION CODE_RETRIEVAL_QUERY".split()
)
_VERTEX_PATH = re.compile(
    r"/v1(beta1)?/projects/[^/]+/locations/[^/]+/publishers/google/models/(?P<model>[^/?#]+)"
    r":(?P<method>generateContent|streamGenerateContent)"
)
_HEADERS = {"content-type": "application/json; charset=UTF-8"}
_TYPE = "type.googleapis.com/google.rpc."
_FINISH = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "other": "OTHER"}
# The vendor always sends these kinds with its own status.
_OWN_STATUS = {FailureKind.GEO_REFUSED: 400, FailureKind.QUOTA: 429}
_WORDS = error_words(_FACTS)
_TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."


@dataclass(frozen=True, slots=True)
class GeminiSimulator:
    """See `providers.testkit.simulator.Simulator`."""

    name: str = "gemini"
    path: re.Pattern[str] = _PATH
    bearer: bool = False

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        path = self.path.fullmatch(incoming.path)
        if incoming.method != "POST" or path is None:
            raise _refused(404, "NOT_FOUND", f"Requested entity was not found: {incoming.method} {incoming.path[:200]}")
        self._check_key(incoming)
        stream = path["method"] == "streamGenerateContent"
        if stream and parse_qs(incoming.query).get("alt") != ["sse"]:
            raise _refused(400, "INVALID_ARGUMENT", "only streams of server-sent events (alt=sse) are simulated")
        try:
            return read_body(loads(incoming.body), unquote(path["model"]), stream=stream)
        except JsonError:
            raise _refused(400, "INVALID_ARGUMENT", "Invalid JSON payload received.") from None
        except InvalidRequest as error:
            raise _refused(400, "INVALID_ARGUMENT", str(error)) from None

    def read_input(self, incoming: IncomingRequest) -> EmbeddingRequest | None:
        """See `providers.testkit.simulator.SimulatesInputs`. Too many texts are refused."""
        path = _EMBEDDINGS_PATH.fullmatch(incoming.path)
        if path is None or incoming.method != "POST":
            return None
        self._check_key(incoming)
        try:
            requests = [as_map(one) for one in read_list(as_map(loads(incoming.body)), "requests")]
        except JsonError:
            raise _refused(400, "INVALID_ARGUMENT", "Invalid JSON payload received.") from None
        model = unquote(path["model"])
        vendor = load_embedding_facts(self.name)
        most = vendor.facts(model).most_inputs if vendor is not None else 1
        parts = [read_list(read_map(one, "content"), "parts") for one in requests]
        texts = tuple("".join(read_str(as_map(part), "text") or "" for part in of_one) for of_one in parts)
        if not texts or len(texts) > most or not all(texts):
            raise _refused(400, "INVALID_ARGUMENT", f"at most {most} requests can be in one batch")
        if any(read_str(one, "model") != f"models/{model}" for one in requests):
            raise _refused(400, "INVALID_ARGUMENT", "the model of each request must be that of the path")
        tasks = {read_str(one, "taskType") for one in requests} - {None}
        if not tasks <= _TASKS:
            raise _refused(400, "INVALID_ARGUMENT", "Invalid value at 'requests[0].task_type'")
        extra: dict[str, object] = {"taskType": tasks.pop()} if tasks else {}
        return EmbeddingRequest(model, texts, read_int(requests[0], "outputDimensionality"), extra=extra)

    def write_embeddings(self, answer: EmbeddingAnswer, incoming: IncomingRequest) -> WireResponse:
        """See `providers.testkit.simulator.SimulatesInputs`. The vendor reports no usage."""
        body = {"embeddings": [{"values": vector.tolist()} for vector in answer.vectors]}
        return WireResponse(200, _HEADERS, dumps(body), 0)

    def answer_decisions(self, incoming: IncomingRequest) -> WireResponse | None:
        return answer_decisions(
            self.name, incoming, self._check_key, lambda message: _refused(400, "INVALID_ARGUMENT", message)
        )

    def _check_key(self, incoming: IncomingRequest) -> None:
        # A bearer token that is an API key is not accepted.
        bears_token = bool(incoming.bearer) and not incoming.bearer.startswith(("AIza", "AQ."))
        if not (incoming.headers.get("x-goog-api-key") or (self.bearer and bears_token)):
            if self.bearer:
                raise _refused(401, "UNAUTHENTICATED", "Request is missing required authentication credential.")
            raise _refused(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        if _is_blocked(completion):
            return WireResponse(200, _HEADERS, dumps(_block(completion)), 0)
        candidates = [_candidate(choice, request.model) for choice in completion.choices]
        body = {"candidates": candidates, **_frame(completion, completion.usage)}
        return WireResponse(200, _HEADERS, dumps(body), 0)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `providers.testkit.simulator.Simulator`. There is no end mark. Each chunk has cumulative usage."""
        if _is_blocked(completion):
            return (_event(_block(completion)),)
        chunks = [[piece] for choice in completion.choices for piece in _pieces(choice, request.model)]
        chunks.append([{"finishReason": _finish(choice), "index": choice.index} for choice in completion.choices])
        return tuple(
            _event({"candidates": chunk, **_frame(completion, _so_far(completion.usage, number, len(chunks)))})
            for number, chunk in enumerate(chunks, 1)
        )

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """See `Simulator`. A filtered prompt gets an answer without candidates, not an error."""
        if kind is FailureKind.CONTENT_FILTER:
            return WireResponse(200, _HEADERS, dumps({"promptFeedback": {"blockReason": "SAFETY"}}), 0)
        status = _OWN_STATUS.get(kind, status)
        details = _details(kind, status)
        if retry_after_s is not None:
            delay = f"{retry_after_s:.9f}".rstrip("0").rstrip(".")
            details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{delay}s"})
        return _error(status, _WORDS.of(kind, status), failure_text(kind, _TOO_LONG), details)

    def write_error_event(self, kind: FailureKind) -> bytes:
        """See `providers.testkit.simulator.Simulator`. A filtered answer ends with the finish reason `SAFETY`."""
        if kind is FailureKind.CONTENT_FILTER:
            return _event({"candidates": [{"finishReason": "SAFETY", "index": 0}]})
        status = 403 if kind is FailureKind.CREDENTIALS else status_of(kind)
        return _event(as_map(loads(self.write_error(kind, status).body)))


def _refused(status: int, status_word: str, message: str) -> RequestRejected:
    return RequestRejected(message, _error(status, status_word, message))


def _error(status: int, status_word: str, message: str, details: Sequence[object] = ()) -> WireResponse:
    error: dict[str, object] = {"code": status, "message": message, "status": status_word}
    if details:
        error["details"] = list(details)
    return WireResponse(status, _HEADERS, dumps({"error": error}), 0)


def _details(kind: FailureKind, status: int) -> list[object]:
    if kind is FailureKind.CREDENTIALS and status == 400:
        domain = "googleapis.com"
        return [{"@type": f"{_TYPE}ErrorInfo", "reason": "API_KEY_INVALID", "domain": domain}]
    if kind in (FailureKind.QUOTA, FailureKind.RATE_LIMITED):
        span = "PerDay" if kind is FailureKind.QUOTA else "PerMinute"
        violation = {"quotaMetric": "simulated/requests", "quotaId": f"GenerateRequests{span}PerProjectPerModel"}
        return [{"@type": f"{_TYPE}QuotaFailure", "violations": [violation]}]
    return []


def _event(value: Mapping[str, object]) -> bytes:
    return b"data: " + dumps(value) + b"\r\n\r\n"


def _frame(completion: ChatCompletion, usage: Usage | None) -> dict[str, object]:
    frame: dict[str, object] = {"modelVersion": completion.model, "responseId": completion.id}
    if usage is not None:
        frame["usageMetadata"] = {
            "promptTokenCount": usage.prompt_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "candidatesTokenCount": usage.completion_tokens - usage.reasoning_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "totalTokenCount": usage.total_tokens,
        }
    return frame


def _so_far(usage: Usage | None, number: int, count: int) -> Usage | None:
    """Return the usage after `number` of `count` chunks."""
    if usage is None:
        return None
    reasoning = usage.reasoning_tokens * number // count
    answer = (usage.completion_tokens - usage.reasoning_tokens) * number // count
    return Usage(usage.prompt_tokens, answer + reasoning, usage.cached_tokens, reasoning)


def _is_blocked(completion: ChatCompletion) -> bool:
    """Return whether the prompt itself was filtered, so that there is no content."""
    first = completion.choices[0]
    is_empty = not text_of(first.message.content) and not first.message.reasoning and not first.message.tool_calls
    return len(completion.choices) == 1 and is_empty and first.finish_reason == "content_filter"


def _block(completion: ChatCompletion) -> dict[str, object]:
    reason = completion.choices[0].raw_finish_reason or "SAFETY"
    return {"promptFeedback": {"blockReason": reason}, **_frame(completion, completion.usage)}


def _finish(choice: Choice) -> str:
    return choice.raw_finish_reason or _FINISH[choice.finish_reason]


def _candidate(choice: Choice, model: str) -> dict[str, object]:
    message = choice.message
    parts: list[dict[str, object]] = []
    if message.reasoning:
        parts.append({"text": message.reasoning, "thought": True})
    if text := text_of(message.content) + (message.refusal or ""):
        parts.append({"text": text})
    parts += _calls(message.tool_calls, model)
    candidate: dict[str, object] = {"content": {"parts": parts or [{"text": ""}], "role": "model"}}
    if choice.logprobs:
        candidate["logprobsResult"] = _logprobs(choice.logprobs)
    return {**candidate, "finishReason": _finish(choice), "index": choice.index}


def _pieces(choice: Choice, model: str) -> Iterator[dict[str, object]]:
    """Yield the candidate of each chunk except the last. Text is sent in pieces, a function call as a whole."""
    message = choice.message
    text = text_of(message.content) + (message.refusal or "")
    for piece in cut(message.reasoning or ""):
        yield _piece(choice, {"text": piece, "thought": True})
    if choice.logprobs:
        yield {**_piece(choice, {"text": text}), "logprobsResult": _logprobs(choice.logprobs)}
    else:
        for piece in cut(text):
            yield _piece(choice, {"text": piece})
    for call in _calls(message.tool_calls, model):
        yield _piece(choice, call)


def _piece(choice: Choice, part: dict[str, object]) -> dict[str, object]:
    return {"content": {"parts": [part], "role": "model"}, "index": choice.index}


def _calls(calls: Sequence[ToolCall], model: str) -> list[dict[str, object]]:
    """Return the function calls. From Gemini 3 they have ids, and the first one has a signature."""
    ids = "call_ids" in model_facts(load_models(_FACTS), model).flags
    parts: list[dict[str, object]] = []
    for position, call in enumerate(calls):
        function = {**({"id": call.id} if ids else {}), "name": call.name, "args": arguments_of(call)}
        part: dict[str, object] = {"functionCall": function}
        if signature := call.signature or (signature_of(model) if ids and position == 0 else None):
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _logprobs(logprobs: Logprobs) -> dict[str, object]:
    tokens = [as_map(token) for token in read_list(logprobs, "content")]
    return {
        "chosenCandidates": [_token(token) for token in tokens],
        "topCandidates": [
            {"candidates": [_token(as_map(other)) for other in read_list(token, "top_logprobs")]} for token in tokens
        ],
    }


def _token(token: Mapping[str, object]) -> dict[str, object]:
    return {"token": read_str(token, "token") or "", "logProbability": token.get("logprob")}


SIMULATOR = GeminiSimulator()
VERTEX = GeminiSimulator("vertex", _VERTEX_PATH, bearer=True)
