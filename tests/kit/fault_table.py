"""The table of faults: what the provider does, and what the client, the server and the operator must see.

docs/reference/faults.md is generated from these rows, and the tests compare a running gateway with them.
"""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.failures import FailureKind
from tests.kit.faulty_provider import ANSWER, WORDS, Behaviour, Call, answer, chunk_of

__all__ = ["FAULTS", "INTERRUPTED", "WHOLE", "Fault", "Seen"]

WHOLE = (200, None)
INTERRUPTED = (200, "stream_interrupted")
Seen = tuple[int, str | None]
"""A status and its error code, in the body or in a stream that has started."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table.

    Attributes:
        kind: the failure kind in the log; None where the primary's answer is used.
        calls: how often the primary is called before the fallback.
        moves_on: whether the fallback answers; otherwise the client gets the failure at once.
        alone: what a client gets for JSON and for a stream where there is no fallback.
        behave: what the provider does; None where it is never reached.
        detail: words in the log that distinguish this fault from another of the same kind.
        ends_in_time: only the gateway's own timeouts end the attempt.
    """

    name: str
    description: str
    behave: Behaviour | None
    kind: FailureKind | None
    calls: int
    alone: tuple[Seen, Seen]
    moves_on: bool = True
    streams: bool = True
    json: bool = True
    detail: str = ""
    ends_in_time: bool = False


def in_turn(*steps: Behaviour) -> Behaviour:
    """Do one thing after another."""

    async def behave(call: Call) -> None:
        for step in steps:
            await step(call)

    return behave


def repeated(step: Behaviour, pause_s: float = 0.0) -> Behaviour:
    """Do a thing again and again until the gateway closes the connection."""

    async def behave(call: Call) -> None:
        while not call.writer.is_closing():
            await step(call)
            if pause_s:
                await asyncio.sleep(pause_s)

    return behave


def by_form(whole: Behaviour, stream: Behaviour) -> Behaviour:
    """Do one thing for a JSON request, and another one for a stream."""
    return lambda call: (stream if call.stream else whole)(call)


def once(act: Behaviour) -> Behaviour:
    """Fail the first of every two calls. With two attempts for each deployment, the second one answers each client."""
    return lambda call: (act if call.number % 2 == 0 else answer)(call)


def error(status: int, kind: str = "server_error", code: str | None = None, **headers: str) -> Behaviour:
    return lambda call: call.error(status, kind, code, **headers)


def responds(body: str | Mapping[str, Any], status: int = 200, **headers: str) -> Behaviour:
    return lambda call: call.respond(status, body, **headers)


def head(status: int = 200, **headers: str) -> Behaviour:
    return lambda call: call.head(status, **headers)


def sends(data: str) -> Behaviour:
    return lambda call: call.send(data)


def chunk(data: str) -> Behaviour:
    return lambda call: call.chunk(data)


def event(value: Mapping[str, Any] | str) -> Behaviour:
    return lambda call: call.event(value)


def refused_and(status: int, after: Behaviour) -> Behaviour:
    """Send a status that is not a success and half of its body, and then do something else."""
    return in_turn(head(status, content_length="500"), sends('{"error": {"message": "the ser'), after)


def midway(act: Behaviour, words: int = 3) -> Behaviour:
    """Do a thing when the client has received so many words. Otherwise everything may arrive in one piece."""
    return in_turn(lambda call: call.begin(words), lambda call: call.until_read(), act)


async def _reset(call: Call) -> None:
    call.reset()


async def _close(call: Call) -> None:
    call.writer.close()


def _silent(call: Call) -> Awaitable[None]:
    return call.until_closed()


_CHUNKED, _LAST, _DONE = head(transfer_encoding="chunked"), sends("0\r\n\r\n"), event("[DONE]")
_STOP = event(chunk_of({}, "stop"))
_WORDS = tuple(event(chunk_of({"content": word})) for word in WORDS)
_SERVER_ERROR = {"error": {"message": "the server had an error", "type": "server_error", "code": None}}
_NO_SUCH_MODEL = {"message": "invalid model ID", "type": "invalid_request_error", "param": None, "code": None}
_BASE = {"id": "chatcmpl-p", "object": "chat.completion", "created": 1, "model": "m"}
_UNFINISHED = {"index": 0, "message": {"role": "assistant", "content": ANSWER}}
_USAGE = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}

_reset_after_headers = in_turn(by_form(head(content_length="500"), _CHUNKED), _reset)
_error_in_200 = by_form(responds(_SERVER_ERROR), in_turn(_CHUNKED, event(_SERVER_ERROR), _LAST))
_truncated = responds(
    '{"id": "chatcmpl-p", "choices": [{"index": 0, "message": {"role": "assistant", "cont',
    content_type="application/json",
)
_no_finish = by_form(responds({**_BASE, "choices": [_UNFINISHED]}), in_turn(_CHUNKED, *_WORDS, _DONE, _LAST))


async def _bomb(call: Call) -> None:
    # 80 MB of blanks in 80 KB; the limit is 64 MB.
    blanks = gzip.compress(b" " * (1 << 20), 9)
    await call.head(content_encoding="gzip", transfer_encoding="chunked")
    for _ in range(80):
        await call.send(f"{len(blanks):x}\r\n".encode() + blanks + b"\r\n")
    await call.send("0\r\n\r\n")


async def _words_with_an_error(call: Call) -> None:
    """Send in one write, in one HTTP chunk for each event: events that arrive together are read together."""
    values = (*(chunk_of({"content": word}) for word in WORDS[:3]), _SERVER_ERROR)
    events = [f"data: {json.dumps(one)}\n\n" for one in values]
    await call.head(transfer_encoding="chunked")
    await call.send("".join(f"{len(one.encode()):x}\r\n{one}\r\n" for one in events) + "0\r\n\r\n")


async def _byte_by_byte(call: Call) -> None:
    """Send every byte in its own piece, also between the two halves of a line break."""
    send = call.writer
    events = [chunk_of({"role": "assistant"}), *(chunk_of({"content": word}) for word in WORDS), chunk_of({}, "stop")]
    await call.head(transfer_encoding="chunked")
    for text in [*map(json.dumps, events), "[DONE]"]:
        for byte in f"data: {text}\r\n\r\n".encode():
            send.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        await send.drain()
    await call.send("0\r\n\r\n")


async def _dripping_head(call: Call) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nx-" + b"y" * 1000:
        if call.writer.is_closing():
            return
        await call.send(bytes([byte]))
        await asyncio.sleep(0.02)


def _compressed(coding: str, pack: Callable[[bytes], bytes]) -> Behaviour:
    """Send a complete answer in a content coding that was not requested."""

    async def behave(call: Call) -> None:
        body: object = {**_BASE, "choices": [{**_UNFINISHED, "finish_reason": "stop"}]}
        events = [*(chunk_of({"content": word}) for word in WORDS), chunk_of({}, "stop")]
        text = "".join(f"data: {json.dumps(one)}\n\n" for one in events) if call.stream else json.dumps(body)
        await call.respond(200, pack(text.encode()), content_encoding=coding)

    return behave


K = FailureKind
PROVIDER, PLAIN_429 = (502, "provider_error"), (429, "rate_limited")
UNAVAILABLE, LATE = (503, "no_healthy_deployment"), (504, "deadline_exceeded")
INVALID, FILTERED = (400, "invalid_request"), (400, "content_filter")
LONG = (400, "context_length_exceeded")

FAULTS = (
    # The provider reports that it cannot answer, now or ever.
    Fault("http-429-with-a-time", "429, `retry-after: 60`", error(429, "requests", None, retry_after="60"),
          K.RATE_LIMITED, 1, (PLAIN_429, PLAIN_429)),
    Fault("http-429-short", "429, `retry-after-ms: 20`, once", once(error(429, "requests", None, retry_after_ms="20")),
          None, 2, (WHOLE, WHOLE)),
    Fault("http-429", "429 without a time, for ever", error(429, "requests"), K.RATE_LIMITED, 2, (PLAIN_429, PLAIN_429)),
    Fault("http-429-quota", "429, the quota is used up", error(429, "insufficient_quota", "insufficient_quota"),
          K.QUOTA, 1, (UNAVAILABLE, UNAVAILABLE)),
    Fault("http-402", "402, the bill is unpaid", error(402, "billing"), K.QUOTA, 1, (UNAVAILABLE, UNAVAILABLE)),
    Fault("http-500-once", "500, once", once(error(500)), None, 2, (WHOLE, WHOLE)),
    Fault("http-500", "500, for ever", error(500), K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("http-502-html", "502 with a page of a proxy", responds("<html>bad gateway</html>", 502,
          content_type="text/html"), K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("http-503", "503, for ever", error(503), K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("http-504", "504", error(504), K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("http-529", "529, overloaded", error(529, "overloaded_error"), K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("http-405", "405: another service answers at the address", error(405), K.MALFORMED, 1, (PROVIDER, PROVIDER)),
    Fault("http-410", "410: the model was removed", error(410), K.MODEL_NOT_FOUND, 1, (PROVIDER, PROVIDER)),
    Fault("http-451", "451: not offered in the territory of the gateway", error(451), K.GEO_REFUSED, 1, (PROVIDER, PROVIDER)),
    Fault("http-429-years", "429, retry after three thousand years", error(429, retry_after="99999999999"),
          K.RATE_LIMITED, 2, (PLAIN_429, PLAIN_429)),
    Fault("http-408", "408", error(408), K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("http-409", "409", error(409), K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("http-401", "401, the gateway's key is refused", error(401, "invalid_request_error", "invalid_api_key"),
          K.CREDENTIALS, 1, (PROVIDER, PROVIDER)),
    Fault("http-403", "403, the gateway's account is refused", error(403, "permission_error"), K.CREDENTIALS, 1,
          (PROVIDER, PROVIDER)),
    Fault("http-404", "404, no such model", error(404, "invalid_request_error", "model_not_found"),
          K.MODEL_NOT_FOUND, 1, (PROVIDER, PROVIDER)),
    Fault("http-400-model", "400 without a code, no such model", responds({"error": _NO_SUCH_MODEL}, 400), K.MODEL_NOT_FOUND, 1,
          (PROVIDER, PROVIDER)),
    Fault("geography", "403, not offered in the territory of the gateway",
          error(403, "request_forbidden", "unsupported_country_region_territory"), K.GEO_REFUSED, 1,
          (PROVIDER, PROVIDER)),
    Fault("context-length", "400, the prompt is too long",
          error(400, "invalid_request_error", "context_length_exceeded"), K.CONTEXT_LENGTH, 1, (LONG, LONG)),
    Fault("content-filter", "400, the provider's safety system refuses the prompt",
          error(400, "invalid_request_error", "content_filter"), K.CONTENT_FILTER, 1, (FILTERED, FILTERED),
          moves_on=False),
    Fault("http-400", "400, the request is invalid", error(400, "invalid_request_error"), K.INVALID_REQUEST, 1,
          (INVALID, INVALID), moves_on=False),
    Fault("http-422", "422, the request is invalid", error(422, "invalid_request_error"), K.INVALID_REQUEST, 1,
          (INVALID, INVALID), moves_on=False),
    Fault("redirect", "307 to another host", responds("", 307, location="http://127.0.0.1:9/elsewhere"),
          K.MALFORMED, 1, (PROVIDER, PROVIDER)),
    Fault("http-500-hangs", "500, with half of its body", refused_and(500, _silent), K.UNAVAILABLE, 2,
          (PROVIDER, PROVIDER), ends_in_time=True),
    Fault("http-429-cut", "429, interrupted", refused_and(429, _reset), K.RATE_LIMITED, 2, (PLAIN_429, PLAIN_429)),
    Fault("http-400-cut", "400, interrupted: the cause may be the safety system", refused_and(400, _reset),
          K.INVALID_REQUEST, 1, (INVALID, INVALID), moves_on=False),
    # The connection.
    Fault("reset", "a reset before any byte of an answer", _reset, K.CONNECT, 2, (PROVIDER, PROVIDER)),
    Fault("reset-after-headers", "a reset after the headers", _reset_after_headers, K.INTERRUPTED, 2,
          (PROVIDER, PROVIDER)),
    Fault("reset-in-a-chunk", "a reset in the middle of the first chunk",
          in_turn(_CHUNKED, sends('40\r\ndata: {"id": "chatc'), _reset), K.INTERRUPTED, 2,
          (PROVIDER, PROVIDER)),
    Fault("no-http", "bytes that are not HTTP", in_turn(sends("SSH-2.0-OpenSSH_9.9\r\n"), _silent), K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("endless-header", "an endless header",
          in_turn(sends("HTTP/1.1 200 OK\r\n"), repeated(sends("x-more: " + "y" * 4000 + "\r\n"))), K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("bad-chunk", "a chunk whose size is not a number",
          in_turn(_CHUNKED, sends("not a size\r\n{}\r\n")), K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("refused", "no listener on the port", None, K.CONNECT, 0, (PROVIDER, PROVIDER)),
    Fault("no-such-host", "an unknown host name", None, K.CONNECT, 0, (PROVIDER, PROVIDER)),
    Fault("expired-tls", "a certificate that has expired", None, K.CONNECT, 0, (PROVIDER, PROVIDER),
          detail="certificate has expired"),
    Fault("another-name-tls", "a certificate for another name", None, K.CONNECT, 0, (PROVIDER, PROVIDER),
          detail="certificate is not valid for '127.0.0.1'"),
    # Silence.
    Fault("silent", "silence after the request", _silent, K.SILENT, 1, (LATE, LATE), ends_in_time=True),
    Fault("slow-first-token", "headers and comments, but no text",
          in_turn(lambda call: call.begin(0), repeated(chunk(": still thinking\n\n"), 0.02)), K.SILENT, 1, (LATE, LATE),
          ends_in_time=True),
    Fault("endless-comments", "only comments",
          in_turn(_CHUNKED, repeated(chunk(": nothing yet\n\n"), 0.01)), K.SILENT, 1, (LATE, LATE), ends_in_time=True),
    Fault("dripping-head", "a status line and headers, a byte at a time", _dripping_head, K.SILENT, 1, (LATE, LATE),
          ends_in_time=True),
    Fault("endless-interim", "endless interim answers (102)",
          repeated(sends("HTTP/1.1 102 Processing\r\n\r\n" * 100)), K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("switching", "101, although no other protocol was requested",
          in_turn(sends("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"), _silent), K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    # Status 200 without an answer.
    Fault("html", "200 with a web page",
          responds("<html><body>Welcome to the hotel's network</body></html>", content_type="text/html"), K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("error-in-200", "200 with an error in the body", _error_in_200, K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("truncated-json", "200 with half of a JSON object", _truncated, K.MALFORMED, 2, (PROVIDER, PROVIDER),
          streams=False),
    Fault("length-too-long", "a body shorter than its declared length",
          in_turn(head(content_length="5000"), sends('{"id": "chatcmpl-p"}'), _close), K.INTERRUPTED, 2,
          (PROVIDER, PROVIDER)),
    Fault("empty", "200 with an empty body", responds("", content_type="application/json"), K.MALFORMED, 2, (PROVIDER, PROVIDER), streams=False),
    Fault("empty-stream", "a stream without an event", in_turn(_CHUNKED, _LAST), K.INTERRUPTED, 2, (PROVIDER, PROVIDER), json=False),
    Fault("no-message", "200 with a choice that has no message",
          responds({**_BASE, "choices": [{"index": 0, "finish_reason": "stop"}]}), K.MALFORMED, 2, (PROVIDER, PROVIDER),
          streams=False),
    Fault("only-the-mark", "`[DONE]` and nothing else", in_turn(_CHUNKED, _DONE, _LAST), K.INTERRUPTED, 2, (PROVIDER, PROVIDER), json=False),
    Fault("only-usage", "usage, `[DONE]` and nothing else",
          in_turn(_CHUNKED, event({**chunk_of({}), "choices": [], "usage": _USAGE}), _DONE, _LAST), K.INTERRUPTED, 2, (PROVIDER, PROVIDER), json=False),
    Fault("unknown-coding", "an answer in a compression that was not requested", _compressed("br", lambda text: text),
          K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("gzip-bomb", "80 MB in 80 KB of gzip", _bomb, K.TOO_LARGE, 1, (PROVIDER, PROVIDER)),
    Fault("endless-line", "an endless line",
          in_turn(_CHUNKED, chunk("data: "), repeated(chunk("x" * 262_144))), K.TOO_LARGE, 1, (PROVIDER, PROVIDER), json=False),
    # A stream that has started.
    Fault("midway-reset", "a reset after three words", midway(_reset), K.INTERRUPTED, 1, (PROVIDER, INTERRUPTED),
          moves_on=False, json=False),
    Fault("midway-stall", "silence after three words", midway(_silent), K.INTERRUPTED, 1, (LATE, INTERRUPTED),
          moves_on=False, json=False, ends_in_time=True),
    Fault("error-with-words", "three words and an error event in one piece", _words_with_an_error, K.UNAVAILABLE, 2,
          (PROVIDER, PROVIDER), json=False),
    Fault("midway-error", "an error event after three words", midway(in_turn(event(_SERVER_ERROR), _LAST)), K.INTERRUPTED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-garbage", "half an event after three words",
          midway(in_turn(event('{"choices": [{"delta": {"content": '), lambda call: call.end())), K.MALFORMED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-cut", "an orderly end after three words, without a finish", midway(_LAST), K.INTERRUPTED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-framing", "a malformed chunk after three words", midway(in_turn(sends("zz\r\n"), _silent)), K.INTERRUPTED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-endless", "an endless answer",
          midway(repeated(event(chunk_of({"content": "and on "})), 0.02)), K.INTERRUPTED, 1, (PROVIDER, INTERRUPTED),
          moves_on=False, json=False, ends_in_time=True),
    Fault("midway-filter", "the provider's safety system ends the answer after three words",
          midway(lambda call: call.end("content_filter")), None, 1,
          (WHOLE, WHOLE), json=False),
    # Unusual but complete answers.
    Fault("no-done", "a complete answer without `[DONE]`",
          midway(in_turn(*_WORDS[3:], lambda call: call.end(mark=False))), None, 1, (WHOLE, WHOLE), json=False),
    Fault("no-finish", "a complete answer without a finish", _no_finish, None, 1, (WHOLE, WHOLE)),
    Fault("two-dones", "a complete answer with two `[DONE]`",
          midway(in_turn(*_WORDS[3:], _STOP, _DONE, _DONE, _LAST)), None, 1, (WHOLE, WHOLE), json=False),
    Fault("after-the-mark", "a complete answer, and text after its `[DONE]`",
          midway(in_turn(*_WORDS[3:], _STOP, _DONE, event(chunk_of({"content": "and another thing"})), _LAST)), None, 1,
          (WHOLE, WHOLE), json=False),
    Fault("early-hints", "interim answers (100, 103), and then a complete one",
          in_turn(sends("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"), answer), None, 1, (WHOLE, WHOLE)),
    Fault("gzip", "a complete answer in gzip that was not requested", _compressed("gzip", gzip.compress), None, 1,
          (WHOLE, WHOLE)),
    Fault("byte-by-byte", "a complete answer, a byte at a time", _byte_by_byte, None, 1, (WHOLE, WHOLE), json=False),
    Fault("healthy", "a whole answer", answer, None, 1, (WHOLE, WHOLE)),
)  # fmt: skip
assert ANSWER
