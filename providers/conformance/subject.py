"""The subject of a test: an adapter, its simulator and one of its models."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from urllib.parse import urlencode

from providers import auth
from providers.adapter import Adapter, EmulatesFeatures, Target, known_models
from providers.catalogue.models import ModelFacts, model_facts
from providers.chat import ChatCompletion, ChatRequest, StreamEvent
from providers.matching.requirements import PARAMETERS
from providers.reading.folding import expand, fold
from providers.reading.json_object import JSON_OBJECT, with_json_instruction
from providers.reading.response_reader import read_answer
from providers.testkit.simulator import (
    SERVER_SENT_EVENTS,
    IncomingRequest,
    Simulator,
    lacked_by,
    stream_type_of,
    uncounted_by,
)
from providers.value import Value, replace
from providers.wire import WireRequest, WireResponse

ORIGIN = "https://provider.test"
_SECRET = auth.Secret("conformance:secret")
_RECEIVED_AT = 1_795_000_000.0
_UNKNOWN_MODEL = "some-model"


class Subject(Value, frozen=True):
    """An adapter, its simulator and one model, with functions that pass requests and answers between the two."""

    adapter: Adapter
    simulator: Simulator
    model: str
    facts: ModelFacts

    def __str__(self) -> str:
        return f"{self.adapter.name}-{self.model}"

    @property
    def is_invented(self) -> bool:
        """Whether the adapter does not know the model, which has everything that the adapter claims."""
        return self.model == _UNKNOWN_MODEL

    @property
    def features(self) -> frozenset[str]:
        """The features that both the adapter and the model claim."""
        return self.adapter.capabilities.features & self.facts.features

    @property
    def parameters(self) -> frozenset[str]:
        """The canonical parameters that both the adapter and the model claim."""
        return (self.adapter.capabilities.parameters & PARAMETERS) - self.facts.without

    @property
    def streams_text(self) -> bool:
        """Whether its streams are server-sent events."""
        return stream_type_of(self.simulator) == SERVER_SENT_EVENTS

    @property
    def streams_lines(self) -> bool:
        """Whether its streams are lines of JSON (JSON Lines)."""
        kind = stream_type_of(self.simulator).partition(";")[0].strip().lower()
        return kind in ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines")

    @property
    def uncounted(self) -> frozenset[str]:
        """The usage counts that the provider does not report."""
        return uncounted_by(self.simulator)

    @property
    def lacks(self) -> frozenset[str]:
        """The failure kinds that the provider does not have."""
        return lacked_by(self.simulator)

    @property
    def target(self) -> Target:
        """The target of the kit's requests, which is the adapter's first site."""
        site = next(iter(self.adapter.sites.values()), None)
        return Target(self.model, site.base_path if site else "/v1", self.facts)

    def build(self, request: ChatRequest) -> WireRequest:
        """Build the request in the adapter's wire format.

        The adapter gets a copy. Cases share tools, and a change of one would hide the same change in a later case.
        """
        return self.adapter.build_request(deepcopy(request), self.target)

    def read(self, wire: WireRequest) -> ChatRequest:
        """Return the request as the simulator reads it. Raises RequestRejected."""
        return self.simulator.read_request(self.incoming(wire))

    def incoming(self, wire: WireRequest) -> IncomingRequest:
        """Return the request as the simulator receives it, with a credential."""
        return incoming_of(auth.apply(self.adapter.auth, wire, ORIGIN, _SECRET, _RECEIVED_AT))

    def worded(self, request: ChatRequest) -> ChatRequest:
        """Return the request with the features that the adapter emulates in words."""
        emulated = self.adapter.emulated if isinstance(self.adapter, EmulatesFeatures) else frozenset[str]()
        return with_json_instruction(request) if JSON_OBJECT in emulated else request

    def received(self, request: ChatRequest) -> ChatRequest:
        """Build the request and return it as the simulator reads it."""
        return self.read(self.build(request))

    def written(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """Write the answer to the request with the simulator."""
        return self.simulator.write_answer(completion, self.received(request))

    def answer(self, completion: ChatCompletion, request: ChatRequest) -> ChatCompletion:
        """Write the answer with the simulator and return it as the adapter reads it. Raises ProviderFailed."""
        response = replace(self.written(completion, request), received_at=_RECEIVED_AT)
        return read_answer(self.adapter, response, self.target)

    def stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """Write the answer as a stream with the simulator, whatever the adapter asks for. Each item is one event."""
        asked = replace(request, stream=True, include_usage=True)
        received = self.received(asked)
        if not received.stream:
            received = replace(received, stream=True, include_usage=True)
        return self.simulator.write_stream(completion, received)

    def events(self, *pieces: bytes) -> tuple[StreamEvent, ...]:
        """Return the adapter's events for a stream that arrives in the given pieces."""
        return parse_stream(self.adapter, self.target, pieces)

    def folded(self, *pieces: bytes) -> ChatCompletion:
        """Fold a stream into a whole answer. Raises ProviderFailed."""
        return fold(self.events(*pieces))

    def response(self, body: bytes, status: int = 200, content_type: str = "application/json") -> WireResponse:
        return WireResponse(status, {"content-type": content_type}, body, _RECEIVED_AT)


def parse_stream(adapter: Adapter, target: Target, pieces: Iterable[bytes]) -> tuple[StreamEvent, ...]:
    """Return all events of a stream, with its text runs expanded into deltas."""
    parser = adapter.stream_parser(target)
    events = [event for piece in pieces for event in parser.feed(piece)]
    return tuple(expand([*events, *parser.close()]))


def incoming_of(wire: WireRequest) -> IncomingRequest:
    """Return the request as a server receives it."""
    headers = {name.lower(): value for name, value in wire.headers}
    body = b"".join((wire.body, *map(bytes, wire.rest)))
    headers |= {"host": ORIGIN.removeprefix("https://"), "content-length": str(len(body))}
    return IncomingRequest(wire.method, wire.path, urlencode(wire.query), headers, body)


def subjects_of(adapter: Adapter, simulator: Simulator) -> tuple[Subject, ...]:
    """Return a subject for each model family of the adapter, and one for the claims that no family has.

    Operators also use models that the adapter does not know, with everything that the adapter claims. So a claim that
    no known model has is tested with an invented model. An adapter without models has only this subject.
    """
    models = known_models(adapter)
    names = [_member_of(family) for family in models]
    families = tuple(Subject(adapter, simulator, name, model_facts(models, name)) for name in names)
    invented = Subject(adapter, simulator, _UNKNOWN_MODEL, ModelFacts(features=adapter.capabilities.features))
    untested = (invented.features | invented.parameters).difference(
        *(family.features | family.parameters for family in families)
    )
    return (*families, invented) if untested or not families else families


def _member_of(family: str) -> str:
    """Return a model name that matches the family's glob pattern."""
    name = ""
    for character in family:
        name += ("4" if character == "?" or name.endswith(("-", ".")) else "") if character in "*?" else character
    return name
