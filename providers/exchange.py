"""Read whatever a provider sent back to one request, whichever of its forms it chose.

Asked for a stream, some answer with one JSON body (their errors, mostly); asked for JSON, some answer with a
stream. Both are read here, and so are a status that is no success and a page of HTML. Everything else of an answer
is its adapter's to read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from providers.adapter import Adapter, StreamParser, Target, WireResponse
from providers.chat import ChatCompletion, Failed, Heartbeat, Opened, StreamEvent
from providers.classify import failure, is_html, request_id_of
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.folding import fold, unfold
from providers.stops import StopTrimmer, stops_left_in, trimmed

__all__ = ["MAX_BODY_BYTES", "AnswerReader", "read_answer"]

MAX_BODY_BYTES = 64 * 1024 * 1024


def read_answer(adapter: Adapter, response: WireResponse, target: Target, stop: tuple[str, ...] = ()) -> ChatCompletion:
    """The whole answer that a response holds; raises ProviderFailed for everything that is none.

    stop: the words that the provider was asked to stop at.
    """
    if response.status >= 400:
        raise ProviderFailed(adapter.classify_error(response))
    if not 200 <= response.status < 300:
        # A redirect would take the prompt to a host that nobody permitted.
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail=f"status {response.status}"))
    if is_html(response):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="a page of HTML"))
    if is_event_stream(response.headers):
        parser = adapter.stream_parser(target)
        completion = fold(_identified((*parser.feed(response.body), *parser.close()), response))
    else:
        completion = adapter.parse_response(response, target)
    if stop and (left_in := stops_left_in(adapter, stop)):
        completion = trimmed(completion, left_in)
    return completion if completion.created else replace(completion, created=int(response.received_at))


def _identified(events: tuple[StreamEvent, ...], head: WireResponse) -> tuple[StreamEvent, ...]:
    """The events with the provider's id of the call in a failure: a stream itself may not know it."""
    last = events[-1] if events else None
    if not isinstance(last, Failed) or last.failure.request_id is not None:
        return events
    failed = replace(last.failure, request_id=request_id_of(head.headers))
    return (*events[:-1], replace(last, failure=failed))


def is_event_stream(headers: Mapping[str, str]) -> bool:
    """Whether the body says that it is a stream of events."""
    return _kind(headers.get("content-type", "")) == "text/event-stream"


@lru_cache(maxsize=256)
def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


class AnswerReader:
    """A `StreamParser` for the body behind a head: incremental where it is a stream, at its end where it is not.

    stop: the words that the provider was asked to stop at.
    """

    def __init__(self, adapter: Adapter, head: WireResponse, target: Target, stop: tuple[str, ...] = ()) -> None:
        self._adapter = adapter
        self._head = head
        self._target = target
        self._parser: StreamParser | None = None
        if 200 <= head.status < 300 and not is_html(head) and not _is_json_body(head.headers):
            self._parser = adapter.stream_parser(target)
        self._stop = stop
        left_in = stops_left_in(adapter, stop) if stop else ()
        self._trimmer = StopTrimmer(left_in) if left_in else None
        self._body = bytearray()
        self._done = False
        self._opened = False

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if self._done:
            return ()
        if self._parser is not None:
            events = self._parser.feed(data)
            if self._trimmer is not None:
                events = self._trimmer.take(events)
            if events and events[-1].__class__ is Failed:
                events = _identified(events, self._head)
            return events if self._opened else self._open(events)
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            self._done = True
            return (Failed(Failure(FailureKind.TOO_LARGE, "the provider's answer is larger than is taken")),)
        # Blank lines that a provider sends to keep a JSON body alive are a sign of life like any other byte.
        return (Heartbeat(),)

    @property
    def lone_text(self) -> Callable[[bytes], bytes | None] | None:
        """What tells, from now on, whether a piece is one more text and nothing else, if the parser has such a way.

        See `RelayingParser.lone_text`.
        """
        return getattr(self._parser, "lone_text", None) if self._opened and self._trimmer is None else None

    def close(self) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if self._done:
            return ()
        if self._parser is not None:
            events = _identified(self._parser.close(), self._head)
            if self._trimmer is not None:
                events = self._trimmer.take(events)
            return events if self._opened else self._open(events)
        self._done = True
        try:
            return tuple(
                unfold(
                    read_answer(self._adapter, replace(self._head, body=bytes(self._body)), self._target, self._stop)
                )
            )
        except ProviderFailed as error:
            return (Failed(error.failure),)

    def _open(self, events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        """The parser's first events, with the moment of the answer where the provider names none."""
        for position, event in enumerate(events):
            if isinstance(event, Opened):
                self._opened = True
                if not event.created:
                    dated = Opened(event.id, event.model, int(self._head.received_at))
                    return (*events[:position], dated, *events[position + 1 :])
                break
        return events


def _is_json_body(headers: Mapping[str, str]) -> bool:
    kind = _kind(headers.get("content-type", ""))
    return kind == "application/json" or kind.endswith("+json")
