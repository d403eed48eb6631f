"""The provider stub of `stub.c` in Python, for machines without a C compiler: same ports, paths, options and answers.
It costs more than the C version and shares a core with the load client, so that it limits the requests per second
earlier. The CPU time of a gateway can be measured equally well with either.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence

import httptools

Frames = list[bytes]
_STAMP = "@0000000000000000@"
_WORD = " boundary"
_TEXT = "The gateway reads where a request comes from and decides which provider may answer it. " * 4
_USAGE = {
    "prompt_tokens": 42,
    "completion_tokens": 61,
    "total_tokens": 103,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
_COMPLETION: dict[str, object] = {
    "id": "chatcmpl-bench",
    "created": 1763596800,
    "model": "gpt-6-luna",
    "service_tier": "default",
    "system_fingerprint": "fp_bench",
}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_stub\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def json_answer(value: object) -> bytes:
    """Return the bytes of a whole answer with this value."""
    body = json.dumps(value, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _openai_answer() -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return json_answer({**_COMPLETION, "object": "chat.completion", "choices": [choice], "usage": _USAGE})


def _openai_stream(events: int, word: str, with_usage: bool) -> Frames:
    def event(delta: dict[str, object] | None, finish: str | None = None, usage: object = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        value = {**_COMPLETION, "object": "chat.completion.chunk", "choices": [choice] if delta is not None else []}
        if with_usage:
            value["usage"] = usage
        return _chunked(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")

    words = [event({"content": word})] * (events - 2 - with_usage)
    last = event({}, "stop") + (event(None, None, _USAGE) if with_usage else b"")
    first = event({"role": "assistant", "content": "", "refusal": None})
    return [_STREAM_HEAD + first, *words, last + _chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


def _gemini_value(text: str, is_last: bool, tokens: int) -> dict[str, object]:
    finish = {"finishReason": "STOP"} if is_last else {}
    return {
        "candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, **finish, "index": 0}],
        "usageMetadata": {"promptTokenCount": 42, "candidatesTokenCount": tokens, "totalTokenCount": tokens + 42},
        "modelVersion": "gemini-3.8-flash",
        "responseId": "mFkfacaAEPOn",
    }


def _gemini_stream(events: int, word: str) -> Frames:
    values = [_gemini_value(word, number == events, number) for number in range(1, events + 1)]
    frames = [_chunked(b"data: " + json.dumps(value).encode() + b"\r\n\r\n") for value in values]
    return [_STREAM_HEAD + frames[0], *frames[1:-1], frames[-1] + b"0\r\n\r\n"]


class Answers:
    """All answers, by dialect."""

    def __init__(self, burst_events: int, paced_events: int) -> None:
        self.json_answers = {"openai": _openai_answer(), "gemini": json_answer(_gemini_value(_TEXT, True, 61))}
        self.bursts = {name: b"".join(frames) for name, frames in self._streams(burst_events, _WORD).items()}
        self.paced = self._streams(paced_events, _STAMP)

    @staticmethod
    def _streams(events: int, word: str) -> dict[str, Frames]:
        return {
            "openai": _openai_stream(events, word, with_usage=False),
            "openai+usage": _openai_stream(events, word, with_usage=True),
            "gemini": _gemini_stream(events, word),
        }


class StubProtocol(asyncio.Protocol):
    """One connection.
    Attributes:
        gap_s: the time between events; None sends a stream in one write.
        endless: the second event is repeated for ever.
    """

    def __init__(self, answers: Answers, gap_s: float | None, endless: bool) -> None:
        self._answers = answers
        self._gap_s = gap_s
        self._endless = endless
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._target = b""
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # narrows what asyncio types too widely
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        body = bytes(self._body).replace(b'": true', b'":true')
        self._body.clear()
        if b"/chat/completions" in self._target:
            is_stream = b'"stream":true' in body
            self._answer("openai+usage" if b'"include_usage":true' in body else "openai", is_stream)
        elif b"enerateContent" in self._target:
            self._answer("gemini", b":streamGenerateContent" in self._target)
        else:
            self._send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _answer(self, dialect: str, is_stream: bool) -> None:
        if not is_stream:
            self._send(self._answers.json_answers[dialect.partition("+")[0]])
        elif self._gap_s is None:
            self._send(self._answers.bursts[dialect])
        else:
            frames = self._answers.paced[dialect]
            self._step([frames[0] + frames[1], *frames[1:]] if self._endless else frames, 0, self._gap_s)

    def _step(self, frames: Sequence[bytes], number: int, gap_s: float) -> None:
        stamp = b"@%016d@" % (time.monotonic_ns() // 1000)
        self._send(frames[number].replace(_STAMP.encode(), stamp))
        following = 1 if self._endless else number + 1
        if following < len(frames):
            self._timer = asyncio.get_running_loop().call_later(gap_s, self._step, frames, following, gap_s)


async def main() -> None:
    """Serve on three free ports until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("--events", 64), ("--paced-events", 100), ("--gap-ms", 10), ("--held-gap-ms", 5000)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    answers = Answers(options.events, options.paced_events)
    loop = asyncio.get_running_loop()
    ports: list[str] = []
    for name, gap_ms in (("fast", None), ("paced", options.gap_ms), ("held", options.held_gap_ms)):
        gap_s = None if gap_ms is None else gap_ms / 1000

        def connection(gap_s: float | None = gap_s, endless: bool = name == "held") -> StubProtocol:
            return StubProtocol(answers, gap_s, endless)

        server = await loop.create_server(connection, "127.0.0.1", 0, backlog=4096)
        ports.append(f"{name} {server.sockets[0].getsockname()[1]}")
    print(*ports, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
