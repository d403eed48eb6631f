"""An adapter of this repository with one planted bug.

A bug changes the canonical request before it is built, the JSON that was built, the bytes before they are read, or the
values that were read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.adapter import Adapter, Capabilities, StreamParser, Target
from providers.auth import AuthScheme
from providers.catalogue.models import ModelFacts
from providers.chat import ChatCompletion, ChatRequest, StreamEvent
from providers.conformance.selection import Selection
from providers.conformance.subject import Subject, subjects_of
from providers.failures import Failure, ProviderFailed
from providers.json_values import dumps, loads
from providers.reading.folding import expand
from providers.sites import Site
from providers.testkit.simulator import Simulator
from providers.value import replace
from providers.vendors.anthropic.adapter import ADAPTER
from providers.vendors.openai.adapter import COMPATIBLE
from providers.vendors.openai.simulator import SIMULATOR
from providers.wire import WireRequest, WireResponse


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug: the function of each kind that it changes."""

    request: Callable[[ChatRequest], ChatRequest] = lambda request: request
    target: Callable[[Target], Target] = lambda target: target
    body: Callable[[dict[str, Any]], object] | None = None
    wire: Callable[[WireRequest], WireRequest] = lambda wire: wire
    build: Callable[[ChatRequest, Target], WireRequest] | None = None
    answer: Callable[[ChatCompletion, Target], ChatCompletion] = lambda answer, _: answer
    bytes_read: Callable[[bytes], bytes] = lambda data: data
    event: Callable[[StreamEvent], Iterable[StreamEvent]] | None = None
    parser: Callable[[Target], StreamParser] | None = None
    failure: Callable[[Failure, WireResponse], Failure] = lambda failure, _: failure
    unread: Callable[[ProviderFailed], ChatCompletion] | None = None
    claims: Capabilities | None = None


class PlantedParser:
    """The parser of an adapter with a bug."""

    def __init__(self, inner: StreamParser, bug: Bug) -> None:
        self._bug, self._inner = bug, inner

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.feed(self._bug.bytes_read(data)))

    def close(self) -> tuple[StreamEvent, ...]:
        return self._changed(self._inner.close())

    def _changed(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        change = self._bug.event
        return tuple(events) if change is None else tuple(new for one in expand(list(events)) for new in change(one))


@dataclass(frozen=True, slots=True)
class Planted:
    """An adapter with a bug."""

    bug: Bug = Bug()  # it is frozen
    inner: Adapter = ADAPTER

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def capabilities(self) -> Capabilities:
        return self.bug.claims or self.inner.capabilities

    @property
    def sites(self) -> Mapping[str, Site]:
        return self.inner.sites

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        models: Mapping[str, ModelFacts] = getattr(self.inner, "models", {})
        return models

    @property
    def emulated(self) -> frozenset[str]:
        emulated: frozenset[str] = getattr(self.inner, "emulated", frozenset())
        return emulated

    @property
    def auth(self) -> AuthScheme:
        return self.inner.auth

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        bug = self.bug
        if bug.build is not None:
            return bug.build(request, target)
        wire = self.inner.build_request(bug.request(request), bug.target(target))
        if bug.body is not None:
            body: Any = loads(wire.body)
            bug.body(body)
            wire = replace(wire, body=dumps(body))
        return bug.wire(wire)

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        try:
            read = self.inner.parse_response(replace(response, body=self.bug.bytes_read(response.body)), target)
        except ProviderFailed as error:
            if self.bug.unread is not None:
                return self.bug.unread(error)
            raise ProviderFailed(self.bug.failure(error.failure, response)) from None
        return self.bug.answer(read, target)

    def stream_parser(self, target: Target) -> StreamParser:
        inner = self.bug.parser(target) if self.bug.parser is not None else self.inner.stream_parser(target)
        return PlantedParser(inner, self.bug)

    def classify_error(self, response: WireResponse) -> Failure:
        return self.bug.failure(self.inner.classify_error(response), response)


def subject(adapter: Adapter, simulator: Simulator = SIMULATOR) -> Subject:
    (one,) = subjects_of(adapter, SIMULATOR)
    return replace(one, simulator=simulator)


def subject_of(bug: Bug, simulator: Simulator = SIMULATOR) -> Subject:
    """Return the adapter of servers that speak OpenAI's API, with a bug."""
    return subject(Planted(bug, COMPATIBLE), simulator)


def selection_of(subject: Subject) -> Selection:
    return Selection((subject,), None)
