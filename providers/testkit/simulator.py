"""The `Simulator` protocol, and the registry of simulators."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Protocol, runtime_checkable

from providers.catalogue import FactsFile
from providers.chat import ChatCompletion, ChatRequest
from providers.failures import LACKABLE, FailureKind, ProviderError
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.moderations.values import ModerationAnswer, ModerationRequest
from providers.registry import check_members, load_group
from providers.value import Value
from providers.wire import WireResponse

# No charset: some official clients compare the whole value.
SERVER_SENT_EVENTS = "text/event-stream"
GROUP = "providers.simulators"
_STATUSES = {
    **dict.fromkeys((FailureKind.QUOTA, FailureKind.RATE_LIMITED), 429),
    **{FailureKind.CREDENTIALS: 401, FailureKind.GEO_REFUSED: 403, FailureKind.MODEL_NOT_FOUND: 404},
    **dict.fromkeys((FailureKind.CONTEXT_LENGTH, FailureKind.INVALID_REQUEST, FailureKind.CONTENT_FILTER), 400),
}
_METHODS = ("read_request", "write_answer", "write_stream", "write_error", "write_error_event")


def failure_text(kind: FailureKind, too_long: str) -> str:
    """Return the message of a simulated failure: `too_long` for a request that is longer than the model's context."""
    return too_long if kind is FailureKind.CONTEXT_LENGTH else f"Simulated failure: {kind.value}."


def status_of(kind: FailureKind, otherwise: int = 503) -> int:
    """Return the status that most vendors send with a failure of this kind, or that of all others."""
    return _STATUSES.get(kind, otherwise)


class ErrorWords(Value, frozen=True):
    """The words by which a vendor names its errors."""

    usual: str
    kinds: Mapping[FailureKind, str]
    statuses: Mapping[str, str] = {}

    def of(self, kind: FailureKind, status: int) -> str:
        """Return the word for the kind of a failure, else that for the status, else the usual one."""
        return self.kinds.get(kind) or self.statuses.get(str(status), self.usual)


class _Simulated(Value, frozen=True):
    """The part of a vendor's facts that is about its simulator."""

    simulator: ErrorWords


def error_words(facts: FactsFile) -> ErrorWords:
    """Return the words in the table `[simulator]` of a vendor's facts."""
    return facts.read_as(_Simulated).simulator


class IncomingRequest(Value, frozen=True):
    """A request that a simulator received."""

    method: str
    """The HTTP method."""
    path: str
    """The percent-encoded path without the query."""
    query: str
    """The query, or empty."""
    headers: Mapping[str, str]
    """Values by lower-case name."""
    body: bytes
    """The complete body."""

    @property
    def bearer(self) -> str:
        """The credential of the scheme Bearer (RFC 6750), or empty."""
        scheme, _, credential = self.headers.get("authorization", "").partition(" ")
        return credential.strip() if scheme.lower() == "bearer" else ""


class RequestRejected(ProviderError):
    """The provider would reject this request.

    Args:
        reason: The reason, for test output.
        response: The error response that the provider would send.

    Attributes:
        response: The argument of this name.
    """

    def __init__(self, reason: str, response: WireResponse) -> None:
        super().__init__(reason)
        self.response = response


class Simulator(Protocol):
    """The provider's side of a wire format."""

    @property
    def name(self) -> str:
        """The name of the adapter."""

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        """Read a request. The `model` of the result is the provider's, as the body or the path names it.

        A simulator also rejects unknown fields and wrong shapes, unless tests check requests against a schema of the
        vendor. Raises RequestRejected if the path is wrong, the key is missing, or the body is not a valid request.
        """

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """Write a whole answer to a request as the provider sends it."""

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """Write an answer to a request as a stream: the bytes of each event, with the text cut into pieces.

        The end mark, if the provider has one, is last.
        """

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """Write an HTTP error of this kind as the provider sends it.

        If the provider expresses the kind by a status of its own, such as 402 for a used up quota, the response has
        that status. `retry_after_s` is the time to wait in seconds, if the provider can express one.
        """

    def write_error_event(self, kind: FailureKind) -> bytes:
        """Write an error of this kind inside a stream that began with status 200."""


@runtime_checkable
class RefusesTokens(Protocol):
    """The optional part of a simulator whose vendor refuses an ended token in another way than with status 401."""

    def refuse_token(self) -> WireResponse:
        """Return the refusal of a token that has ended or is unknown."""


@runtime_checkable
class SimulatesInputs(Protocol):
    """An optional member of a simulator whose provider has embeddings. See `SimulatesModerations`."""

    def read_input(self, incoming: IncomingRequest) -> EmbeddingRequest | ModerationRequest | None:
        """Read a request for embeddings or moderations. None: the path is one of chats.

        Raises RequestRejected if the key is missing, or the body is not a valid request.
        """

    def write_embeddings(self, answer: EmbeddingAnswer, incoming: IncomingRequest) -> WireResponse:
        """Write vectors as the provider sends them."""


@runtime_checkable
class SimulatesModerations(Protocol):
    """An optional member of a simulator whose provider has moderations too."""

    def write_moderations(self, answer: ModerationAnswer, incoming: IncomingRequest) -> WireResponse:
        """Write verdicts as the provider sends them."""


@runtime_checkable
class SimulatesRerank(Protocol):
    """An optional member of a simulator whose provider scores documents. See `RerankFormat`."""

    def read_rerank(self, incoming: IncomingRequest) -> RerankRequest | None:
        """Read a request for scores. None: the path is another one.

        Raises RequestRejected if the key is missing, or the body is not a valid request.
        """

    def write_rerank(self, answer: RerankAnswer, incoming: IncomingRequest) -> WireResponse:
        """Write scores as the provider sends them."""


@runtime_checkable
class SimulatesDecisions(Protocol):
    """An optional member of a simulator whose provider decides. See `DecisionFormat`."""

    def answer_decisions(self, incoming: IncomingRequest) -> WireResponse | None:
        """Read a request for decisions, and write its answer. None: the path is another one.

        Raises RequestRejected if the key is missing, or the body is not a valid request.
        """


@runtime_checkable
class SimulatesAudio(Protocol):
    """An optional member of a simulator whose provider writes audio down, or speaks."""

    def answer_audio(self, incoming: IncomingRequest) -> WireResponse | None:
        """Read a request for a transcription or for speech, and write its answer. None: the path is another one.

        Raises RequestRejected if the key is missing, or the body is not a valid request.
        """


@runtime_checkable
class SimulatesCounts(Protocol):
    """An optional member of a simulator whose provider counts the tokens of a prompt. See `CountsTokens`."""

    def read_count(self, incoming: IncomingRequest) -> ChatRequest | None:
        """Read a request for a count of the tokens of its prompt. None: the path is another one.

        Raises RequestRejected if the key is missing, or the body is not a valid request.
        """

    def write_count(self, tokens: int, incoming: IncomingRequest) -> WireResponse:
        """Write a count as the provider sends it."""


def lacked_by(simulator: Simulator) -> frozenset[str]:
    """Return the failure kinds that the provider does not have: none, unless the simulator has `lacks`.

    It is an optional member, such as {`content_filter`} for a vendor without a filter. Raises TypeError if it has a
    kind that a vendor can't lack.
    """
    own: object = getattr(simulator, "lacks", frozenset())
    if not isinstance(own, frozenset | set) or not own <= LACKABLE:
        expected = ", ".join(sorted(LACKABLE))
        raise TypeError(f"`lacks` of the simulator of {simulator.name!r} is {own!r}; expected a set of {expected}")
    return frozenset(own)


def stream_type_of(simulator: Simulator) -> str:
    """Return the content type of a simulator's streams, which is its optional `stream_type` or server-sent events."""
    own: object = getattr(simulator, "stream_type", SERVER_SENT_EVENTS)
    return own if isinstance(own, str) else SERVER_SENT_EVENTS


def uncounted_by(simulator: Simulator) -> frozenset[str]:
    """Return the fields of `Usage` that the provider does not report: none, unless the simulator has `uncounted`."""
    own: object = getattr(simulator, "uncounted", frozenset())
    return own if isinstance(own, frozenset) else frozenset()


class NoSimulator(LookupError):
    """There is no simulator of a provider. The message states the reason."""


class Simulators(Value, frozen=True):
    """The simulators that loaded, by the name of their adapter, and the reason for each that did not."""

    simulators: Mapping[str, Simulator]
    broken: Mapping[str, str]

    def named(self, provider: str) -> Simulator:
        """Return the simulator of a provider. Raises NoSimulator."""
        if provider in self.simulators:
            return self.simulators[provider]
        if provider in self.broken:
            raise NoSimulator(f"the simulator of {provider!r} doesn't load: {self.broken[provider]}")
        raise NoSimulator(f"there is no simulator of {provider!r}: no entry point of that name in {GROUP!r}")


@cache
def load_simulators() -> Simulators:
    """Return the installed simulators, and the reason for each that does not load.

    An entry point's name is the provider's name in configurations.

    Examples:
        >>> from providers.testkit import load_simulators
        >>> load_simulators().named("openai").name
        'openai'
    """
    return Simulators(*load_group(GROUP, check_simulator))


def check_simulator(candidate: object) -> Simulator:
    """Return the candidate if it has the members of a simulator. Raises TypeError with the names of missing ones."""
    simulator: Simulator = check_members(candidate, "simulator", ("name",), _METHODS)
    return simulator
