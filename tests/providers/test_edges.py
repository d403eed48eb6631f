"""Bounds of the adapters and of what reads answers, at their edges."""

import gzip
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import pytest

from providers.formats import claude, claude_answer, reasoning_state, schemas, tool_calls
from providers.inputs.embeddings import formats, values
from providers.json_values import loads
from providers.openai_json import plain_request, read_answer, stream_relay
from providers.openai_json.decode_request import _logit_bias, holds_too_much
from providers.reading import (
    assembler,
    errors,
    event_stream,
    json_object,
    rate_limits,
    response_reader,
    sse,
    token_counts,
)
from providers.testkit import PrefixCache
from providers.testkit.schema_instance import _Synthesis
from providers.transport import tunnel
from providers.transport.decoding import Decoder
from providers.vendors.bedrock.event_stream import EventStreamDecoder
from providers.vendors.openai import responses_answer, responses_request
from tests.kit.edges import Edge, accepts, at_least, at_most, below

WHOLE = b'{"id":"a","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'


def asked(**fields: object) -> object:
    return plain_request.plain_request({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}, 10)


def details(entries: int = 1, characters: int = 1) -> int:
    """Return how many of these entries of reasoning are kept."""
    collector = reasoning_state.DetailCollector()
    for _ in range(entries):
        collector.add({"data": "x" * characters}, is_piece=False)
    return len(collector._entries)


def pieces_of(size: int) -> int:
    """Return in how many pieces a parser reads so many bytes."""
    taken: list[bytes] = []
    parser: Any = SimpleNamespace(
        _assembler=SimpleNamespace(done=False),
        _sse=SimpleNamespace(feed_plainly=bytes),
        _take=lambda data, at_end: taken.append(data),
        read=lambda data: event_stream.EventStreamParser.read(parser, data),
    )
    parser.read(b"x" * size)
    return len(taken)


def length_is_accepted(total: int, header: int = 0) -> bool:
    """Return whether a message of AWS's event stream may have this length."""
    decoder = EventStreamDecoder()
    prelude = struct.pack(">II", total, header)
    decoder.feed(prelude + struct.pack(">I", zlib.crc32(prelude)))
    return not decoder.broken


def thought_is_kept(size: int) -> bool:
    reader: Any = SimpleNamespace(assembler=Mock(), _thought_characters=0, _thoughts=[])
    item = {"type": "reasoning", "id": "i", "encrypted_content": "x" * (size - 1), "summary": []}
    responses_answer.ResponseReader._end_item(reader, 0, item)
    return bool(reader._thoughts)


def created_of(created: int) -> object:
    reader: Any = SimpleNamespace(assembler=Mock())
    responses_answer.ResponseReader._identify(reader, {"created_at": created})
    return reader.assembler.identify.call_args.kwargs["created"]


def summaries(number: int) -> object:
    thought = responses_request.SealedThought("i", "sealed", ("text",) * number)
    return responses_request.unpack(responses_request.pack([thought], "m"), "m")


def relay(data: bytes) -> object:
    parser = parser_of(_awaited=SimpleNamespace(only=lambda data: "text"), _relays=False)
    return stream_relay.RelayingParser.feed(parser, data)


def parser_of(**members: object) -> Any:
    """Return what a relaying parser has before its first template, with these members changed."""
    assembler = Mock(done=True)
    assembler.take.return_value = ()
    made = SimpleNamespace(_awaited=None, _rest=b"", _relays=True, _assembler=assembler, _template=None)
    made._general_parser = SimpleNamespace(feed=lambda data: ())
    return SimpleNamespace(**vars(made) | members)


def relays_after(held: int) -> object:
    parser = parser_of(_rest=b"x" * held)
    stream_relay.RelayingParser.feed(parser, b"y")
    return parser._relays


def template_after(attempts: int) -> object:
    parser = parser_of(_template_attempts=attempts)
    with patch.object(stream_relay, "find_template", return_value="template"):
        return stream_relay.RelayingParser._update_template(parser, b"", {})


def blocks(number: int) -> bool:
    reader: Any = SimpleNamespace(_blocks={}, assembler=Mock())
    for at in range(number):
        claude_answer.MessageReader._start_block(reader, at, {})
    return not reader.assembler.fail.called


def calls(*pieces: dict[str, Any]) -> bool:
    """Return whether these pieces of calls are accepted."""
    made = assembler.Assembler("m")
    for piece in pieces:
        made.tool_call(**piece)
    return not made.done


def image_of(size: int) -> bool:
    made = assembler.Assembler("m")
    made.image("data:image/png;base64,".ljust(size, "A"))
    return not made.done


def lines_of(number: int) -> bool:
    parser = sse.SseParser()
    for _ in range(number):
        parser._take_line(b"data: x")
    return len(parser._data) == number


def cached(tokens: int) -> int:
    with patch.object(PrefixCache, "_pieces", return_value=tokens * 4):
        return PrefixCache().read(SimpleNamespace(body=b"{}", headers={}), "m").cached_tokens  # type: ignore[arg-type]


def resolves_after(resolved: int) -> bool:
    """Return whether references are still replaced, below so many combined schemas."""
    with patch.object(schemas, "_for_kimi", return_value={}) as replaced:
        schemas._normal({}, {"$defs": {}}, 0, resolved)
    return bool(replaced.call_args.args[1])


def header_of(size: int) -> bool:
    """Return whether a message of AWS's event stream may have a header of this length."""
    return length_is_accepted(size + 100, size)


EDGES = (
    at_most("providers.inputs.embeddings.formats.MOST_INPUTS", lambda n: accepts(formats._inputs, ["text"] * n)),
    at_most(
        "providers.transport.decoding._MOST_MEMBERS", lambda n: accepts(Decoder(31).feed, gzip.compress(b"x") * n, 9999)
    ),
    at_most("providers.formats.claude._MAX_DEPTH", lambda n: accepts(claude._closed, {}, "tools", n)),
    at_most("providers.formats.claude_answer._MAX_BLOCKS", blocks),
    below("providers.formats.schemas._MOST_RESOLVED", resolves_after),
    at_most(
        "providers.openai_json.decode_request.MOST_WITHIN",
        lambda n: not holds_too_much({str(at): [] for at in range(n - 1)}),
    ),
    below("providers.openai_json.stream_relay._MAX_TEMPLATE_ATTEMPTS", template_after),
    at_most("providers.openai_json.stream_relay._MOST_HELD_BYTES", relays_after),
    at_most(
        "providers.reading.assembler._MAX_CALL_CHARACTERS",
        lambda n: calls({"id": "a", "name": "f", "arguments": "x" * (n - 2)}),
    ),
    at_most("providers.reading.assembler._MAX_IMAGE_CHARACTERS", image_of, 30),
    at_most(
        "providers.reading.assembler._MAX_TOOL_CALLS",
        lambda n: calls(*({"id": f"c{at}", "name": "f"} for at in range(n))),
    ),
    at_most(
        "providers.reading.assembler._MAX_PLACES", lambda n: calls(*({"id": f"c{at}", "name": "f"} for at in range(n)))
    ),
    at_most("providers.reading.json_object._MOST_HELD", lambda n: accepts(json_object._ObjectText("")._hold, "x" * n)),
    at_most("providers.reading.sse._MOST_DATA_LINES", lines_of),
    at_least("providers.testkit.prefix_cache._LEAST_TOKENS", cached),
    below(
        "providers.testkit.schema_instance._MOST_VALUES",
        lambda n: _Synthesis({}, "w", frozenset(), iter([n])).build({"const": 1}, 0, 0),
    ),
    at_most("providers.vendors.bedrock.event_stream._MAX_HEADER_BYTES", header_of),
    at_most("providers.inputs.embeddings.formats._MOST_TOKEN", lambda n: accepts(formats._tokens, [n], "input")),
    at_most(
        "providers.inputs.embeddings.values.MOST_DIMENSIONS", lambda n: accepts(values.vector_from_json, [0.5] * n)
    ),
    at_least("providers.formats.claude._MIN_BUDGET_TOKENS", lambda n: claude._budget_tokens(0, n + 1)),
    at_most("providers.formats.reasoning_state._MAX_CHARACTERS", lambda n: details(characters=n)),
    at_most("providers.formats.reasoning_state._MAX_THOUGHTS", lambda n: details(n) == n),
    at_most("providers.formats.tool_calls._MAX_ID_CHARACTERS", lambda n: tool_calls.safe_call_id("a" * n) == "a" * n),
    at_most("providers.json_values._MAX_BYTES_OUTSIDE_STRINGS", lambda n: accepts(loads, b'"abcdef"' + b" " * (n - 3))),
    at_most(
        "providers.openai_json.decode_request._MAX_BIASES",
        lambda n: accepts(_logit_bias, {"logit_bias": dict.fromkeys(map(str, range(n)), 1)}, ""),
    ),
    at_most("providers.openai_json.plain_request._MOST_SEED", lambda n: asked(seed=n)),
    at_most("providers.openai_json.plain_request._MOST_TOKENS", lambda n: asked(max_tokens=n)),
    at_most(
        "providers.openai_json.read_answer._MOST_PLAIN_BYTES",
        lambda n: read_answer._read_plain(WHOLE.ljust(n), read_answer.Answers()),
        200,
    ),
    at_most("providers.openai_json.stream_relay.MAX_LINE_BYTES", lambda n: relay(b"x" * n)),
    at_most("providers.reading.errors._MOST_DETAIL", lambda n: errors._object_in("{'a': '" + "x" * (n - 9) + "'}"), 20),
    at_most("providers.reading.errors._MOST_LAYERS", lambda n: layers(n) == n),
    at_most("providers.reading.errors._MOST_SHOWN", lambda n: errors._object_in("x" * n + '{"a": 1}')),
    at_most("providers.reading.event_stream._MOST_AT_ONCE", lambda n: pieces_of(n) == 1),
    at_most(
        "providers.reading.json_object._MOST_CHARACTERS",
        lambda n: accepts(json_object._ObjectText("").feed, '{"a": "' + "x" * (n - 7)),
        20,
    ),
    at_most("providers.reading.rate_limits._MOST_DIGITS", lambda n: rate_limits._count("1" * n)),
    at_most("providers.reading.rate_limits._MOST_S", rate_limits._plausible_wait, 1000),
    at_most(
        "providers.reading.response_reader.MAX_IDLE_BYTES",
        lambda n: not response_reader.AnswerReader._is_endless(SimpleNamespace(_idle_bytes=0), b"\n" * n, ()),  # type: ignore[arg-type]
    ),
    at_least("providers.reading.token_counts._LEAST_CACHED", lambda n: token_counts.count_prompt(0, 5, n, None)),
    at_most("providers.transport.tunnel.MAX_HEAD_BYTES", lambda n: accepts(tunnel.check_reply, b"x" * n)),
    at_most("providers.vendors.bedrock.event_stream._MAX_BYTES", length_is_accepted, 100),
    Edge("providers.vendors.bedrock.event_stream._MIN_BYTES", lambda n: length_is_accepted(n, 1), 100, 101, 100),
    at_most("providers.vendors.openai.responses_answer._MAX_THOUGHT_CHARACTERS", thought_is_kept),
    below("providers.vendors.openai.responses_answer._MAX_CREATED", lambda n: created_of(n) is not None),
    at_most("providers.vendors.openai.responses_request._MAX_SUMMARIES", summaries),
)


def layers(depth: int) -> int:
    """Return how many layers of an error of this depth are read."""
    body: dict[str, object] = {"error": {"message": "no"}}
    for _ in range(depth - 1):
        body = {"error": body}
    return len(errors._layers_of(body, errors.ErrorRules()))


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.bound)
def test_bound_is_exact(edge: Edge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    edge.check(monkeypatch, tmp_path)
