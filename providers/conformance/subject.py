"""What the kit holds to account: one adapter and its dialect, with one of its models."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from providers import auth
from providers.adapter import Adapter, Target, known_models
from providers.catalogue.models import ModelFacts, model_facts
from providers.chat import ChatCompletion, ChatRequest, StreamEvent
from providers.matching.requirements import PARAMETERS
from providers.reading.folding import expand, fold
from providers.reading.response_reader import read_answer
from providers.testkit.simulator import SERVER_SENT_EVENTS, IncomingRequest, Simulator, stream_type_of, uncounted_by
from providers.wire import WireRequest, WireResponse

__all__ = ["ORIGIN", "Subject", "incoming_of", "parse_stream", "subjects_of"]

ORIGIN = "https://provider.test"
_SECRET = auth.Secret("conformance:secret")
_RECEIVED_AT = 1_795_000_000.0
_UNKNOWN_MODEL = "some-model"


@dataclass(frozen=True, slots=True)
class Subject:
    """One adapter with one model of each family that it knows."""

    adapter: Adapter
    dialect: Simulator
    model: str
    facts: ModelFacts

    def __str__(self) -> str:
        return f"{self.adapter.name}-{self.model}"

    @property
    def features(self) -> frozenset[str]:
        """What both the wire format and the model claim."""
        return self.adapter.capabilities.features & self.facts.features

    @property
    def parameters(self) -> frozenset[str]:
        """The canonical tuning fields that both claim."""
        return (self.adapter.capabilities.parameters & PARAMETERS) - self.facts.without

    @property
    def streams_text(self) -> bool:
        """Whether its streams are server-sent events: others have a framing of their own, which has no lines."""
        return stream_type_of(self.dialect) == SERVER_SENT_EVENTS

    @property
    def streams_lines(self) -> bool:
        """Whether its streams are lines of JSON."""
        kind = stream_type_of(self.dialect).partition(";")[0].strip().lower()
        return kind in ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")

    @property
    def uncounted(self) -> frozenset[str]:
        """What the provider's usage doesn't tell."""
        return uncounted_by(self.dialect)

    @property
    def target(self) -> Target:
        """Where a request of the kit is built for: the adapter's first site."""
        site = next(iter(self.adapter.sites.values()), None)
        return Target(self.model, site.base_path if site else "/v1", self.facts)

    def build(self, request: ChatRequest) -> WireRequest:
        """The request in the adapter's wire format. It gets a copy: cases share tools, and what one call changed in
        them wouldn't be seen any more where that is looked for."""
        return self.adapter.build_request(deepcopy(request), self.target)

    def read(self, wire: WireRequest) -> ChatRequest:
        """What the provider understands of it; raises RequestRejected."""
        signed = auth.apply(self.adapter.auth, wire, ORIGIN, _SECRET, _RECEIVED_AT)
        return self.dialect.read_request(incoming_of(signed))

    def asked(self, request: ChatRequest) -> ChatRequest:
        """The request as it reaches the provider."""
        return self.read(self.build(request))

    def answer(self, completion: ChatCompletion, request: ChatRequest) -> ChatCompletion:
        """What the adapter makes of the provider's whole answer; raises ProviderFailed."""
        response = self.dialect.write_answer(completion, self.asked(request))
        return read_answer(self.adapter, replace(response, received_at=_RECEIVED_AT), self.target)

    def stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """The provider's answer as a stream, event by event."""
        return self.dialect.write_stream(completion, self.asked(replace(request, stream=True, include_usage=True)))

    def events(self, *pieces: bytes) -> tuple[StreamEvent, ...]:
        """What the adapter makes of a stream that comes in these pieces."""
        return parse_stream(self.adapter, self.target, pieces)

    def folded(self, *pieces: bytes) -> ChatCompletion:
        """The whole answer of a stream; raises ProviderFailed."""
        return fold(self.events(*pieces))

    def response(self, body: bytes, status: int = 200, content_type: str = "application/json") -> WireResponse:
        """A response with any body."""
        return WireResponse(status, {"content-type": content_type}, body, _RECEIVED_AT)


def parse_stream(adapter: Adapter, target: Target, pieces: Iterable[bytes]) -> tuple[StreamEvent, ...]:
    """The events of a stream from its first byte to its end, its runs of text expanded."""
    parser = adapter.stream_parser(target)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return tuple(expand([*events, *parser.close()]))


def incoming_of(wire: WireRequest) -> IncomingRequest:
    """The request as a server gets it."""
    headers = {name.lower(): value for name, value in wire.headers}
    headers |= {"host": ORIGIN.removeprefix("https://"), "content-length": str(len(wire.body))}
    return IncomingRequest(wire.method, wire.path, urlencode(wire.query), headers, wire.body)


def subjects_of(adapter: Adapter, dialect: Simulator) -> tuple[Subject, ...]:
    """One for each model family of the adapter; where it knows none, a model that can do all that the format can."""
    models = known_models(adapter)
    if not models:
        return (Subject(adapter, dialect, _UNKNOWN_MODEL, ModelFacts(features=adapter.capabilities.features)),)
    names = (_member_of(family) for family in models)
    return tuple(Subject(adapter, dialect, name, model_facts(models, name)) for name in names)


def _member_of(family: str) -> str:
    """A model's name that the family's glob pattern matches."""
    name = ""
    for character in family:
        name += ("4" if name.endswith(("-", ".")) else "") if character == "*" else character
    return name
