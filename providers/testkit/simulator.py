"""What a simulator of a provider is, and the registry of simulators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

from providers.chat import ChatCompletion, ChatRequest
from providers.failures import FailureKind, ProviderError
from providers.registry import check_members, load_group
from providers.wire import WireResponse

__all__ = [
    "GROUP",
    "SERVER_SENT_EVENTS",
    "HasStreamType",
    "HidesUsage",
    "IncomingRequest",
    "NoSimulator",
    "Refused",
    "RequestRejected",
    "Simulator",
    "Simulators",
    "check_simulator",
    "load_simulators",
    "stream_type_of",
    "uncounted_by",
]


# No charset: some official clients compare the whole value.
SERVER_SENT_EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A request as it came off the wire: `path` without the query, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class RequestRejected(ProviderError):
    """The provider would reject this request. `response` is the error response that it would send."""

    def __init__(self, reason: str, response: WireResponse) -> None:
        super().__init__(reason)
        self.response = response


Refused = RequestRejected
"""The former name of `RequestRejected`, for plug-ins that import it."""


class Simulator(Protocol):
    """One provider's wire format, from the provider's side."""

    @property
    def name(self) -> str:
        """The adapter's name."""
        ...

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        """Return the canonical request. `model` is the provider's model as the body or the path names it.

        Raises RequestRejected for a wrong path, a missing key, and a body without what an answer needs. A simulator
        also refuses unknown fields and wrong shapes, unless tests check requests against a schema of the vendor.
        """
        ...

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """A whole answer as the provider sends it."""
        ...

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """The same answer as a stream, one element per event, text cut into pieces; the end mark, if any, is last."""
        ...

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """An HTTP error of this kind in the provider's shape and, where it has one, with its way to name a wait.

        With another status than this one where the provider has no word for the kind: 402 is a spent quota by itself.
        """
        ...

    def write_error_event(self, kind: FailureKind) -> bytes:
        """An error in the middle of a stream that began with status 200."""
        ...


@runtime_checkable
class HasStreamType(Protocol):
    """An optional member of a simulator whose streams are not server-sent events."""

    @property
    def stream_type(self) -> str:
        """The content type of its streams."""
        ...


@runtime_checkable
class HidesUsage(Protocol):
    """An optional member of a simulator whose provider leaves out a part of the usage."""

    @property
    def uncounted(self) -> frozenset[str]:
        """What the usage doesn't contain: `cached_tokens`, `reasoning_tokens`."""
        ...


def stream_type_of(simulator: Simulator) -> str:
    """Return the content type of a simulator's streams: server-sent events, or its own `stream_type`."""
    own: object = simulator.stream_type if isinstance(simulator, HasStreamType) else SERVER_SENT_EVENTS
    return own if isinstance(own, str) else SERVER_SENT_EVENTS


def uncounted_by(simulator: Simulator) -> frozenset[str]:
    """Return what the provider's usage doesn't contain: nothing, unless the simulator has an `uncounted` of its own."""
    own: object = simulator.uncounted if isinstance(simulator, HidesUsage) else frozenset()
    return own if isinstance(own, frozenset) else frozenset()


GROUP = "providers.simulators"
_METHODS = ("read_request", "write_answer", "write_stream", "write_error", "write_error_event")


class NoSimulator(LookupError):
    """A provider can't be simulated; the message says why."""


@dataclass(frozen=True, slots=True)
class Simulators:
    """Every simulator that loaded, by the name of its adapter, and the reason for each that did not."""

    dialects: Mapping[str, Simulator]
    broken: Mapping[str, str]

    def named(self, provider: str) -> Simulator:
        """Return the simulator of a provider. Raises NoSimulator."""
        if provider in self.dialects:
            return self.dialects[provider]
        if provider in self.broken:
            raise NoSimulator(f"the simulator of {provider!r} doesn't load: {self.broken[provider]}")
        raise NoSimulator(f"there is no simulator of {provider!r}: no entry point of that name in {GROUP!r}")


@cache
def load_simulators() -> Simulators:
    """Return the installed simulators. An entry point's name is the provider's name in the config."""
    return Simulators(*load_group(GROUP, check_simulator))


def check_simulator(candidate: object) -> Simulator:
    """Return the candidate if it has the members of a simulator. Raises TypeError with the names of missing ones."""
    dialect: Simulator = check_members(candidate, "dialect", ("name",), _METHODS)
    return dialect
