"""The simulator for all compatible vendors. It reads the same TOML file as the adapter.

acme = "providers.compatible.simulator:acme"        entry point in this repository: reads providers/compatible/acme.toml
SIMULATOR = simulator_of(files("acme").joinpath("acme.toml").read_text())         in another package
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from providers.auth import HeaderKey, NoAuth
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, model_facts
from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, Choice, Usage
from providers.compatible.adapter import CompatibleAdapter, adapter_named, adapter_of, facts_of
from providers.compatible.simulator_answer import (
    SimulatorFormat,
    encode_answer,
    encode_event,
    encode_stream,
    error_body,
    filled_error,
    read_simulator_format,
)
from providers.compatible.simulator_request import as_openai, objections
from providers.failures import FailureKind, InvalidRequest
from providers.inputs.embeddings.facts import load_embedding_facts
from providers.inputs.embeddings.formats import Encoding, decode_embedding_request, encode_embeddings
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.json_values import JsonError, as_map, dumps, loads, read_str
from providers.openai_json import decode_request
from providers.testkit.simulated_audio import answer_audio
from providers.testkit.simulated_inputs import answer_decisions, read_sent_rerank, write_sent_rerank
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.value import replace
from providers.wire import WireResponse

_PAYMENT_REQUIRED = 402
_PLACEHOLDER = re.compile(r"\{[a-z]+\}")
_SENTENCES = {
    # Most vendors without a sentence of their own run vLLM, or repeat its sentence.
    FailureKind.CONTEXT_LENGTH: "This model's maximum context length is 131072 tokens. However, your request has "
    "200000 input tokens. Please reduce the length of the input messages."
}
_FILTERED = ChatCompletion(
    "simulated-filter", "simulated", 0, (Choice(AssistantMessage(""), "content_filter"),), Usage(1, 0)
)


@dataclass(frozen=True, slots=True)
class CompatibleSimulator:
    """The simulator of one compatible vendor. See `providers.testkit.simulator.Simulator`.

    The dialect and the facts of the adapter decide what it accepts, and `format` (`[simulator]`) what it sends.
    """

    adapter: CompatibleAdapter
    format: SimulatorFormat

    @property
    def name(self) -> str:
        return self.adapter.name

    @property
    def lacks(self) -> frozenset[str]:
        return self.adapter.dialect.lacks

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        if not incoming.path.endswith(self.adapter.dialect.requests.paths):
            raise self._refused(404, FailureKind.MODEL_NOT_FOUND, f"unknown path: {incoming.path}")
        return self._read_chat(incoming)

    def read_count(self, incoming: IncomingRequest) -> ChatRequest | None:
        path = self.adapter.dialect.requests.count_path
        return self._read_chat(incoming) if path and incoming.path.endswith(path) else None

    def write_count(self, tokens: int, incoming: IncomingRequest) -> WireResponse:
        """See `providers.testkit.simulator.SimulatesCounts`. Servers with `/tokenize` also list the tokens."""
        of_tokenizer = {"count": tokens, "max_model_len": 131_072, "tokens": []}
        body = of_tokenizer if incoming.path.endswith("/tokenize") else {"input_tokens": tokens}
        return WireResponse(200, _headers("simulated-count"), dumps(body), 0)

    def _read_chat(self, incoming: IncomingRequest) -> ChatRequest:
        self._check_head(incoming)
        try:
            # A value that a site pins needs no further check.
            pinned = [site.pins for site in self.adapter.sites.values()]
            # Some official clients send every field that they know, with null for those that are not set.
            body = {
                name: value
                for name, value in as_map(loads(incoming.body)).items()
                if value is not None and not any(name in pins and pins[name] == value for pins in pinned)
            }
        except JsonError:
            raise self._wrong("the body is not valid JSON") from None
        facts = model_facts(self.adapter.models, read_str(body, "model") or "")
        if facts is UNKNOWN_MODEL:
            facts = ModelFacts(features=self.adapter.capabilities.features)
        for objection in objections(body, self.adapter.dialect, facts, incoming.path):
            raise self._wrong(objection)
        try:
            return decode_request(as_openai(body, self.adapter.dialect, facts))
        except InvalidRequest as error:
            raise self._wrong(str(error)) from None

    def read_input(self, incoming: IncomingRequest) -> EmbeddingRequest | None:
        """See `providers.testkit.simulator.SimulatesInputs`. It refuses inputs that the vendor's facts do not list."""
        vendor = load_embedding_facts(self.name)
        if vendor is None or not incoming.path.endswith(vendor.path):
            return None
        self._check_head(incoming)
        try:
            body = dict(as_map(loads(incoming.body)))
            facts = vendor.facts(read_str(body, "model") or "")
            if vendor.dimensions_field in body:
                if not facts.shortens:
                    raise self._wrong("the model does not have this parameter: dimensions")
                body["dimensions"] = body.pop(vendor.dimensions_field)
            elif "dimensions" in body:
                raise self._wrong("unknown parameter: dimensions")
            request, encoding = decode_embedding_request(body)
        except JsonError:
            raise self._wrong("the body is not valid JSON") from None
        except InvalidRequest as error:
            raise self._wrong(str(error)) from None
        if len(request.inputs) > facts.most_inputs:
            raise self._wrong("Too many inputs in request, split into more batches.")
        if request.takes_tokens and not facts.takes_tokens:
            raise self._wrong("input must be a text or a list of texts")
        if (encoding == "base64" and not facts.base64) or (request.user is not None and not facts.takes_user):
            raise self._wrong("unknown parameter: encoding_format or user")
        return request

    def write_embeddings(self, answer: EmbeddingAnswer, incoming: IncomingRequest) -> WireResponse:
        body = as_map(loads(incoming.body))
        encoding: Encoding = "base64" if body.get("encoding_format") == "base64" else "float"
        shown = as_map(loads(encode_embeddings(answer, read_str(body, "model") or "", encoding)))
        sent = dumps({"id": "simulated-embeddings", "created": 1_795_000_000, **shown})
        return WireResponse(200, _headers("simulated-embeddings"), sent, 0)

    def read_rerank(self, incoming: IncomingRequest) -> RerankRequest | None:
        return read_sent_rerank(self.name, incoming, self._check_head, self._wrong)

    def write_rerank(self, answer: RerankAnswer, incoming: IncomingRequest) -> WireResponse:
        return write_sent_rerank(self.name, answer, incoming)

    def answer_decisions(self, incoming: IncomingRequest) -> WireResponse | None:
        return answer_decisions(self.name, incoming, self._check_head, self._wrong)

    def answer_audio(self, incoming: IncomingRequest) -> WireResponse | None:
        return answer_audio(self.name, incoming, self._check_key, self._wrong)

    def _check_key(self, incoming: IncomingRequest) -> None:
        if incoming.method != "POST":
            raise self._refused(405, FailureKind.INVALID_REQUEST, "only POST is allowed")
        if not self._has_key(incoming):
            raise self._refused(401, FailureKind.CREDENTIALS, "the API key is missing")

    def _check_head(self, incoming: IncomingRequest) -> None:
        self._check_key(incoming)
        if incoming.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise self._wrong("the content type must be application/json")

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        body = self.format.blank.encode() + dumps(encode_answer(completion, self.format))
        return WireResponse(200, _headers(completion.id), body, 0)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        wants_usage = request.include_usage or not self.adapter.dialect.requests.stream_options
        return tuple(encode_stream(completion, self.format, wants_usage))

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        if self._filters_by_finish(kind):
            body = dumps(encode_answer(_FILTERED, self.format))
            return WireResponse(200, _headers("simulated-filter"), body, 0)
        if kind is FailureKind.QUOTA and kind not in self.format.errors:
            status = _PAYMENT_REQUIRED  # a vendor without a code for a spent quota shows it by the status
        headers = _headers(f"simulated-{kind.value}")
        if retry_after_s is not None:
            headers["retry-after"] = f"{retry_after_s:g}"
        return WireResponse(status, headers, dumps(error_body(kind, self.format, self._message(kind))), 0)

    def write_error_event(self, kind: FailureKind) -> bytes:
        if self._filters_by_finish(kind):
            *_, finish, _ = encode_stream(
                replace(_FILTERED, usage=None), replace(self.format, whole_at_end=False), False
            )
            return finish
        body = error_body(kind, self.format, self._message(kind))
        # A message alone is not an error, so the name of the event must state it.
        name = b"" if body.get("error") or body.get("code") or body.get("type") else b"event: error\n"
        return name + encode_event(body, self.format)

    def _message(self, kind: FailureKind) -> str:
        """Return the vendor's sentence for a failure, because some vendors have no code for it."""
        sentences = (one for one, of in self.adapter.dialect.errors.messages.kinds.items() if of is kind)
        sentence = self.format.messages.get(kind) or next(sentences, _SENTENCES.get(kind))
        return _PLACEHOLDER.sub("200000", sentence) if sentence else f"Simulated failure: {kind.value}."

    def _filters_by_finish(self, kind: FailureKind) -> bool:
        """Return whether the vendor reports a filtered answer only by its finish reason."""
        return kind is FailureKind.CONTENT_FILTER and kind not in self.format.errors

    def _has_key(self, incoming: IncomingRequest) -> bool:
        match self.adapter.auth:
            case NoAuth():
                return True
            case HeaderKey(name, or_token):
                return bool(incoming.headers.get(name)) or (or_token and bool(incoming.bearer))
            case _:
                return bool(incoming.bearer)

    def _refused(self, status: int, kind: FailureKind, message: str) -> RequestRejected:
        body = dumps(error_body(kind, self.format, message))
        return RequestRejected(message, WireResponse(status, _headers("simulated-refused"), body, 0))

    def _wrong(self, message: str) -> RequestRejected:
        code, error_type, status = self.format.refused
        body = dumps(filled_error(self.format, code, error_type, message))
        return RequestRejected(message, WireResponse(status, _headers("simulated-refused"), body, 0))


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": "application/json", "x-request-id": request_id}


def simulator_of(toml: str) -> CompatibleSimulator:
    """Return the simulator of the vendor that a TOML text describes with `[dialect]` and `[simulator]`.

    Raises DialectError, whose message names the place.
    """
    data: Mapping[str, Any] = tomllib.loads(toml)
    return CompatibleSimulator(adapter_of(toml), read_simulator_format(data.get("simulator", {})))


@cache
def simulator_named(name: str) -> CompatibleSimulator:
    """Return the simulator of `providers/compatible/NAME.toml`. Raises FileNotFoundError."""
    data: Any = facts_of(name).read()
    return CompatibleSimulator(adapter_named(name), read_simulator_format(data.get("simulator", {})))


def __getattr__(name: str) -> CompatibleSimulator:
    """Return the simulator of a TOML file for an entry point: `vendor_compatible` reads vendor-compatible.toml."""
    try:
        return simulator_named(name.replace("_", "-"))
    except FileNotFoundError:
        raise AttributeError(f"no compatible vendor {name!r}: there is no such TOML file") from None
