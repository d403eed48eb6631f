"""One target for atheris: `python tests/fuzz/fuzz.py TARGET [options of libFuzzer]`. README.md lists the properties.

The first bytes of an input select where it is cut, its HTTP status, and the reader. The rest is untrusted data.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import atheris

with atheris.instrument_imports(include=["providers", "gateway.features.redaction"]):
    from gateway.features.redaction.model import BUILT_IN, rules_of
    from gateway.features.redaction.policy.finding import Clock
    from gateway.features.redaction.policy.forms import countries
    from gateway.features.redaction.policy.placeholders import MOST_HELD, Placeholders, Restorer
    from providers.chat import ChatCompletion, Failed, Finished, StreamEvent
    from providers.compatible.adapter import CompatibleAdapter
    from providers.conformance.cases import request_cases, rich_answer
    from providers.conformance.checks import check_ends_once
    from providers.conformance.selection import select
    from providers.conformance.subject import Subject
    from providers.failures import Failure, FailureKind, InvalidRequest, ProviderFailed, UnsupportedFeature
    from providers.json_values import JsonError, dumps, loads
    from providers.openai_json import decode_request, encode_completion
    from providers.openai_json.plain_request import plain_request
    from providers.reading.folding import fold
    from providers.reading.rate_limits import LimitHeaders, read_limits, retry_after_s, wait_s
    from providers.reading.sse import SseItem, SseParser
    from providers.registry import load_registry
    from providers.vendors.bedrock.event_stream import EventStreamDecoder, encode_message
    from providers.wire import WireResponse

from pathlib import Path

_STATUSES = (200, 400, 401, 403, 404, 413, 422, 429, 500, 503, 529)
_NOW = 1_795_000_000.0
_MOST_MESSAGES = 2048
Target = Callable[[bytes], None]


# --- framings -------------------------------------------------------------------------------------


def sse(data: bytes) -> None:
    """Check that the events do not depend on how the bytes are cut, and that a limit bounds their number."""
    cut, body = data[0] if data else 0, data[1:]
    events, pieces = _sse_items([body]), _sse_items([body[:cut], body[cut:]])
    assert events == pieces, "the events depend on the cut"
    assert events == _sse_items([body[i : i + 1] for i in range(len(body))]), "the events differ byte by byte"


def _sse_items(pieces: list[bytes]) -> tuple[list[SseItem], bytes]:
    parser = SseParser(max_line_bytes=4096)
    items = [item for piece in pieces for item in parser.feed(piece)]
    items += parser.close()
    return items, parser.unframed


def event_stream(data: bytes) -> None:
    """Check that the messages do not depend on how the bytes are cut, and that none follows a broken one."""
    cut, body = data[0] if data else 0, data[1:]
    messages = _messages([body])
    assert messages == _messages([body[:cut], body[cut:]]), "the messages depend on the cut"
    assert messages == _messages([body[i : i + 1] for i in range(len(body))]), "the messages differ byte by byte"


def _messages(pieces: list[bytes]) -> tuple[list[object], bool]:
    decoder = EventStreamDecoder()
    return [message for piece in pieces for message in decoder.feed(piece)], decoder.broken


def headers(data: bytes) -> None:
    """Check that a wait read from headers is a positive number or nothing."""
    values = [part.decode("latin-1") for part in data.split(b"\0")]
    names = ("retry-after", "retry-after-ms", "date", *(f"x-ratelimit-{part}-tokens" for part in _PARTS))
    sent = dict(zip(names, values, strict=False))
    limits = read_limits(sent, _NOW, LimitHeaders())
    for wait in (retry_after_s(sent, _NOW), wait_s(limits), *(limit.resets_after_s for limit in limits)):
        assert wait is None or 0 < wait < float("inf")
    for adapter in _ADAPTERS:
        failure = adapter.classify_error(WireResponse(429, sent, b"{}", _NOW))
        assert failure.retry_after_s is None or 0 < failure.retry_after_s < float("inf")


_PARTS = ("limit", "remaining", "reset")
_ADAPTERS = tuple(load_registry().adapters.values())


# --- a provider's answers -------------------------------------------------------------------------


def of_adapters(subjects: Sequence[Subject]) -> Target:
    """Return a target that feeds the same bytes to the three readers of an adapter. The first byte selects the adapter."""

    def read(data: bytes) -> None:
        which, cut, status, body = (data[0], data[1], data[2], data[3:]) if len(data) > 3 else (0, 0, 0, data)
        subject = subjects[which % len(subjects)]
        events = subject.events(body)
        assert events == subject.events(body[:cut], body[cut:]), "the events depend on the cut"
        _check_stream(events)
        code = _STATUSES[status % len(_STATUSES)]
        try:
            _check_writable(subject.adapter.parse_response(subject.response(body), subject.target))
        except ProviderFailed as error:
            _check_writable(error.failure)
        if code != 200:
            _check_writable(subject.adapter.classify_error(subject.response(body, code)))

    return read


def converse(subjects: Sequence[Subject]) -> Target:
    """Return a target for Bedrock's events after their framing, whose checksums no mutation would pass.

    Payloads are separated by zero bytes. The first byte of each selects its type.
    """
    (subject,) = subjects

    def read(data: bytes) -> None:
        pieces = [_framed(part) for part in data.split(b"\0") if part]
        events = subject.events(*pieces)
        assert events == subject.events(b"".join(pieces)), "the events depend on the cut"
        _check_stream(events)

    return read


def _framed(part: bytes) -> bytes:
    kind = _EVENTS[part[0] % len(_EVENTS)]
    message = "exception" if kind.endswith("Exception") else "event"
    return encode_message({":message-type": message, f":{message}-type": kind}, part[1:])


_EVENTS = (
    "messageStart",
    "contentBlockStart",
    "contentBlockDelta",
    "contentBlockStop",
    "messageStop",
    "metadata",
    "throttlingException",
    "unheardOf",
)
_CONVERSE_SEED = b"\0".join(
    (
        b'\x08{"role":"assistant"}',
        b'\x01{"contentBlockIndex":1,"start":{"toolUse":{"toolUseId":"t","name":"get_weather"}}}',
        b'\x02{"contentBlockIndex":1,"delta":{"toolUse":{"input":"{}"}}}',
        b'\x02{"contentBlockIndex":0,"delta":{"text":"Hi"}}',
        b'\x02{"contentBlockIndex":2,"delta":{"reasoningContent":{"text":"x","signature":"s"}}}',
        b'\x03{"contentBlockIndex":1}',
        b'\x04{"stopReason":"tool_use"}',
        b'\x05{"usage":{"inputTokens":3,"outputTokens":4,"totalTokens":7}}',
    )
)


def _check_stream(events: tuple[StreamEvent, ...]) -> None:
    ended = check_ends_once(events)
    if isinstance(ended, Failed):
        _check_writable(ended.failure)
    else:
        assert isinstance(ended, Finished)
        _check_writable(fold(events))


def _check_writable(outcome: ChatCompletion | Failure) -> None:
    if isinstance(outcome, Failure):
        dumps([outcome.message, outcome.detail, outcome.code, outcome.param, outcome.request_id])
        assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s < float("inf")
    else:
        assert outcome.choices
        dumps(encode_completion(outcome, outcome.model))


def seeds_of(subjects: Sequence[Subject]) -> Iterator[bytes]:
    """Return the healthy answers of a provider and its errors."""
    for which, subject in enumerate(subjects):
        completion, request = rich_answer(subject)
        asked = [request, *(case.request for case in request_cases(subject) if case.request.tools)][:2]
        for one in asked:
            yield bytes([which, 7, 0]) + b"".join(subject.stream(completion, one))
            yield bytes([which, 7, 0]) + subject.simulator.write_answer(completion, subject.received(one)).body
        for number, kind in enumerate((FailureKind.RATE_LIMITED, FailureKind.CONTENT_FILTER, FailureKind.CREDENTIALS)):
            yield bytes([which, 7, number + 1]) + subject.simulator.write_error(kind, 429, 7).body
            yield bytes([which, 7, 0]) + subject.simulator.write_error_event(kind)


# --- a client's requests --------------------------------------------------------------------------


def requests(subjects: Sequence[Subject]) -> Target:
    """Return a target for a client's body: it is read and encoded for one provider, or refused by a named error.

    The first byte selects the provider.
    """

    def read(data: bytes) -> None:
        which, body = data[0] if data else 0, data[1:]
        try:
            value = loads(body)
        except JsonError:
            return
        plain = plain_request(value, _MOST_MESSAGES)
        try:
            request = decode_request(value)
        except (InvalidRequest, UnsupportedFeature):
            assert plain is None, "the fast path accepts a body that the general path refuses"
            return
        assert plain in (None, request), "the fast path and the general path differ"
        subject = subjects[which % len(subjects)]
        try:
            wire = subject.build(request)
        except UnsupportedFeature:
            return
        assert wire.path.startswith("/")
        loads(wire.body)

    return read


def request_seeds(subjects: Sequence[Subject]) -> Iterator[bytes]:
    """Return bodies that clients send, including call ids with the reasoning that the gateway encodes in them."""
    for which, subject in enumerate(subjects):
        completion, request = rich_answer(subject)
        answer = subject.answer(completion, request)
        choices = encode_completion(answer, answer.model)["choices"]
        assert isinstance(choices, list)
        message = choices[0]["message"]
        calls = [
            {"role": "tool", "tool_call_id": call["id"], "content": "-3"} for call in message.get("tool_calls", ())
        ]
        user = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
        tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
        body = {"model": "m", "messages": [user, message, *calls], "tools": [tool], "reasoning_effort": "low"}
        yield bytes([which]) + dumps(body)
    yield b'\x00{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true,"max_tokens":5,"stop":["x"]}'
    image = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}'
    schema = b'{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}}'
    yield b'\x01{"model":"m","messages":[{"role":"user","content":[' + image + b']}],"response_format":' + schema + b"}"


# --- redaction ------------------------------------------------------------------------------------


def redaction(data: bytes) -> None:
    """Check that a text comes back as it was however its answer is cut, also in arguments, and takes no long time.

    The text is repeated, so that a form whose search is slow takes long.
    """
    cut, text = data[0] if data else 0, data[1:].decode("utf-8", "ignore")
    for once in (text, text * 20):
        # A hundred times what the slowest known text takes: only a search that is not linear takes so long.
        named = _placeholders(Clock(0.5 + len(once) * 1e-4, time.thread_time))
        sent = named(once)
        at = cut % (len(sent) + 1)
        for pieces in ([sent], [sent[:at], sent[at:]]):
            restorer = Restorer(named)
            shown = ""
            for piece in pieces:
                shown += restorer.feed(piece)
                assert len(restorer.held) <= MOST_HELD, "too much of a stream is held"
            assert shown + restorer.close() == once, "a text does not come back as it was"
    named = _placeholders(Clock())
    arguments = json.dumps({"text": text})
    sent_arguments = named.arguments(arguments)
    restored = Restorer(named, in_json=True).feed(sent_arguments, is_end=True)
    assert json.loads(restored) == json.loads(arguments), "arguments do not come back as they were"


def _placeholders(clock: Clock) -> Placeholders:
    return Placeholders(_RULES, clock)


_RULES = rules_of(["all"], BUILT_IN, countries(), ["Project Nightjar", "Nightjar Team"], [("TICKET", "ACME-[0-9]{6}")])
_REDACTION_SEEDS = (
    "john@example.com, +49 (0)171 1234567, 4111 1111 1111 1111, DE89 3704 0044 0532 0130 00",
    "身份证号11010519491231002X, 078-05-1120, 电话：12345678, ＋４９ １７１ １２３４５６７, 10.0.0.1",
    "-----BEGIN PRIVATE KEY-----\\nabc\\n-----END PRIVATE KEY-----sk-abcdefghijklmnopqrstuvwxyz://u:p@h",
    "Project  Nightjar Team ACME-123456 QEMAIL1Z qtext2zQQTERM1ZZ %2B49%20171%201234567 \\n0171 1234567",
)


# --- selection ------------------------------------------------------------------------------------


def target_named(name: str) -> tuple[Target, list[bytes]]:
    """Return a target by its name, and its seeds."""
    match name:
        case "sse":
            return sse, [b"\x05event: x\r\ndata: {}\r\ndata: y\r\r: comment\n\n\xef\xbb\xbfid: 1\n\n"]
        case "event_stream":
            message_headers = {":message-type": "event", ":event-type": "messageStop"}
            return event_stream, [b"\x05" + encode_message(message_headers, b'{"stopReason":"end_turn"}') * 2]
        case "headers":
            return headers, [
                b"7\x00250\x00Fri, 20 Nov 2026 06:29:30 GMT\x005000\x000\x006m0s",
                b"\0\0\0-1\x000\x001795156200",
            ]
        case "redaction":
            return redaction, [b"\x07" + seed.encode() for seed in _REDACTION_SEEDS]
        case "requests":
            subjects = _subjects(list(load_registry().adapters))
            return requests(subjects), list(request_seeds(subjects))
        case "converse":
            return converse(_subjects(["bedrock"])), [_CONVERSE_SEED, _CONVERSE_SEED + b'\0\x06{"message":"slow"}']
        case "compatible":
            vendors = [
                key for key, adapter in load_registry().adapters.items() if isinstance(adapter, CompatibleAdapter)
            ]
            subjects = _subjects(vendors)
            return of_adapters(subjects), list(seeds_of(subjects))
    subjects = _subjects([name])
    return of_adapters(subjects), list(seeds_of(subjects))


def _subjects(names: list[str]) -> Sequence[Subject]:
    """Return the model with the most capabilities of each of these adapters, and of each path of its API."""
    return select([_module_of(name) for name in names], [], Path("nowhere"), wire_is_given=False).subjects


def _module_of(name: str) -> str:
    from importlib.metadata import entry_points

    (point,) = {point.value for point in entry_points(group="providers.adapters", name=name)}
    return point


def main() -> None:
    """Set up the target that the first argument names, with seeds in its own corpus, and run it."""
    name = sys.argv.pop(1)
    corpus = Path(__file__).parent / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    target, seeds = target_named(name)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
