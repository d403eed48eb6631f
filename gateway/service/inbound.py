"""One request of a client: the form in which a dialect passes it to `ChatService`, and the inputs of its routing."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Protocol, Self

import msgspec

from gateway.execution.deadline import Deadline
from gateway.execution.upstream_client import Answer
from gateway.model.assistant import Assistant
from gateway.model.caller import Caller
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.consent import NO_STATEMENT, ConsentStatement
from gateway.model.input_requests import ServedRequest
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.region_text import Locale
from gateway.model.resilience import Resilience
from gateway.policy.labels import Labelling
from gateway.policy.reasoning_seal import ReasoningSeal


class AnswerStyle(msgspec.Struct, frozen=True):
    """How an answer is shown to its client.

    Attributes:
        include_usage: A stream ends with its usage.
        choices: How many choices were asked for.
        labelling: The labels that the region requires; None if there are none.
        shown_model: The name to show in place of the model's; None to show the model's.
        keep_alive_s: The longest silence in a stream before a comment is sent; 0 for no comments.
        seal: Seals the reasoning state of the answer's tool calls; None if there can be no calls.
    """

    include_usage: bool = False
    choices: int = 1
    labelling: Labelling | None = None
    shown_model: str | None = None
    keep_alive_s: float = 0.0
    seal: ReasoningSeal | None = None


class ErrorStyle(msgspec.Struct, frozen=True):
    """How an error is shown to its client.

    Attributes:
        blocked_by: The page of the authority that refuses by law or policy, for status 451.
        refusals: The region's own sentences by error code; None if it has none.
        quotes_provider: A provider's words about a wrong request may be shown. They mostly name the model.
    """

    blocked_by: str | None = None
    refusals: Mapping[str, str] | None = None
    quotes_provider: bool = True


PLAIN_ERRORS = ErrorStyle()
"""The style while nothing is known of the request."""


def error_style_of(config: ConfigVersion) -> ErrorStyle:
    """Return the error style that applies while only the config version is known."""
    return ErrorStyle(config.blocked_by) if config.blocked_by is not None else PLAIN_ERRORS


class HeldBody(Protocol):
    """A request's body, whose bytes count against a limit until it is released. A `with` block releases it."""

    @property
    def size_bytes(self) -> int:
        """The length of the body."""
        ...

    def take(self) -> bytes:
        """Return the body and forget it."""
        ...

    def release(self) -> None:
        """Stop counting the body before the end of the block, because nothing holds the request any more."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Inbound(Protocol):
    """One request of a client, in the form of one API. `ChatService.handle` calls the methods in this order.

    Attributes:
        record: The record of the request, which is completed step by step.
        deadline: The deadline of the request, set by `start`.
        error_style: How an error is to be shown; `ChatService` replaces it when it knows more.
    """

    record: Record
    deadline: Deadline
    error_style: ErrorStyle

    def caller(self, config: ConfigVersion) -> Caller:
        """Read the caller from the headers, as this config version reads them. No later code reads a header.

        It may be called again for another version. A failed key is counted, and the request gets its id, only once.
        Raises the error of the API.
        """
        ...

    def start(self, bounds: Resilience) -> None:
        """Check the headers that describe the body, and start the deadline. Raises the error of the API."""
        ...

    async def body(self) -> HeldBody:
        """Read the whole body."""
        ...

    def decode(self, body: HeldBody) -> ServedRequest:
        """Decode the body. The bytes are released."""
        ...

    def begin(self, request: ServedRequest) -> None:
        """Count a stream against the limit of streams. From now on a disconnect of the client cancels the request."""
        ...

    def respond(self, answer: Answer, style: AnswerStyle) -> Awaitable[None] | None:
        """Encode the answer, and write it at once if the client takes it without a wait; then return None.

        Otherwise return an awaitable that writes the rest. It does not hold a whole answer, for which a slow client may
        take minutes.
        """
        ...


class RoutingInput(msgspec.Struct, frozen=True):
    """All inputs of the routing of one request.

    Attributes:
        config: The version that decides.
        client: The authenticated client; None if the config has no keys.
        location: The caller's location.
        assistant: The requested assistant.
        request: The request as it was sent.
        spaces: The values of the header that requires a space of embeddings.
        locale: The region's labels, profile and refusals in the caller's language; None if the region has none.
        user: The end user that the headers name, who keeps the same canary variant.
        consent: The consent that the headers state.
        prefer: The choice that the user prefers.
    """

    config: ConfigVersion
    client: Client | None
    location: Location
    assistant: Assistant
    request: ServedRequest
    locale: Locale | None = None
    user: str | None = None
    consent: ConsentStatement = NO_STATEMENT
    spaces: tuple[str, ...] = ()
    prefer: str | None = None
