"""The table of faults: what the provider does, and what the client, the server and the operator must see.

docs/reference/faults.md is generated from these rows, and the tests compare a running gateway with them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

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


def always(act: Callable[[Call], Awaitable[None]]) -> Behaviour:
    return act


def once(act: Callable[[Call], Awaitable[None]]) -> Behaviour:
    """Fail the first of every two calls. With two attempts for each deployment, the second one answers each client."""

    async def behave(call: Call) -> None:
        await (act(call) if call.number % 2 == 0 else answer(call))

    return behave


def error(status: int, kind: str = "server_error", code: str | None = None, **headers: str) -> Behaviour:
    return lambda call: call.error(status, kind, code, **headers)


async def _reset(call: Call) -> None:
    call.reset()


def refused_and(status: int, after: Callable[[Call], Awaitable[None]]) -> Behaviour:
    """Send a status that is not a success and half of its body, and then do something else."""

    async def behave(call: Call) -> None:
        await call.head(status, content_length="500")
        await call.send('{"error": {"message": "the ser')
        await after(call)

    return behave


async def _reset_after_headers(call: Call) -> None:
    await call.head(**({"transfer_encoding": "chunked"} if call.stream else {"content_length": "500"}))
    call.reset()


async def _reset_in_the_first_chunk(call: Call) -> None:
    await call.head(transfer_encoding="chunked")
    await call.send('40\r\ndata: {"id": "chatc')
    call.reset()


async def _silent(call: Call) -> None:
    await call.until_closed()


async def _slow_first_token(call: Call) -> None:
    await call.begin(0)
    while not call.writer.is_closing():
        await call.chunk(": still thinking\n\n")
        await asyncio.sleep(0.02)


async def _html(call: Call) -> None:
    await call.respond(200, "<html><body>Welcome to the hotel's network</body></html>", content_type="text/html")


async def _no_such_model(call: Call) -> None:
    content = {"message": "invalid model ID", "type": "invalid_request_error", "param": None, "code": None}
    await call.respond(400, {"error": content})


async def _error_in_200(call: Call) -> None:
    content = {"error": {"message": "the server had an error", "type": "server_error", "code": None}}
    if not call.stream:
        await call.respond(200, content)
        return
    await call.head(transfer_encoding="chunked")
    await call.event(content)
    await call.send("0\r\n\r\n")


async def _truncated(call: Call) -> None:
    await call.respond(
        200,
        '{"id": "chatcmpl-p", "choices": [{"index": 0, "message": {"role": "assistant", "cont',
        content_type="application/json",
    )


async def _length_too_long(call: Call) -> None:
    await call.head(content_length="5000")
    await call.send('{"id": "chatcmpl-p"}')
    call.writer.close()


async def _empty(call: Call) -> None:
    await call.respond(200, "", content_type="application/json")


async def _empty_stream(call: Call) -> None:
    await call.head(transfer_encoding="chunked")
    await call.send("0\r\n\r\n")


async def _bomb(call: Call) -> None:
    # 80 MB of blanks in 80 KB; the limit is 64 MB.
    blanks = gzip.compress(b" " * (1 << 20), 9)
    await call.head(content_encoding="gzip", transfer_encoding="chunked")
    for _ in range(80):
        await call.send(f"{len(blanks):x}\r\n".encode() + blanks + b"\r\n")
    await call.send("0\r\n\r\n")


async def _endless_header(call: Call) -> None:
    await call.send("HTTP/1.1 200 OK\r\n")
    while not call.writer.is_closing():
        await call.send("x-more: " + "y" * 4000 + "\r\n")


async def _endless_comments(call: Call) -> None:
    await call.head(transfer_encoding="chunked")
    while not call.writer.is_closing():
        await call.chunk(": nothing yet\n\n")
        await asyncio.sleep(0.01)


async def _endless_line(call: Call) -> None:
    await call.head(transfer_encoding="chunked")
    await call.chunk("data: ")
    while not call.writer.is_closing():
        await call.chunk("x" * 262_144)


async def _no_http(call: Call) -> None:
    await call.send("SSH-2.0-OpenSSH_9.9\r\n")
    await call.until_closed()


async def _bad_chunk(call: Call) -> None:
    await call.head(transfer_encoding="chunked")
    await call.send("not a size\r\n{}\r\n")


def midway(act: Callable[[Call], Awaitable[None]], words: int = 3) -> Behaviour:
    async def behave(call: Call) -> None:
        await call.begin(words)
        # Otherwise everything may arrive in one piece, before the client has received any text.
        await call.until_read()
        await act(call)

    return behave


async def _error_event(call: Call) -> None:
    await call.event({"error": {"message": "the server had an error", "type": "server_error", "code": None}})
    await call.send("0\r\n\r\n")


async def _words_with_an_error(call: Call) -> None:
    """Send in one write, in one HTTP chunk for each event: events that arrive together are read together."""
    content = {"error": {"message": "the server had an error", "type": "server_error", "code": None}}
    events = [f"data: {json.dumps(one)}\n\n" for one in (*(chunk_of({"content": word}) for word in WORDS[:3]), content)]
    await call.head(transfer_encoding="chunked")
    await call.send("".join(f"{len(one.encode()):x}\r\n{one}\r\n" for one in events) + "0\r\n\r\n")


async def _garbage_event(call: Call) -> None:
    await call.event('{"choices": [{"delta": {"content": ')
    await call.end()


async def _cut(call: Call) -> None:
    await call.send("0\r\n\r\n")


async def _broken_framing(call: Call) -> None:
    await call.send("zz\r\n")
    await call.until_closed()


async def _endless_text(call: Call) -> None:
    while not call.writer.is_closing():
        await call.event(chunk_of({"content": "and on "}))
        await asyncio.sleep(0.02)


async def _filtered(call: Call) -> None:
    await call.end("content_filter")


async def _no_mark(call: Call) -> None:
    for word in WORDS[3:]:
        await call.event(chunk_of({"content": word}))
    await call.end(mark=False)


async def _two_marks(call: Call) -> None:
    for word in WORDS[3:]:
        await call.event(chunk_of({"content": word}))
    await call.event(chunk_of({}, "stop"))
    await call.event("[DONE]")
    await call.event("[DONE]")
    await call.send("0\r\n\r\n")


async def _byte_by_byte(call: Call) -> None:
    """Send every byte in its own piece, also between the two halves of a line break."""
    send = call.writer
    events = [chunk_of({"role": "assistant"}), *(chunk_of({"content": word}) for word in WORDS), chunk_of({}, "stop")]
    await call.head(transfer_encoding="chunked")
    for event in [*map(_text, events), "[DONE]"]:
        for byte in f"data: {event}\r\n\r\n".encode():
            send.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        await send.drain()
    await call.send("0\r\n\r\n")


async def _early_hints(call: Call) -> None:
    await call.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n")
    await answer(call)


async def _endless_interim(call: Call) -> None:
    while not call.writer.is_closing():
        await call.send("HTTP/1.1 102 Processing\r\n\r\n" * 100)


async def _switching(call: Call) -> None:
    await call.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")
    await call.until_closed()


async def _dripping_head(call: Call) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nx-" + b"y" * 1000:
        if call.writer.is_closing():
            return
        await call.send(bytes([byte]))
        await asyncio.sleep(0.02)


async def _no_message(call: Call) -> None:
    choice = {"index": 0, "finish_reason": "stop"}
    content = {"id": "chatcmpl-p", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    await call.respond(200, content, content_type="application/json")


async def _only_the_mark(call: Call) -> None:
    await call.head(transfer_encoding="chunked")
    await call.event("[DONE]")
    await call.send("0\r\n\r\n")


async def _only_usage(call: Call) -> None:
    await call.head(transfer_encoding="chunked")
    usage = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
    await call.event({**chunk_of({}), "choices": [], "usage": usage})
    await call.event("[DONE]")
    await call.send("0\r\n\r\n")


async def _no_finish(call: Call) -> None:
    if not call.stream:
        choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}}
        await call.respond(200, {"id": "chatcmpl-p", "created": 1, "model": "m", "choices": [choice]})
        return
    await call.head(transfer_encoding="chunked")
    for word in WORDS:
        await call.event(chunk_of({"content": word}))
    await call.event("[DONE]")
    await call.send("0\r\n\r\n")


async def _text_after_the_mark(call: Call) -> None:
    for word in WORDS[3:]:
        await call.event(chunk_of({"content": word}))
    await call.event(chunk_of({}, "stop"))
    await call.event("[DONE]")
    await call.event(chunk_of({"content": "and another thing"}))
    await call.send("0\r\n\r\n")


def _compressed(coding: str, pack: Callable[[bytes], bytes]) -> Behaviour:
    """Send a complete answer in a content coding that was not requested."""

    async def behave(call: Call) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
        body: object = {"id": "chatcmpl-p", "created": 1, "model": "m", "choices": [choice]}
        events = [*(chunk_of({"content": word}) for word in WORDS), chunk_of({}, "stop")]
        text = "".join(f"data: {_text(event)}\n\n" for event in events) if call.stream else _text(body)
        await call.respond(200, pack(text.encode()), content_encoding=coding)

    return behave


def _text(value: object) -> str:
    import json

    return json.dumps(value)


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
    Fault("http-502-html", "502 with a page of a proxy", lambda call: call.respond(502, "<html>bad gateway</html>",
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
    Fault("http-400-model", "400 without a code, no such model", _no_such_model, K.MODEL_NOT_FOUND, 1,
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
    Fault("redirect", "307 to another host", lambda call: call.respond(307, "", location="http://127.0.0.1:9/elsewhere"),
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
    Fault("reset-in-a-chunk", "a reset in the middle of the first chunk", _reset_in_the_first_chunk, K.INTERRUPTED, 2,
          (PROVIDER, PROVIDER)),
    Fault("no-http", "bytes that are not HTTP", _no_http, K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("endless-header", "an endless header", _endless_header, K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("bad-chunk", "a chunk whose size is not a number", _bad_chunk, K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("refused", "no listener on the port", None, K.CONNECT, 0, (PROVIDER, PROVIDER)),
    Fault("no-such-host", "an unknown host name", None, K.CONNECT, 0, (PROVIDER, PROVIDER)),
    Fault("expired-tls", "a certificate that has expired", None, K.CONNECT, 0, (PROVIDER, PROVIDER),
          detail="certificate has expired"),
    Fault("another-name-tls", "a certificate for another name", None, K.CONNECT, 0, (PROVIDER, PROVIDER),
          detail="certificate is not valid for '127.0.0.1'"),
    # Silence.
    Fault("silent", "silence after the request", _silent, K.SILENT, 1, (LATE, LATE), ends_in_time=True),
    Fault("slow-first-token", "headers and comments, but no text", _slow_first_token, K.SILENT, 1, (LATE, LATE),
          ends_in_time=True),
    Fault("endless-comments", "only comments", _endless_comments, K.SILENT, 1, (LATE, LATE), ends_in_time=True),
    Fault("dripping-head", "a status line and headers, a byte at a time", _dripping_head, K.SILENT, 1, (LATE, LATE),
          ends_in_time=True),
    Fault("endless-interim", "endless interim answers (102)", _endless_interim, K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("switching", "101, although no other protocol was requested", _switching, K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    # Status 200 without an answer.
    Fault("html", "200 with a web page", _html, K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("error-in-200", "200 with an error in the body", _error_in_200, K.UNAVAILABLE, 2, (PROVIDER, PROVIDER)),
    Fault("truncated-json", "200 with half of a JSON object", _truncated, K.MALFORMED, 2, (PROVIDER, PROVIDER),
          streams=False),
    Fault("length-too-long", "a body shorter than its declared length", _length_too_long, K.INTERRUPTED, 2,
          (PROVIDER, PROVIDER)),
    Fault("empty", "200 with an empty body", _empty, K.MALFORMED, 2, (PROVIDER, PROVIDER), streams=False),
    Fault("empty-stream", "a stream without an event", _empty_stream, K.INTERRUPTED, 2, (PROVIDER, PROVIDER), json=False),
    Fault("no-message", "200 with a choice that has no message", _no_message, K.MALFORMED, 2, (PROVIDER, PROVIDER),
          streams=False),
    Fault("only-the-mark", "`[DONE]` and nothing else", _only_the_mark, K.INTERRUPTED, 2, (PROVIDER, PROVIDER), json=False),
    Fault("only-usage", "usage, `[DONE]` and nothing else", _only_usage, K.INTERRUPTED, 2, (PROVIDER, PROVIDER), json=False),
    Fault("unknown-coding", "an answer in a compression that was not requested", _compressed("br", lambda text: text),
          K.MALFORMED, 2, (PROVIDER, PROVIDER)),
    Fault("gzip-bomb", "80 MB in 80 KB of gzip", _bomb, K.TOO_LARGE, 1, (PROVIDER, PROVIDER)),
    Fault("endless-line", "an endless line", _endless_line, K.TOO_LARGE, 1, (PROVIDER, PROVIDER), json=False),
    # A stream that has started.
    Fault("midway-reset", "a reset after three words", midway(_reset), K.INTERRUPTED, 1, (PROVIDER, INTERRUPTED),
          moves_on=False, json=False),
    Fault("midway-stall", "silence after three words", midway(_silent), K.INTERRUPTED, 1, (LATE, INTERRUPTED),
          moves_on=False, json=False, ends_in_time=True),
    Fault("error-with-words", "three words and an error event in one piece", _words_with_an_error, K.UNAVAILABLE, 2,
          (PROVIDER, PROVIDER), json=False),
    Fault("midway-error", "an error event after three words", midway(_error_event), K.INTERRUPTED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-garbage", "half an event after three words", midway(_garbage_event), K.MALFORMED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-cut", "an orderly end after three words, without a finish", midway(_cut), K.INTERRUPTED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-framing", "a malformed chunk after three words", midway(_broken_framing), K.INTERRUPTED, 1,
          (PROVIDER, INTERRUPTED), moves_on=False, json=False),
    Fault("midway-endless", "an endless answer", midway(_endless_text), K.INTERRUPTED, 1, (PROVIDER, INTERRUPTED),
          moves_on=False, json=False, ends_in_time=True),
    Fault("midway-filter", "the provider's safety system ends the answer after three words", midway(_filtered), None, 1,
          (WHOLE, WHOLE), json=False),
    # Unusual but complete answers.
    Fault("no-done", "a complete answer without `[DONE]`", midway(_no_mark), None, 1, (WHOLE, WHOLE), json=False),
    Fault("no-finish", "a complete answer without a finish", _no_finish, None, 1, (WHOLE, WHOLE)),
    Fault("two-dones", "a complete answer with two `[DONE]`", midway(_two_marks), None, 1, (WHOLE, WHOLE), json=False),
    Fault("after-the-mark", "a complete answer, and text after its `[DONE]`", midway(_text_after_the_mark), None, 1,
          (WHOLE, WHOLE), json=False),
    Fault("early-hints", "interim answers (100, 103), and then a complete one", _early_hints, None, 1, (WHOLE, WHOLE)),
    Fault("gzip", "a complete answer in gzip that was not requested", _compressed("gzip", gzip.compress), None, 1,
          (WHOLE, WHOLE)),
    Fault("byte-by-byte", "a complete answer, a byte at a time", _byte_by_byte, None, 1, (WHOLE, WHOLE), json=False),
    Fault("healthy", "a whole answer", answer, None, 1, (WHOLE, WHOLE)),
)  # fmt: skip
assert ANSWER
