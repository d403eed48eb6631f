"""Read Bedrock's answers: Converse has the blocks of Anthropic's Messages under other names, also in its binary stream.

Each event is translated into events of the Messages API, whose reader does the rest.

Source: botocore 1.44.5 (ConverseResponse, ConverseStreamOutput and the errors of bedrock-runtime),
docs.aws.amazon.com on Converse; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from providers.adapter import Target
from providers.catalogue import FactsFile
from providers.chat import ChatCompletion, StreamEvent
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.claude_answer import MessageReader
from providers.json_values import JsonError, as_map, loads, read_int, read_list, read_map, read_str, with_exact_integers
from providers.reading.errors import IN_A_STREAM, classify, error_object, failure, load_rules
from providers.reading.event_stream import TextReader
from providers.reading.folding import fold
from providers.vendors.bedrock.event_stream import EventMessage, EventStreamDecoder
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.bedrock", "bedrock")
_COUNTS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadInputTokens": "cache_read_input_tokens",
    "cacheWriteInputTokens": "cache_creation_input_tokens",
}
# The texts of these errors repeat the signed data, including session tokens. They must not reach the log.
_REPEATS_SIGNED_DATA = frozenset({"IncompleteSignatureException", "InvalidSignatureException"})


def exception_failure(name: str, body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure of an exception, whose name may have a namespace, and in a stream begins in lower case."""
    exception = name.partition(":")[0].rpartition("#")[2]
    code = exception[:1].upper() + exception[1:]
    if code in _REPEATS_SIGNED_DATA:
        body = {}
    return classify({**body, "code": code}, response, load_rules(_FACTS))


def _reader_of(target: Target) -> MessageReader:
    return MessageReader(target, partial(exception_failure, "", response=IN_A_STREAM))


def read_completion(response: WireResponse, target: Target) -> ChatCompletion:
    """Read the whole answer of a 2xx body. Raises ProviderFailed."""
    body: Mapping[str, object] = error_object(response.body)
    # Here a call's arguments are part of the answer's JSON. Their numbers must not be rounded.
    body = with_exact_integers(body, response.body, b"toolUse")
    message = read_map(read_map(body, "output"), "message")
    if not isinstance(message.get("content"), list):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no message in the answer"))
    reader = _reader_of(target)
    blocks = [_block(as_map(block)) for block in read_list(message, "content")]
    reader.read_message({"content": blocks, "stop_reason": body.get("stopReason"), "usage": _usage(body)})
    return fold(reader.assembler.take())


def _usage(source: Mapping[str, object]) -> dict[str, object]:
    counts = read_map(source, "usage")
    return {ours: counts[name] for name, ours in _COUNTS.items() if name in counts}


def _block(block: Mapping[str, object]) -> dict[str, object]:
    """Return a block of a whole message, or the start or the first piece of one, as a block of the Messages API."""
    if use := read_map(block, "toolUse"):
        kept = {"input": use["input"]} if isinstance(use.get("input"), dict) else {}
        return {"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name"), **kept}
    if thought := read_map(block, "reasoningContent"):
        if redacted := read_str(thought, "redactedContent"):
            return {"type": "redacted_thinking", "data": redacted}
        whole = read_map(thought, "reasoningText") or thought
        return {"type": "thinking", "thinking": whole.get("text"), "signature": whole.get("signature")}
    return {"type": "text", "text": block.get("text")}


def _delta(delta: Mapping[str, object]) -> dict[str, object]:
    """Return a further piece of a block."""
    if use := read_map(delta, "toolUse"):
        return {"type": "input_json_delta", "partial_json": use.get("input")}
    if thought := read_map(delta, "reasoningContent"):
        if redacted := read_str(thought, "redactedContent"):
            return {"type": "redacted_delta", "data": redacted}
        if signature := read_str(thought, "signature"):
            return {"type": "signature_delta", "signature": signature}
        return {"type": "thinking_delta", "thinking": thought.get("text")}
    return {"type": "text_delta", "text": delta.get("text")}


class ConverseStreamParser:
    """A `StreamParser` over Amazon's binary event stream."""

    def __init__(self, target: Target) -> None:
        self._reader = _reader_of(target)
        self._assembler = self._reader.assembler
        self._decoder = EventStreamDecoder()
        self._open: set[object] = set()

    def text_reader(self) -> TextReader | None:
        """See `providers.reading.event_stream.StreamShortcuts`. This framing has no shortcut."""
        return None

    def is_complete(self) -> bool:
        return self._assembler.certain

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        if self._assembler.done:
            return ()
        for message in self._decoder.feed(data):
            if not self._assembler.done:
                self._read(message)
        if self._decoder.broken:
            self._fail_malformed("the provider's stream is not a valid AWS event stream")
        return self._assembler.take()

    def close(self) -> tuple[StreamEvent, ...]:
        if self._assembler.done:
            return ()
        self._assembler.complete()
        return self._assembler.take()

    def _read(self, message: EventMessage) -> None:
        headers = message.headers
        try:
            value = loads(message.payload) if message.payload else {}
        except JsonError:
            value = None
        body = as_map(value)
        match headers.get(":message-type"):
            case "event" if isinstance(value, dict):
                for event in self._events(headers.get(":event-type", ""), body):
                    self._reader.read_event(event, "")
            case "event":
                self._fail_malformed("an event of the provider's stream is not a JSON object")
            case "exception":
                self._assembler.fail(exception_failure(headers.get(":exception-type", ""), body, IN_A_STREAM))
            case "error":
                said = {"message": headers.get(":error-message")}
                self._assembler.fail(exception_failure(headers.get(":error-code", ""), said, IN_A_STREAM))
            case _:
                self._assembler.heartbeat()

    def _events(self, name: str, event: Mapping[str, object]) -> Iterator[dict[str, object]]:
        """Yield the events of the Messages API for an event. An unknown one is a heartbeat."""
        index = read_int(event, "contentBlockIndex")
        match name:
            case "contentBlockStart":
                self._open.add(index)
                block = _block(read_map(event, "start"))
                yield {"type": "content_block_start", "index": index, "content_block": block}
            case "contentBlockDelta":
                delta = read_map(event, "delta")
                # Blocks of text and thoughts have no start event; their first piece begins them.
                if index not in self._open and not read_map(delta, "toolUse"):
                    self._open.add(index)
                    yield {"type": "content_block_start", "index": index, "content_block": _block(delta)}
                else:
                    yield {"type": "content_block_delta", "index": index, "delta": _delta(delta)}
            case "contentBlockStop":
                self._open.discard(index)
                yield {"type": "content_block_stop", "index": index}
            case "messageStop":
                yield {"type": "message_delta", "delta": {"stop_reason": event.get("stopReason")}}
            case "metadata":
                yield {"type": "message_delta", "usage": _usage(event)}
                if self._assembler.whole:
                    # This event is the last one, so there is no need to wait until the connection closes.
                    yield {"type": "message_stop"}
            case _:
                yield {"type": "ping"}

    def _fail_malformed(self, message: str) -> None:
        if self._assembler.whole:
            self._assembler.complete()
        else:
            self._assembler.fail(Failure(FailureKind.INTERRUPTED, message))
