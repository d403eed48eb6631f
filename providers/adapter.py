"""The adapter contract: pure functions that translate between the canonical chat and a provider's wire format.

An adapter is a frozen value without state: it has no socket, no secret, no clock and no host. The caller passes a
`Target` and gets a `WireRequest`, which the caller sends. A response is passed as a `WireResponse`, or in pieces to a
`StreamParser`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

from providers.auth import AuthScheme
from providers.catalogue.headers import FixedHeader
from providers.catalogue.models import ModelFacts
from providers.catalogue.prices import Offers
from providers.chat import ChatCompletion, ChatRequest, StreamEvent
from providers.failures import Failure
from providers.sites import Site
from providers.wire import WireRequest, WireResponse

STREAM_OPTIONS = "stream_options"
"""The request field that asks for a stream's usage. It is not sent to a model whose `ModelFacts.without` has it."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The features and parameters that a wire format or a model supports.

    Examples:
        >>> from providers.contract import Capabilities
        >>> capabilities = Capabilities(frozenset({"tools"}), frozenset({"temperature", "max_tokens"}))
    """

    features: frozenset[str]
    """Members of `FEATURES`. A deployment that lacks a feature of the request is skipped."""
    parameters: frozenset[str]
    """Tuning fields that can be sent: members of `PARAMETERS`, and fields of this provider such as `top_k`. Others are
    dropped and named in `x-gateway-dropped`, or refused, as the deployment is configured."""
    context_tokens: int | None = None
    """The longest prompt in tokens, or None if unknown."""
    limits_thinking: bool = field(default=True, repr=False)
    """Whether `max_tokens` limits the tokens of thinking too. If not, they come on top."""


@dataclass(frozen=True, slots=True)
class Target:
    """The model and the site that one request is built for."""

    model: str
    """The provider's name of the model."""
    base_path: str
    """The prefix of every path at the site, such as `/v1`. It starts with a slash and does not end with one. It may be
    empty."""
    facts: ModelFacts
    """The facts of the model."""
    pins: Mapping[str, object] = field(default_factory=dict)
    """Top-level body fields that the site requires. Write them last, so that no request can change them."""
    passthrough: frozenset[str] = frozenset()
    """Names of unknown request fields that the operator allows to be sent."""
    counts: bool | None = None
    """Whether the server counts the tokens of a prompt (see `CountsTokens`), by the facts of its site or by the
    operator; None if neither states it."""


class StreamParser(Protocol):
    """A parser for one streamed answer.

    It never raises and never waits. The events do not depend on how the bytes are cut into pieces.
    """

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """Return the events that the next bytes of the body complete, in any cut: none after a terminal event."""

    def close(self) -> tuple[StreamEvent, ...]:
        """Return the remaining events at the end of the body.

        The last one is the terminal event, unless `feed` has already returned it.
        """


class Adapter(Protocol):
    """A provider's wire format, as pure functions.

    Members are read-only, so that a frozen dataclass satisfies the protocol. Optional members have protocols of their
    own: `KnowsModels`, `KnowsOffers`, `KnowsBasePath`, `KnownElsewhere`, `HasModelsElsewhere`, `TakesHeaders`,
    `AsksForUsage`, `EmulatesFeatures`, `BudgetsThinking` and `CountsTokens`.
    """

    @property
    def name(self) -> str:
        """The provider's name in configurations, logs and metrics, such as `dashscope`."""

    @property
    def capabilities(self) -> Capabilities:
        """Everything that this wire format can express. A model may support less."""

    @property
    def sites(self) -> Mapping[str, Site]:
        """The provider's hosts with their facts, by name. Empty if operators name their own hosts only."""

    @property
    def auth(self) -> AuthScheme:
        """The scheme by which a credential is added to a request. The caller applies it: an adapter has no secret."""

    def build_request(self, request: ChatRequest, target: Target) -> WireRequest:
        """Translate a request into this wire format, without a host and without a credential.

        Raises UnsupportedFeature if the wire format cannot express a part of the request.
        """

    def parse_response(self, response: WireResponse, target: Target) -> ChatCompletion:
        """Read the whole answer of a response with a 2xx status.

        `target`: the model and the site that the request was built for. Raises ProviderFailed if the body is not a
        whole answer, for example an error with status 200.
        """

    def stream_parser(self, target: Target) -> StreamParser:
        """Create a parser for one streamed answer of the model and the site that the request was built for."""

    def classify_error(self, response: WireResponse) -> Failure:
        """Classify a response with a status of 400 or more. It never raises, whatever the body is.

        The kind of the failure decides whether the gateway retries or fails over.
        """


_RequestT = TypeVar("_RequestT", contravariant=True)
_AnswerT = TypeVar("_AnswerT", covariant=True)


class InputFormat(Protocol[_RequestT, _AnswerT]):
    """A provider's wire format for requests that are not chats, as pure functions."""

    def build_request(self, request: _RequestT, target: Target) -> WireRequest:
        """Translate a request, within the limits that the format states for the model, into this wire format.

        It has no host and no credential.
        """

    def parse_response(self, response: WireResponse, target: Target) -> _AnswerT:
        """Read the results of a response with a 2xx status, in the order of the inputs.

        The caller compares their number with that of the inputs. Raises ProviderFailed if the body is not a whole
        answer, or it is not clear.
        """


@runtime_checkable
class KnownElsewhere(Protocol):
    """An optional member of an adapter, with other names of its provider for hints. Configurations use `name` only."""

    @property
    def known_as(self) -> Sequence[str]:
        """Other names, such as `qwen` and `alibaba`. A name of another provider is not allowed."""


@runtime_checkable
class HasModelsElsewhere(Protocol):
    """An optional member of an adapter whose vendor serves some models in the wire format of another adapter."""

    @property
    def models_elsewhere(self) -> Mapping[str, str]:
        """The provider to name in place of this one, by a glob pattern of models in lower case."""


@runtime_checkable
class KnowsBasePath(Protocol):
    """An optional member of an adapter, with the path of the vendor's API at an endpoint that has no path."""

    @property
    def usual_base_path(self) -> str:
        """The path, such as `/openai/v1`. Empty means that of the vendor's first site, or `/v1` if it has no site."""


@runtime_checkable
class KnowsModels(Protocol):
    """An optional member of an adapter, with facts of the provider's models."""

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """Facts by name or glob pattern. The exact name wins, then the longest pattern that matches."""


def answers_chats(adapter: Adapter) -> bool:
    """Return whether an adapter's provider answers chats, as its member `chats` states. Without the member, it does."""
    return not isinstance(adapter, StatesChats) or adapter.chats


def known_models(adapter: Adapter) -> Mapping[str, ModelFacts]:
    """Return the facts of an adapter's models by name or glob pattern: none without the member `models`."""
    return adapter.models if isinstance(adapter, KnowsModels) else {}


@runtime_checkable
class KnowsOffers(Protocol):
    """An optional member of an adapter, with prices and retirement dates of the provider's models."""

    @property
    def offers(self) -> Offers:
        """The known prices and retirement dates, possibly none."""


@runtime_checkable
class EmulatesFeatures(Protocol):
    """An optional member of an adapter that asks in words for a feature that its wire format does not have."""

    @property
    def emulated(self) -> frozenset[str]:
        """The emulated features, which `capabilities` lists too. Only `json_object` can be emulated.

        The adapter sends `with_json_instruction(request)`. The caller checks the answer.
        """


@runtime_checkable
class StatesChats(Protocol):
    """An optional member of an adapter whose provider may have other uses only."""

    @property
    def chats(self) -> bool:
        """Whether the provider answers chats."""


@runtime_checkable
class BudgetsThinking(Protocol):
    """An optional member of an adapter that writes how many tokens a model may think, which its limit has to exceed."""

    def thinking_tokens(self, request: ChatRequest, target: Target) -> int:
        """Return the tokens of thinking that the request gets if its limit allows them, or 0.

        A smaller limit changes this number, and so the prompt leaves the cache of the provider.
        """


@runtime_checkable
class AsksForUsage(Protocol):
    """An optional member of an adapter that asks for a stream's usage with a field that not every server accepts."""

    @property
    def asks_for_usage(self) -> bool:
        """Whether a stream's request has `stream_options`, unless the model's facts have it in `without`."""


@runtime_checkable
class NamesCacheMarks(Protocol):
    """An optional member of an adapter whose marks for a cache do not have Anthropic's form (`cache_control`)."""

    @property
    def cache_mark(self) -> str:
        """The name of a mark in its requests."""


@runtime_checkable
class CountsTokens(Protocol):
    """An optional member of an adapter whose servers count the tokens of a prompt with the model's own tokenizer."""

    def count_request(self, request: ChatRequest, target: Target) -> WireRequest | None:
        """Return the request for the count, which the answer has as `count` or `input_tokens`, or None for no count.

        The request goes to the origin and the location of the chat, so its path begins like the path of a chat.
        """


@runtime_checkable
class StatesConfirmation(Protocol):
    """An optional member of an adapter whose facts are data that its simulator reads too."""

    @property
    def unconfirmed(self) -> bool:
        """Whether no two answers from the vendor's documentation or a real call are recorded."""


@runtime_checkable
class TakesHeaders(Protocol):
    """An optional member of an adapter whose provider reads headers that an operator sets, such as a workspace."""

    @property
    def headers(self) -> Mapping[str, FixedHeader]:
        """All headers that an operator may set, by name. The caller adds them to the request after the credential."""
