"""Check requests as strictly as the vendors do: by their own schemas, and by the rules that no schema expresses.

The simulators of these vendors read leniently. `request_errors` checks one request. `CheckedSimulator` rejects invalid
requests in tests that run through a simulator.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from providers.catalogue import FactsFile
from providers.catalogue.models import ModelFacts, load_models, model_facts
from providers.chat import ChatCompletion, ChatRequest
from providers.failures import FailureKind
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.json_values import as_map, dumps, loads, read_str
from providers.moderations.values import ModerationAnswer, ModerationRequest
from providers.testkit.simulator import (
    IncomingRequest,
    RequestRejected,
    SimulatesAudio,
    SimulatesCounts,
    SimulatesInputs,
    SimulatesModerations,
    Simulator,
    load_simulators,
    stream_type_of,
)
from providers.value import replace
from providers.wire import WireResponse
from tests.kit.vendor_checks.anthropic import messages_errors
from tests.kit.vendor_checks.bedrock import converse_errors
from tests.kit.vendor_checks.gemini import generate_errors
from tests.kit.vendor_checks.openai import chat_errors, responses_errors
from tests.kit.vendor_checks.schemas import as_gemini_reads, has_schema, schema_errors

CHECKED_VENDORS = ("openai", "openai-compatible", "anthropic", "anthropic-vertex", "gemini", "vertex", "bedrock")
_ANY_REASON = b"Simulated failure: invalid_request."


def request_errors(vendor: str, incoming: IncomingRequest) -> list[str]:
    """Return the errors for which the vendor would refuse a request. `vendor` is the name of a simulator."""
    if vendor == "anthropic-vertex":
        vendor, incoming = "anthropic", as_messages(incoming)
    body = loads(incoming.body)
    found = schema_errors(vendor, incoming, body) if has_schema(vendor) else []
    return [*found, *rule_errors(vendor, incoming)]


def rule_errors(vendor: str, incoming: IncomingRequest) -> Iterator[str]:
    """Yield the errors for which the vendor would refuse a request by rules that no schema expresses."""
    body = as_map(loads(incoming.body))
    if vendor == "anthropic":
        facts = _facts(vendor, read_str(body, "model") or "")
        yield from messages_errors(body, facts, incoming.headers.get("anthropic-version", ""))
    elif vendor == "bedrock":
        yield from converse_errors(body, _facts(vendor, unquote(incoming.path.split("/")[-2])))
    elif vendor in ("gemini", "vertex"):
        model = unquote(incoming.path.rpartition("/")[2].rpartition(":")[0])
        yield from generate_errors(as_map(as_gemini_reads(body)), model, _facts("gemini", model))
    elif incoming.path.endswith("/responses"):
        yield from responses_errors(body)
    else:
        yield from chat_errors(body)


def as_messages(incoming: IncomingRequest) -> IncomingRequest:
    """Return a request to Claude on Vertex AI as one to Anthropic, whose API it is."""
    body = {name: value for name, value in as_map(loads(incoming.body)).items() if name != "anthropic_version"}
    model = unquote(incoming.path.rpartition("/")[2].rpartition(":")[0]).partition("@")[0]
    headers = {**incoming.headers, "anthropic-version": "2023-06-01"}
    return replace(incoming, path="/v1/messages", headers=headers, body=dumps({**body, "model": model}))


def _facts(vendor: str, model: str) -> ModelFacts:
    return model_facts(load_models(FactsFile(f"providers.vendors.{vendor}", vendor)), model)


def checked_simulators() -> dict[str, Simulator]:
    """Return every installed simulator. Those that read leniently get their vendor's checks."""
    known = load_simulators().simulators
    return {name: CheckedSimulator(one) if name in CHECKED_VENDORS else one for name, one in known.items()}


@dataclass(frozen=True, slots=True)
class CheckedSimulator:
    """A simulator that refuses what its vendor would refuse, with the vendor's error for an invalid request."""

    inner: Simulator

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def stream_type(self) -> str:
        return stream_type_of(self.inner)

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        request = self.inner.read_request(incoming)
        self._refuse(request_errors(self.name, incoming))
        return request

    def read_input(self, incoming: IncomingRequest) -> EmbeddingRequest | ModerationRequest | None:
        request = self.inner.read_input(incoming) if isinstance(self.inner, SimulatesInputs) else None
        if request is not None and has_schema(self.name):
            self._refuse(schema_errors(self.name, incoming, loads(incoming.body)))
        return request

    def answer_audio(self, incoming: IncomingRequest) -> WireResponse | None:
        return self.inner.answer_audio(incoming) if isinstance(self.inner, SimulatesAudio) else None

    def read_count(self, incoming: IncomingRequest) -> ChatRequest | None:
        return self.inner.read_count(incoming) if isinstance(self.inner, SimulatesCounts) else None

    def write_count(self, tokens: int, incoming: IncomingRequest) -> WireResponse:
        assert isinstance(self.inner, SimulatesCounts)
        return self.inner.write_count(tokens, incoming)

    def write_embeddings(self, answer: EmbeddingAnswer, incoming: IncomingRequest) -> WireResponse:
        assert isinstance(self.inner, SimulatesInputs)
        return self.inner.write_embeddings(answer, incoming)

    def write_moderations(self, answer: ModerationAnswer, incoming: IncomingRequest) -> WireResponse:
        assert isinstance(self.inner, SimulatesModerations)
        return self.inner.write_moderations(answer, incoming)

    def _refuse(self, errors: list[str]) -> None:
        if errors:
            reason = "; ".join(errors[:5])
            response = self.inner.write_error(FailureKind.INVALID_REQUEST, 400)
            body = response.body.replace(_ANY_REASON, dumps(reason)[1:-1])
            raise RequestRejected(reason, replace(response, body=body))

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        return self.inner.write_answer(completion, request)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        return self.inner.write_stream(completion, request)

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        return self.inner.write_error(kind, status, retry_after_s)

    def write_error_event(self, kind: FailureKind) -> bytes:
        return self.inner.write_error_event(kind)
