"""Read a provider's response to one request, in any form.

Some providers answer a request for a stream with one JSON body (usually errors), and some answer a request for JSON
with a stream. This module handles both, and also error statuses and HTML pages. Relays and servers in PHP name the type
of a body wrongly: its first bytes decide where they are clear. The adapter reads the rest of an answer.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from providers import chat
from providers.adapter import Adapter, StreamParser, Target
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.reading.assembler import named_by_moment, with_named_calls
from providers.reading.errors import failure, is_html, request_id_of, with_own_model
from providers.reading.event_stream import TextReader, has_shortcuts
from providers.reading.finishes import MISSING
from providers.reading.folding import fold, unfold
from providers.reading.json_object import JsonObjectCheck, checked
from providers.value import replace
from providers.wire import WireResponse

MAX_BODY_BYTES = 64 * 1024 * 1024
TOO_LARGE = Failure(FailureKind.TOO_LARGE, "the provider's answer is larger than accepted")
"""The failure for an answer that exceeds this limit or another one of this library."""
MAX_IDLE_BYTES = 1024 * 1024
"""The limit of bytes of a stream between two events: blank lines, comments, events without content."""
_ENDLESS = replace(
    TOO_LARGE, message=f"the provider's stream has more than {MAX_IDLE_BYTES // 2**20} MB without an event"
)
_LONG_LINE_DISCOUNT = 16
"""Larger than the limit of a line in `MAX_IDLE_BYTES`: a large event is not taken for an endless stream."""
_STREAM_START = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:data|event|id|retry|(?i:error))?:")
_LONGEST_START = 64
"""The bytes of a body that may show that it is a stream."""
# As integers: `in` is faster for an integer than for bytes of length 1.
_CR, _LF = b"\r\n"


def read_answer(
    adapter: Adapter,
    response: WireResponse,
    target: Target,
    stop: tuple[str, ...] = (),
    json_start: str | None = None,
    max_tokens: int | None = None,
) -> chat.ChatCompletion:
    """Return the whole answer of a response. Raises ProviderFailed if the response is not an answer.

    Stop sequences and `max_tokens` are those of the request. For `json_start`, see
    `providers.reading.json_object.json_start_of`.
    """
    form = check_head(adapter, response, target.model)
    if form == "events":
        parser = adapter.stream_parser(target)
        completion = fold(_identified((*parser.feed(response.body), *parser.close()), response))
    else:
        completion = adapter.parse_response(response, target)
    for choice in completion.choices:
        if choice.raw_finish_reason == MISSING:
            completion = _with_cuts(completion, adapter, target, max_tokens)
            break
    if json_start is not None:
        completion = checked(completion, json_start, may_stop=bool(stop))
    if not completion.id:
        completion = with_named_calls(completion, response.received_at)
    return completion if completion.created else replace(completion, created=int(response.received_at))


def _with_cuts(
    completion: chat.ChatCompletion, adapter: Adapter, target: Target, max_tokens: int | None
) -> chat.ChatCompletion:
    """Return an answer whose choices without a finish end by their length if the limit of tokens is reached."""
    choices = completion.choices
    if not _is_at_limit(completion.usage, len(choices), adapter, target, max_tokens):
        return completion
    cut = (replace(one, finish_reason="length") if one.raw_finish_reason == MISSING else one for one in choices)
    return replace(completion, choices=tuple(cut))


def _is_at_limit(
    usage: chat.Usage | None, choices: int, adapter: Adapter, target: Target, max_tokens: int | None
) -> bool:
    limits = [limit for limit in (max_tokens, target.facts.output_tokens) if limit]
    if usage is None or not limits:
        return False
    thoughts = 0 if adapter.capabilities.limits_thinking else usage.reasoning_tokens
    return usage.completion_tokens - thoughts >= min(limits) * choices


def check_head(adapter: Adapter, response: WireResponse, model: str = "") -> Literal["events", "json", "other"]:
    """Return the form of an answer's body. Raises ProviderFailed if the response is an error or a page of HTML."""
    if response.status >= 400:
        raise ProviderFailed(with_own_model(adapter.classify_error(response), model))
    if not 200 <= response.status < 300:
        # Following a redirect would send the prompt to a host that is not permitted.
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail=f"status {response.status}"))
    form = _form(response)
    if form == "html":
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="a page of HTML"))
    return form


def is_event_stream(response: WireResponse) -> bool:
    """Return whether the body of this response is an event stream, whatever was requested."""
    return _form(response) == "events"


def _form(response: WireResponse) -> Literal["html", "events", "json", "other"]:
    form = _form_of(response.headers.get("content-type", ""))
    if form != "events" and _STREAM_START.match(response.body):
        return "events"
    return "json" if form == "html" and response.body.lstrip()[:1] == b"{" else form


def _identified(events: tuple[chat.StreamEvent, ...], head: WireResponse) -> tuple[chat.StreamEvent, ...]:
    """Add the provider's id of the call to a failure, because the stream itself may not contain it."""
    last = events[-1] if events else None
    if not isinstance(last, chat.Failed) or last.failure.request_id is not None:
        return events
    failed = replace(last.failure, request_id=request_id_of(head.headers))
    return (*events[:-1], replace(last, failure=failed))


@lru_cache(maxsize=256)
def _form_of(content_type: str) -> Literal["html", "events", "json", "other"]:
    if is_html(content_type):
        return "html"
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return "events"
    return "json" if kind == "application/json" or kind.endswith("+json") else "other"


class AnswerReader:
    """A `StreamParser` for the body of any response. A stream is parsed as it arrives, another body at its end.

    See `read_answer` for `stop`, `json_start` and `max_tokens`.
    """

    def __init__(
        self,
        adapter: Adapter,
        head: WireResponse,
        target: Target,
        stop: tuple[str, ...] = (),
        json_start: str | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._adapter = adapter
        self._head = head
        self._target = target
        self._parser: StreamParser | None = None
        form = _form_of(head.headers.get("content-type", ""))
        if 200 <= head.status < 300 and form not in ("html", "json"):
            self._parser = adapter.stream_parser(target)
        self._shortcuts = self._parser if has_shortcuts(self._parser) else None
        self._stop = stop
        self._json_start = json_start
        self._max_tokens = max_tokens
        self._check = JsonObjectCheck(json_start, may_stop=bool(stop)) if json_start is not None else None
        self._body = bytearray()
        self._done = False
        self._opened = False
        # Bytes of the stream since the last event.
        self._idle_bytes = 0
        # Whether no further event can have missing values, so that events need not be checked.
        self._is_named = False

    def feed(self, data: bytes) -> tuple[chat.StreamEvent, ...]:
        if self._done:
            return ()
        if self._parser is not None:
            events = self._parser.feed(data)
            if not events or events[-1].__class__ is chat.Heartbeat:
                if self._is_endless(data, events):
                    self._done = True
                    return (chat.Failed(_ENDLESS),)
            elif self._idle_bytes:
                self._idle_bytes = 0
            if events and events[-1].__class__ is chat.Finished:
                events = self._with_cuts(events)
            if self._check is not None:
                events = self._checked(self._check, events)
            if events and events[-1].__class__ is chat.Failed:
                events = _identified(events, self._head)
            return events if self._is_named else self._filled_in(events)
        is_start = len(self._body) < _LONGEST_START
        self._body += data
        if is_start and _STREAM_START.match(self._body) and 200 <= self._head.status < 300:
            self._parser = self._adapter.stream_parser(self._target)
            return self.feed(bytes(self._body))
        if len(self._body) > MAX_BODY_BYTES:
            self._done = True
            return (chat.Failed(TOO_LARGE),)
        # A provider may send blank lines to keep the connection of a JSON body alive. They count as a sign of life.
        return (chat.Heartbeat(),)

    def _with_cuts(self, events: tuple[chat.StreamEvent, ...]) -> tuple[chat.StreamEvent, ...]:
        """Return the last events of a stream, as `_with_cuts` returns a whole answer."""
        for event in events:
            if event.__class__ is chat.ChoiceFinish and event.raw == MISSING:
                break
        else:
            return events
        ends = [event for event in events if isinstance(event, chat.ChoiceFinish)]
        usage = next((event.usage for event in events if isinstance(event, chat.UsageReport)), None)
        if not _is_at_limit(usage, len(ends), self._adapter, self._target, self._max_tokens):
            return events
        return tuple(
            replace(one, reason="length") if isinstance(one, chat.ChoiceFinish) and one.raw == MISSING else one
            for one in events
        )

    def _checked(self, check: JsonObjectCheck, events: tuple[chat.StreamEvent, ...]) -> tuple[chat.StreamEvent, ...]:
        """Return the events after the check for a JSON object. Nothing is read after it has failed."""
        events = check.take(events)
        self._done = check.failed
        return events

    def _is_endless(self, data: bytes, events: tuple[chat.StreamEvent, ...]) -> bool:
        """Count bytes without an event, and return whether they are too many.

        A provider may send blank lines, comments or empty events without end, and compress them to almost nothing. A
        long line may be a large event, such as an image. The parser limits its length, so a piece without a line end
        counts little.
        """
        if not {*map(type, events)} <= {chat.Heartbeat}:
            self._idle_bytes = 0
            return False
        has_line_end = _LF in data or _CR in data
        self._idle_bytes += len(data) if has_line_end else len(data) // _LONG_LINE_DISCOUNT
        return self._idle_bytes > MAX_IDLE_BYTES

    def text_reader(self) -> TextReader | None:
        """Return the text reader of `StreamShortcuts`, or None if every piece must be fed."""
        if self._shortcuts is None or not self._opened or self._check is not None:
            return None
        return self._shortcuts.text_reader()

    def is_complete(self) -> bool:
        """See `providers.reading.event_stream.StreamShortcuts`. Held text may still fail at the end."""
        if self._check is not None and not self._check.has_shown:
            return False
        return self._shortcuts is not None and self._shortcuts.is_complete()

    def close(self) -> tuple[chat.StreamEvent, ...]:
        if self._done:
            return ()
        if self._parser is not None:
            events = self._with_cuts(_identified(self._parser.close(), self._head))
            if self._check is not None:
                events = self._checked(self._check, events)
            return events if self._is_named else self._filled_in(events)
        self._done = True
        whole = replace(self._head, body=bytes(self._body))
        expected = self._stop, self._json_start, self._max_tokens
        try:
            return tuple(unfold(read_answer(self._adapter, whole, self._target, *expected)))
        except chat.AnswerRefused as error:
            return (chat.Failed(error.failure, error.usage),)
        except ProviderFailed as error:
            return (chat.Failed(error.failure),)

    def _filled_in(self, events: tuple[chat.StreamEvent, ...]) -> tuple[chat.StreamEvent, ...]:
        """Fill in missing values: the time of the answer, and unique ids of tool calls if the answer has no id."""
        first = events[0] if events else None
        if first.__class__ is chat.Opened and first.id:
            self._opened = self._is_named = True
            return events if first.created else (self._dated(first), *events[1:])
        filled = list(events)
        for position, event in enumerate(events):
            if isinstance(event, chat.Opened):
                self._opened, self._is_named = True, bool(event.id)
                if not event.created:
                    filled[position] = self._dated(event)
            elif isinstance(event, chat.ToolCallDelta) and not self._is_named:
                filled[position] = named_by_moment(event, self._head.received_at)
        return tuple(filled)

    def _dated(self, event: chat.Opened) -> chat.Opened:
        created = int(self._head.received_at)
        return chat.Opened(event.id, event.model, created, event.service_tier, event.system_fingerprint)
