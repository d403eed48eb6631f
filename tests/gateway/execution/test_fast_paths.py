"""From a provider's bytes to the client's, by every short way there is: the client reads what it reads by the long way.

The short ways are those of the parser, of the tap, and of who writes the chunks. The long way is the same bytes one by
one, each event written by itself.
"""

import asyncio
import itertools
import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.dialects.openai_chat import ChunkEncoder
from gateway.execution.answer_stream import LiveStream
from gateway.execution.deadline import Deadline
from gateway.execution.exchange import AnswerStyle
from gateway.execution.transport import UpstreamResponse
from gateway.model.record import Record
from providers.adapter import Adapter, StreamParser, Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import StreamEvent
from providers.compatible import adapter as compatible
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.openai_json.stream_relay import RelayingParser
from providers.reading.folding import expand
from providers.reading.response_reader import AnswerReader
from providers.transport.connection import Tap
from providers.vendors.anthropic import adapter as anthropic
from providers.vendors.gemini import adapter as gemini
from providers.vendors.openai import adapter as openai
from providers.wire import WireResponse
from tests.kit.chat_http import events_in
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples

TARGET = Target("m", "", UNKNOWN_MODEL)
HEAD = WireResponse(200, {"content-type": "text/event-stream"}, b"", 9.0)
BROKEN = ProviderFailed(Failure(FailureKind.INTERRUPTED, "the provider's answer broke off"))
DONE = b"data: [DONE]\n\n"


class Pieces:
    """A reply that offers each piece to the tap, and then ends, which it may know before, or breaks."""

    def __init__(self, pieces: list[bytes], breaks: bool, knows_end: bool) -> None:
        self._pieces = pieces
        self._breaks = breaks
        self._knows_end = knows_end

    @property
    def is_read(self) -> bool:
        return self._knows_end and not self._breaks and not self._pieces

    async def read(self, tap: Tap | None = None) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if piece and not (tap is not None and tap(piece)):
                return piece
        if self._breaks:
            raise BROKEN
        return b""

    async def close(self) -> None:
        pass


async def short_way(
    adapter: Adapter, pieces: list[bytes], breaks: bool, knows_end: bool
) -> tuple[list[Any], Failure | None]:
    """Return the events that the client reads, and the failure if there was one."""
    parser = AnswerReader(adapter, HEAD, TARGET)
    body = cast(UpstreamResponse, Pieces([*pieces], breaks, knows_end))
    stream = LiveStream(body, parser, Deadline.start(60, 60), 60, lambda failure: failure)
    encoder, written = ChunkEncoder(AnswerStyle(include_usage=True), Record("r", 0.0, "t")), list[bytes]()

    def take_text(text: bytes) -> bool:
        if data := encoder.lone_text(text):
            written.append(data)
        return bool(data)

    try:
        await stream.begin()
    except ProviderFailed as error:
        return [], error.failure
    if events := stream.whole_events():
        return events_in(encoder.encode(events)), None
    async for batch in stream:
        written.append(encoder.encode(batch))
        stream.pass_texts_to(take_text)
    return events_in(b"".join(written)), encoder.failed.failure if encoder.failed is not None else None


def long_way(adapter: Adapter, data: bytes) -> tuple[list[Any], Failure | None]:
    """The same, a byte at a time, without a template and without a run."""
    parser: StreamParser = adapter.stream_parser(TARGET)
    if isinstance(parser, RelayingParser):
        parser = parser._general_parser
    events: list[StreamEvent] = []
    for place in range(len(data)):
        events += parser.feed(data[place : place + 1])
    events += parser.close()
    dated = AnswerReader(adapter, HEAD, TARGET)._filled_in(tuple(events))
    encoder = ChunkEncoder(AnswerStyle(include_usage=True), Record("r", 0.0, "t"))
    written = [encoder.encode((event,)) for event in expand(dated)]
    return events_in(b"".join(written)), encoder.failed.failure if encoder.failed is not None else None


SEPARATORS = ['"', '",', '","', "\\", "\\n", "\0", '{"a":"b",', "data: [DONE]\n\n", "</think>"]
SCRIPTS = ["é", "你好", "🙂", "\u2028", "a" * 300]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from([*SEPARATORS, *SCRIPTS])
escaped = st.sampled_from(["\\ud83d", "\\ude00", "\\ud83d\\ude00", "\\u0000", "\\u4f60", "\\/", "\\q", "\\u12", "\x01"])
written = texts.map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1])
# The seams that short ways look for are made of such.
inside = st.sampled_from(['\\",', '\\"', ",", "\\\\", "a"]) | written | escaped
runs = st.lists(inside, min_size=2, max_size=4)
counts = st.integers(0, 9)


def framed(body: str, ending: str = "\n\n", lead: str = "data: ") -> bytes:
    return (lead + body + ending).encode()


def chunk(
    delta: str, finish: str = "null", index: int = 0, more: str = "", id: str = "c", model: str = "m", beside: str = ""
) -> bytes:
    choice = f'{{"index":{index},"delta":{{{delta}}},"finish_reason":{finish}{beside}}}'
    return framed(f'{{"id":"{id}","created":7,"model":"{model}","choices":[{choice}]{more}}}')


SIGNS_OF_LIFE = [b": ping\n\n", b":\n", b"event: ping\n\n", b"\n", b"\r\n", b"retry: 3\n"]
ODD_LINES = [*SIGNS_OF_LIFE, DONE, DONE[:-1], b"data:\n\n", b"data: \n\n", b"\xef\xbb\xbf", b"garbage\n", b"<html>\n\n"]
contents = inside.map(lambda text: f'"content":"{text}"')
usages = counts.map(lambda count: f',"usage":{{"prompt_tokens":1,"completion_tokens":{count}}}')
openai_blocks = st.one_of(
    contents.map(chunk),
    st.lists(contents, min_size=2, max_size=4).map(lambda run: b"".join(map(chunk, run))),
    st.builds(lambda delta, pad: chunk(delta, more=f',"obfuscation":"{pad}"'), contents, st.sampled_from(["", "aB3"])),
    st.builds(lambda delta, usage: chunk(delta, more=usage), contents, usages),
    st.builds(lambda delta, usage: chunk(delta, beside=usage), contents, usages),
    st.builds(lambda delta, index: chunk(delta, index=index), contents, st.integers(0, 2)),
    st.builds(lambda delta, id, model: chunk(delta, id=id, model=model), contents, inside, inside),
    st.builds(
        lambda delta, name, text: chunk(f'{delta},"{name}":"{text}"'),
        contents,
        st.sampled_from(["reasoning_content", "reasoning", "refusal", "role", "content"]),
        inside,
    ),
    st.builds(
        lambda word, index, text: chunk(f'"content":"{text}"', f'"{word}"', index),
        st.sampled_from(["stop", "length", "tool_calls", "content_filter", "", "null", "odd"]),
        st.integers(0, 1),
        inside,
    ),
    st.builds(
        lambda index, id, name, text: chunk(
            f'"tool_calls":[{{"index":{index},"id":"{id}","function":{{"name":"{name}","arguments":"{text}"}}}}]'
        ),
        st.integers(0, 2),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["", "f", "g"]),
        inside,
    ),
    st.builds(
        lambda delta, probs: chunk(delta, beside=f',"logprobs":{probs}'),
        contents,
        st.sampled_from(["null", "{}", '{"content":[{"token":"a","logprob":NaN}]}', '{"content":"\\ud83d"}', "[1]"])
        | st.integers(244, 256).map(lambda depth: '{"content":' + "[" * depth + "]" * depth + "}"),
    ),
    st.sampled_from(
        [
            *ODD_LINES,
            framed('{"error":{"message":"x","code":"rate_limit_exceeded"}}'),
            framed('{"error":{"message":"x","code":"content_filter"}}'),
            framed('{"message":"x"}', lead="event: error\ndata: "),
            framed('{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}'),
            framed('{"choices":[{"index":0,"delta":{"content":"a"}}],"choices":[{"index":0,"delta":{"content":"b"}}]}'),
            framed('{"choices":[{"index":0,"delta":{"content":"a"},"delta":{"content":"b"}}]}'),
            framed("[" * 2000 + "]" * 2000),
            framed('{"a":' + "[" * 2000 + "]" * 2000 + ',"choices":[{"index":0,"delta":{"content":"deep"}}]}'),
            framed('{"id":"c","created":7,'),
            framed('{"id":"c",\ndata: "choices":[{"index":0,"delta":{"content":"lines"}}]}'),
            chunk('"content":"a"').replace(b"\n\n", b"\r\n\r\n"),
            chunk('"content":"a"').replace(b"\n\n", b"\r\r"),
            chunk('"content":"a"').replace(b"data: ", b"data:"),
            chunk('"content":"a"').replace(b'"a"', b'"\xff"'),
        ]
    ),
)
openai_end = chunk("", '"stop"') + chunk("", '"stop"', 1) + chunk("", '"stop"', 2) + DONE


def usual(text: str, count: int, beside: str = "") -> bytes:
    content = (
        f'{{"candidates": [{{"content": {{"parts": [{{"text": "{text}"}}],"role": "model"}},"index": 0{beside}}}],'
    )
    metadata = f'"usageMetadata": {{"promptTokenCount": {count}}},"modelVersion": "g","responseId": "r"}}'
    return framed(content + metadata, "\r\n\r\n")


def candidate(*parts: str, beside: str = "") -> bytes:
    return framed(f'{{"candidates":[{{"content":{{"parts":[{",".join(parts)}]}}{beside}}}]}}', "\r\n\r\n")


gemini_blocks = st.one_of(
    st.builds(usual, inside, counts),
    runs.map(lambda run: b"".join(usual(text, place) for place, text in enumerate(run))),
    runs.map(lambda run: b"".join(candidate(f'{{"text":"{text}"}}') for text in run)),
    inside.map(lambda text: candidate(f'{{"text":"{text}","thought":true}}')),
    inside.map(lambda text: candidate(f'{{"text":"{text}"}}', beside=',"index":1')),
    st.builds(lambda one, other: candidate(f'{{"text":"{one}"}}', f'{{"text":"{other}"}}'), inside, inside),
    inside.map(lambda text: candidate(f'{{"functionCall":{{"name":"f","args":{{"a":"{text}"}}}}}}')),
    st.builds(
        lambda text, word: usual(text, 1, f',"finishReason":"{word}"'), inside, st.sampled_from(["STOP", "OTHER"])
    ),
    st.sampled_from(
        [
            b": ping\r\n\r\n",
            b"\r\n",
            b"data: \r\n\r\n",
            DONE,
            usual("a", 1).replace(b"\r\n", b"\n"),
            framed('{"candidates":[]}'),
            framed('{"usageMetadata":{"promptTokenCount":5}}'),
            framed('{"error":{"code":503,"status":"UNAVAILABLE"}}'),
            b'[{"error":{"code":503,"status":"UNAVAILABLE"}}]\n',
            framed("{"),
            usual("a", 1).replace(b'"a"', b'"\xff"'),
        ]
    ),
)
gemini_end = candidate(beside=',"finishReason":"STOP"') + candidate(beside=',"index":1,"finishReason":"STOP"')


def named(kind: str, more: str = "") -> bytes:
    return framed(f'{{"type":"{kind}"{more}}}', lead=f"event: {kind}\ndata: ")


def grown(kind: str, name: str, text: str, index: int = 0) -> bytes:
    return named("content_block_delta", f',"index":{index},"delta":{{"type":"{kind}","{name}":"{text}"}}')


anthropic_start = named("message_start", ',"message":{"id":"a","model":"m","usage":{"input_tokens":1}}')
anthropic_blocks = st.one_of(
    runs.map(lambda run: b"".join(grown("text_delta", "text", text) for text in run)),
    inside.map(lambda text: grown("text_delta", "text", text)),
    inside.map(lambda text: grown("text_delta", "text", text).partition(b"\n")[2]),
    inside.map(lambda text: grown("thinking_delta", "thinking", text)),
    inside.map(lambda text: grown("input_json_delta", "partial_json", text, 1)),
    st.builds(
        lambda kind, index: named(
            "content_block_start",
            f',"index":{index},"content_block":{{"type":"{kind}","text":"so","id":"t","name":"f","input":{{}}}}',
        ),
        st.sampled_from(["text", "thinking", "tool_use"]),
        st.integers(0, 2),
    ),
    st.integers(0, 2).map(lambda index: named("content_block_stop", f',"index":{index}')),
    st.sampled_from(["end_turn", "tool_use", "refusal", "odd"]).map(
        lambda word: named("message_delta", f',"delta":{{"stop_reason":"{word}"}},"usage":{{"output_tokens":3}}')
    ),
    st.sampled_from(
        [
            named("ping"),
            b": ping\n\n",
            b"\n",
            named("message_stop"),
            named("error", ',"error":{"type":"overloaded_error","message":"x"}'),
            anthropic_start,
            framed("{"),
        ]
    ),
)
anthropic_end = named("message_delta", ',"delta":{"stop_reason":"end_turn"}') + named("message_stop")

DIALECTS: dict[str, tuple[Adapter, bytes, st.SearchStrategy[bytes], bytes]] = {
    "openai": (openai.ADAPTER, chunk('"role":"assistant","content":""'), openai_blocks, openai_end),
    "moonshot": (compatible.adapter_named("moonshot"), chunk('"content":"so"'), openai_blocks, openai_end),
    "qianfan": (compatible.adapter_named("qianfan"), b"", openai_blocks, openai_end),
    "gemini": (gemini.ADAPTER, usual("so", 1), gemini_blocks, gemini_end),
    "anthropic": (anthropic.ADAPTER, anthropic_start, anthropic_blocks, anthropic_end),
}
cuts = st.just("bytes") | st.lists(st.integers(0, 5000), min_size=1, max_size=8)


def pieces_of(blocks: list[bytes], cut: object) -> list[bytes]:
    data = b"".join(blocks)
    if cut == "events":
        return blocks
    places = range(len(data)) if cut == "bytes" else []
    if isinstance(cut, list):
        places = sorted({place % (len(data) + 1) for place in cut})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(data=st.data())
@settings(unhurried, max_examples=examples(60))
def test_client_gets_the_same_answer_on_every_path(dialect: str, data: st.DataObject) -> None:
    adapter, start, middle, end = DIALECTS[dialect]
    blocks = [start, *data.draw(st.lists(middle, max_size=10)), *([end] if data.draw(st.booleans()) else [])]
    breaks = data.draw(st.integers(0, 9)) == 0
    expected, reason = long_way(adapter, b"".join(blocks))
    for cut, knows_end in itertools.product(("whole", "events", data.draw(cuts)), (False, True)):
        shown, failure = asyncio.run(short_way(adapter, pieces_of(blocks, cut), breaks, knows_end))
        if breaks and not shown:
            # An answer that breaks off before anything was shown is retried, although an end may have been reported.
            continue
        assert (failure is None) == (reason is None) == (shown[-1:] == ["[DONE]"])
        assert breaks or failure == reason
        # An answer that fails in its first bytes shows no text.
        assert shown[:-1] == expected[:-1] or (failure is not None and not shown)
