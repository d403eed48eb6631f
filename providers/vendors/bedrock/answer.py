"""Read Bedrock's whole answers and the messages of its binary stream.

Source: botocore 1.44.5 (ConverseResponse, ConverseStreamOutput and the errors of bedrock-runtime),
docs.aws.amazon.com on Converse; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from providers.adapter import Target
from providers.chat import ChatCompletion, FinishReason, StreamEvent, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.formats.reasoning_state import Thought, ThoughtCollector
from providers.json_values import (
    JsonError,
    are_counts,
    as_map,
    dumps_text,
    loads,
    read_count,
    read_int,
    read_list,
    read_map,
    read_str,
    with_exact_integers,
)
from providers.reading.error_classification import error_object, failure
from providers.reading.event_stream import TextReader
from providers.reading.folding import fold
from providers.reading.stream_assembler import Assembler
from providers.vendors.bedrock.errors import classify
from providers.vendors.bedrock.event_stream import EventMessage, EventStreamDecoder
from providers.wire import WireResponse

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


_SAME_AS_OURS = frozenset({"end_turn", "stop_sequence", "tool_use", "max_tokens"})


# The model's output is unusable. Text that came before it is not an answer either.
_GENERATION_FAILED = "malformed_"


_NO_HTTP_ERROR = 200


def read_completion(response: WireResponse, target: Target) -> ChatCompletion:
    """Read the whole answer of a 2xx body. Raises ProviderFailed."""
    body: Mapping[str, object] = error_object(response.body)
    if b"toolUse" in response.body:
        # Here a call's arguments are part of the answer's JSON. Their numbers must not be rounded.
        body = with_exact_integers(body, response.body)
    message = read_map(read_map(body, "output"), "message")
    if not isinstance(message.get("content"), list):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no message in the answer"))
    reader = _Reader(target)
    for index, entry in enumerate(read_list(message, "content")):
        reader.read_block(index, as_map(entry))
    reader.finish(read_str(body, "stopReason") or "")
    reader.count(body)
    reader.assembler.complete()
    return fold(reader.assembler.take())


class ConverseStreamParser:
    """A `StreamParser` over Amazon's binary event stream."""

    def __init__(self, target: Target) -> None:
        self._reader = _Reader(target)
        self._assembler = self._reader.assembler
        self._decoder = EventStreamDecoder()

    def text_reader(self) -> TextReader | None:
        """See `providers.reading.event_stream.StreamShortcuts`. This framing has no shortcut."""
        return None

    def is_complete(self) -> bool:
        """See `providers.reading.event_stream.StreamShortcuts`."""
        return self._assembler.whole

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if self._assembler.done:
            return ()
        for message in self._decoder.feed(data):
            self._read(message)
        if self._decoder.broken:
            self._fail_malformed("the provider's stream is not a valid AWS event stream")
        return self._assembler.take()

    def close(self) -> tuple[StreamEvent, ...]:
        """See `providers.adapter.StreamParser`."""
        if self._assembler.done:
            return ()
        self._assembler.complete()
        return self._assembler.take()

    def _read(self, message: EventMessage) -> None:
        if self._assembler.done:
            return
        headers = message.headers
        try:
            value = loads(message.payload) if message.payload else {}
        except JsonError:
            value = None
        body = as_map(value)
        match headers.get(":message-type"):
            case "event" if isinstance(value, dict):
                self._reader.read_event(headers.get(":event-type", ""), body)
            case "event":
                self._fail_malformed("an event of the provider's stream is not a JSON object")
            case "exception":
                self._fail(headers.get(":exception-type", ""), body)
            case "error":
                self._fail(headers.get(":error-code", ""), {"message": headers.get(":error-message")})
            case _:
                self._assembler.heartbeat()

    def _fail(self, name: str, body: Mapping[str, object]) -> None:
        self._assembler.fail(classify(name, body, WireResponse(_NO_HTTP_ERROR, {}, b"", 0)))

    def _fail_malformed(self, message: str) -> None:
        if self._assembler.whole:
            self._assembler.complete()
        else:
            self._assembler.fail(Failure(FailureKind.INTERRUPTED, message))


@dataclass(slots=True)
class _Block:
    """The known part of a content block. `call` is its index if it is a tool call."""

    call: int | None = None
    has_arguments: bool = False
    text: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)


class _Reader:
    """Read one answer into its `assembler`."""

    def __init__(self, target: Target) -> None:
        self.assembler = Assembler(target.model)
        self._blocks: dict[int, _Block] = {}
        self._thoughts = ThoughtCollector(self.assembler, target.model)
        self._calls = 0

    def read_event(self, name: str, event: Mapping[str, object]) -> None:
        """Read one event of a stream. An unknown event is a heartbeat."""
        index = read_int(event, "contentBlockIndex") or 0
        match name:
            case "contentBlockStart":
                if use := read_map(read_map(event, "start"), "toolUse"):
                    self._start_call(index, use)
            case "contentBlockDelta":
                self._extend(index, read_map(event, "delta"))
            case "contentBlockStop":
                self._stop(index)
            case "messageStop":
                self.finish(read_str(event, "stopReason") or "")
            case "metadata":
                self.count(event)
                if self.assembler.whole:
                    # This event is the last one, so there is no need to wait until the connection closes.
                    self.assembler.complete()
            case _:
                self.assembler.heartbeat()

    def read_block(self, index: int, block: Mapping[str, object]) -> None:
        """Read one block of a whole message."""
        if use := read_map(block, "toolUse"):
            self._start_call(index, use)
            try:
                text = dumps_text(arguments) if (arguments := read_map(use, "input")) else ""
            except JsonError:
                self.assembler.fail(Failure(FailureKind.MALFORMED, "the provider's tool call is nested too deeply"))
                return
            self._extend(index, {"toolUse": {"input": text}})
        elif thought := read_map(block, "reasoningContent"):
            reasoning = read_map(thought, "reasoningText")
            for part in ({"text": reasoning.get("text")}, {"signature": reasoning.get("signature")}, thought):
                self._extend(index, {"reasoningContent": part})
        else:
            self._extend(index, block)
        self._stop(index)

    def _start_call(self, index: int, use: Mapping[str, object]) -> None:
        call, self._calls = self._calls, self._calls + 1
        self._blocks[index] = _Block(call)
        signature = self._thoughts.take()
        self.assembler.tool_call(
            index=call, id=read_str(use, "toolUseId"), name=read_str(use, "name"), signature=signature
        )

    def _extend(self, index: int, delta: Mapping[str, object]) -> None:
        # Blocks of text and thoughts have no start event; their first piece begins them.
        block = self._blocks.setdefault(index, _Block())
        if text := read_str(delta, "text"):
            self.assembler.text(text)
        if block.call is not None and (piece := read_str(read_map(delta, "toolUse"), "input")):
            block.has_arguments = True
            self.assembler.tool_call(piece, index=block.call)
        thought = read_map(delta, "reasoningContent")
        if reasoning := read_str(thought, "text"):
            self.assembler.reasoning(reasoning)
            self._thoughts.append(block.text, reasoning)
        self._thoughts.append(block.signature, read_str(thought, "signature") or "")
        self._thoughts.append(block.redacted, read_str(thought, "redactedContent") or "")

    def _stop(self, index: int) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.call is not None and not block.has_arguments:
            # Emitted here and not at the answer's end: clients consider a call complete when the next one begins.
            self.assembler.tool_call("{}", index=block.call)
        if block.signature or block.redacted:
            self._thoughts.add(Thought("".join(block.text), "".join(block.signature), "".join(block.redacted)))

    def finish(self, stop_reason: str) -> None:
        """Finish the answer with the provider's stop reason."""
        if not stop_reason:
            return
        if stop_reason.startswith(_GENERATION_FAILED):
            message = "the provider's model produced no usable output"
            self.assembler.fail(Failure(FailureKind.MALFORMED, message, code=stop_reason[:100]))
            return
        raw = None if stop_reason in _SAME_AS_OURS else stop_reason[:100]
        self.assembler.finish(_FINISH.get(stop_reason, "other"), raw=raw)

    def count(self, source: Mapping[str, object]) -> None:
        """Read the counts, if there are any. Reasoning is part of the output; it has no separate count.

        The prompt is 0 if a count is invalid.
        """
        if not (usage := read_map(source, "usage")):
            return
        cached = read_count(usage, "cacheReadInputTokens")
        written = read_count(usage, "cacheWriteInputTokens")
        prompt = read_count(usage, "inputTokens") + cached + written
        if not are_counts(usage, "inputTokens", "outputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"):
            prompt = 0
        completion = read_count(usage, "outputTokens")
        self.assembler.usage(Usage(prompt, completion, cached_tokens=cached, cache_write_tokens=written))
