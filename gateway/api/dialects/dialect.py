"""The interface of an API dialect: how one form of request is read, and how answers and errors are written in it.

Everything between them is shared by all dialects: location, keys, limits, routing, the execution of the plan, labels
and headers. A dialect has no retry, failover or fence of its own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import orjson

from gateway.api.dialects.labelling import StreamLabels
from gateway.api.errors import ApiError, encode_error
from gateway.execution.exchange import AnswerStyle
from gateway.model.caller import RequestHeaders
from gateway.model.record import Record
from gateway.model.served import ServedRequest
from gateway.usage.token_count import tokens_of
from providers.chat import ChatCompletion, Choice, ChoiceEvent, Failed, StreamEvent, Usage, said_in
from providers.failures import Failure, FailureKind


def renaming(names: Mapping[str, str]) -> Callable[[str], str]:
    """Return what writes the names of a chat's fields that stand in backticks as another API has them."""
    quoted = re.compile(rf"`({'|'.join(names)})`")
    return lambda message: quoted.sub(lambda found: f"`{names[found[1]]}`", message)


def _interrupted(message: str, code: str = "stream_interrupted") -> ApiError:
    return ApiError(code, message)


JSON_MEDIA = b"application/json"
"""The content type of nearly all requests."""
NO_PLACE_FOR_IMAGES = Failure(
    FailureKind.TOO_LARGE, "the model answers with an image, and this API has no place for it: use chat completions"
)


def estimated_output(choices: Iterable[Choice]) -> int:
    """Return about how many tokens the choices of an answer have, for one whose provider has not counted."""
    texts = [
        text
        for message in (choice.message for choice in choices)
        for text in (
            said_in(message),
            message.reasoning or "",
            *(call.name + call.arguments for call in message.tool_calls),
        )
    ]
    return max(1, sum(map(tokens_of, texts)))


class StreamEncoder(ABC):
    """Encodes the stream of one client.

    Attributes:
        usage: The usage of the answer, once it has passed.
        failed: The failure that ended the stream, once it has passed.
        finished: Whether the end of a whole answer has passed.
        interrupted: Returns the error of a stream that breaks off with this message, as its client is shown it. The
            code of the error may be another one than `stream_interrupted`.
        breaks_off: The form has no place for an error, so that the connection is closed before the end of the answer.
    """

    breaks_off = False

    def __init__(self, style: AnswerStyle, record: Record) -> None:
        """Make it for one stream, whose record knows whether the answer was resumed."""
        self.usage: Usage | None = None
        self.failed: Failed | None = None
        self.finished = False
        self.interrupted: Callable[..., ApiError] = _interrupted
        self._labels = StreamLabels(style, record)
        self._record = record
        self._model = style.shown_model
        self._only: int | None = None

    def _is_of_another_choice(self, event: StreamEvent) -> bool:
        """Return whether an event belongs to a further choice, for an API whose answers have one: the first counts."""
        if not isinstance(event, ChoiceEvent):
            return False
        if self._only is None:
            self._only = event.choice
        return event.choice != self._only

    @abstractmethod
    def encode(self, events: tuple[StreamEvent, ...]) -> bytes:
        """Return the bytes of a batch of events; empty if there is nothing to show.

        A `Failed` event ends the stream in the dialect's form of an error, never in that of a success.
        """

    def around_text(self) -> tuple[bytes, bytes] | None:
        """Return the bytes before and after each further text of choice 0 until `encode` is called, or None."""
        return None

    def lone_text(self, text: bytes) -> bytes:
        """Return the bytes for one more text of choice 0, given as the inside of a JSON string.

        Empty if this text would change what comes after it. Then it is passed to `encode` as an event.
        """
        around = self.around_text()
        return around[0] + text + around[1] if around is not None else b""

    def encode_failure(self, error: ApiError) -> bytes:
        """Return the last bytes of a stream that the gateway itself breaks off, here in OpenAI's form."""
        return b"data: " + orjson.dumps(encode_error(error)) + b"\n\n"

    def _broken(self, event: Failed) -> bytes:
        """Note the failure that ends the stream, and return its last bytes."""
        self.failed, self.usage = event, self.usage or event.usage
        return self.encode_failure(self.interrupted(event.failure.message))


class Dialect(Protocol):
    """One request in the form of one API. It may remember what the answer repeats of the request."""

    keep_alive: bytes
    """The bytes that are sent while a stream is silent. Clients of this API skip it."""
    stream_type: bytes
    """The header line with the content type of a stream."""
    media: bytes
    """The content type of a request. A dialect with another one than JSON is a `FormDialect`."""
    route: str
    """The path of the API, with `{model}` in place of a name. It is shown in traces."""
    user_field: str
    """The field with the client's own id of its user."""

    def decode(self, body: bytes) -> ServedRequest:
        """Parse and decode the body. Raises ApiError, InvalidRequest or UnsupportedFeature.

        Names of fields that are dropped are in `ChatRequest.unread`.
        """

    def encode_answer(self, completion: ChatCompletion, style: AnswerStyle, record: Record) -> bytes:
        """Return the body of a whole answer."""

    def encoder(self, style: AnswerStyle, record: Record) -> StreamEncoder:
        """Return the encoder of a stream."""

    def encode_error(self, error: ApiError, request_id: str) -> bytes:
        """Return the body of an error. It may be called before `decode`."""

    def error_headers(self, error: ApiError) -> Mapping[str, str]:
        """Return the headers of an error that clients of this API read, next to those of all errors."""
        return {}


class FormDialect(Dialect, Protocol):
    """One request whose body is a form, which the head describes."""

    def read_head(self, headers: RequestHeaders) -> None:
        """Read the boundary of the form. Raises ApiError."""

    async def read_large(self, body: bytes | memoryview) -> None:
        """Parse a large body in pieces, between which other requests run. Raises InvalidRequest."""


class CountingDialect(Dialect, Protocol):
    """One request that asks how many tokens a prompt has. `decode` returns the prompt as a request for a chat."""

    def encode_count(self, tokens: int) -> bytes:
        """Return the body of the answer."""
