"""The contract between an adapter and the world: what a provider's wire format looks like, as pure functions.

An adapter is a frozen value without state: no socket, no secret, no clock, no host. Who sends the bytes gives
it a `Target` and gets back a `WireRequest`; what came back goes in as a `WireResponse` or, in pieces, into a
`StreamParser`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from providers.auth import AuthScheme
from providers.catalogue.headers import FixedHeader
from providers.catalogue.models import ModelFacts
from providers.catalogue.prices import Offers
from providers.chat import ChatCompletion, ChatRequest, StreamEvent
from providers.failures import Failure
from providers.sites import Site
from providers.wire import WireRequest, WireResponse

__all__ = [
    "STREAM_OPTIONS",
    "Adapter",
    "AsksForUsage",
    "Capabilities",
    "EndsBehindStop",
    "KnownElsewhere",
    "KnowsBasePath",
    "KnowsModels",
    "KnowsOffers",
    "StreamParser",
    "TakesHeaders",
    "Target",
    "WireRequest",
    "WireResponse",
    "known_models",
]

STREAM_OPTIONS = "stream_options"
"""The field that asks for a stream's usage; in `ModelFacts.without` it is never sent. See `AsksForUsage`."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be asked for.

    features: what a request may need; a deployment that lacks one is passed over. The words: `matching.requirements`.
    parameters: the tuning fields that can be expressed (`temperature`, `seed`, and provider's own such as
        `top_k`); others are dropped and named, or refused, as the deployment says.
    context_tokens: the longest prompt, None where unknown.
    """

    features: frozenset[str]
    parameters: frozenset[str]
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What one request is built for: the provider's model, the site's path prefix and what the site pins.

    base_path: `/v1`: starts with a slash, doesn't end with one; may be empty.
    pins: top-level body fields that the site requires, written last so that no request can change them.
    passthrough: names of unknown request fields that the operator lets through.
    """

    model: str
    base_path: str
    facts: ModelFacts
    pins: Mapping[str, object] = field(default_factory=dict)
    passthrough: frozenset[str] = frozenset()


class StreamParser(Protocol):
    """One streamed answer. Never raises, never waits; the events don't depend on how the bytes were cut."""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """The events that these bytes complete; none after a terminal event."""
        ...

    def close(self) -> tuple[StreamEvent, ...]:
        """The rest, at the end of the bytes: ends with the terminal event, unless that has been given already."""
        ...


class Adapter(Protocol):
    """One wire format. Members are read-only, so that a frozen dataclass satisfies it.

    An adapter that knows something of its models has one more member, `models` (see `KnowsModels`).
    """

    @property
    def name(self) -> str:
        """The word for it in config, logs and metrics, such as `dashscope`."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The most that this wire format can express; a model may do less."""
        ...

    @property
    def sites(self) -> Mapping[str, Site]:
        """The provider's named hosts with their facts; empty where every host is the operator's own."""
        ...

    @property
    def auth(self) -> AuthScheme:
        """How a credential is put on a request; applied by `auth`, so that no adapter ever holds a secret."""
        ...

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """The request in this wire format; raises UnsupportedFeature for what it can't express."""
        ...

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        """The whole answer of a 2xx response; raises ProviderFailed for anything else that it holds."""
        ...

    def stream_parser(self, target: Target) -> StreamParser:
        """A parser for one streamed answer."""
        ...

    def classify_error(self, response: WireResponse) -> Failure:
        """What a response with a status of 400 or more means; never raises, whatever the body."""
        ...


@runtime_checkable
class KnownElsewhere(Protocol):
    """What an adapter may add: what its provider is called elsewhere, for a hint. A config takes `name` alone."""

    @property
    def known_as(self) -> Sequence[str]:
        """`qwen`, `alibaba`: no name of another provider."""
        ...


@runtime_checkable
class KnowsBasePath(Protocol):
    """What an adapter may add: where the vendor's API lies at a host that an operator writes without a path."""

    @property
    def usual_base_path(self) -> str:
        """`/openai/v1`; empty for that of the vendor's first site, else `/v1`."""
        ...


@runtime_checkable
class KnowsModels(Protocol):
    """What an adapter may add: facts of the provider's models, by name or glob pattern."""

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """The most specific entry wins: the exact name, then the longest pattern that matches."""
        ...


def known_models(adapter: Adapter) -> Mapping[str, ModelFacts]:
    """What the adapter knows of the provider's models; empty where it tells nothing."""
    return adapter.models if isinstance(adapter, KnowsModels) else {}


@runtime_checkable
class KnowsOffers(Protocol):
    """What an adapter may add: what the provider's models cost, and when they are retired."""

    @property
    def offers(self) -> Offers:
        """Empty where nothing is known."""
        ...


@runtime_checkable
class EndsBehindStop(Protocol):
    """What an adapter may add, whose provider stops behind the words of `stop` and leaves them in the text."""

    @property
    def ends_behind_stop(self) -> bool:
        """Whether it does: then who reads the answer takes them off (`providers.reading.stop_sequences`)."""
        ...


@runtime_checkable
class AsksForUsage(Protocol):
    """What an adapter may add that asks for a stream's usage by a field which not every server knows."""

    @property
    def asks_for_usage(self) -> bool:
        """Whether it sends `stream_options` with a stream, and leaves it out where the model is `without` it."""
        ...


@runtime_checkable
class TakesHeaders(Protocol):
    """What an adapter may add whose provider reads a header that is the operator's to fix, such as a workspace."""

    @property
    def headers(self) -> Mapping[str, FixedHeader]:
        """By name; there is no other. Whoever sends puts them on the request, behind the credential."""
        ...
