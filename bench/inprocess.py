"""The whole gateway without a socket: a request's bytes go in, the answer's bytes come out, and nothing waits.
The gateway is complete: the server's protocol, the application with the config of the bench, the pool and its
connection to the provider. Only the two transports below, in place of the kernel, pass bytes in memory.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import orjson
from uvicorn.server import ServerState

from bench.config import ENVIRON, client_headers, production_config, request_for
from bench.stub import Answers
from gateway.assembly.application import Gateway
from gateway.config.loading import parse_document
from gateway.execution.transport import PoolTransport, allow
from gateway.features.configuration import compile_config
from gateway.model.config_version import ConfigVersion
from gateway.server.uvicorn_server import server_config
from gateway.state.receipts import Receipts
from providers.registry import load_registry
from providers.transport.connection import Connection
from providers.transport.pool import Pool

__all__ = [
    "CASES",
    "PORTS",
    "InProcess",
    "Memory",
    "accounting_gateway",
    "bench_table",
    "post_bytes",
    "provider_answers",
    "request_bytes",
]

PORTS = {"fast": 1, "paced": 1, "held": 1}
_ORIGIN = "http://127.0.0.1:1"
_EVENTS = 64
# The request of each case: the assistant, and whether as a stream. A provider's answer arrives in the given pieces.
CASES = {
    "JSON": ("assistant", False),
    "JSON, folded from 64 events one by one": ("assistant-folded", False),
    "stream of 64 events at once": ("assistant", True),
    "stream of 64 events at once, translated": ("assistant-gemini", True),
    "stream of 64 events one by one": ("assistant", True),
    "stream of 64 padded events at once": ("assistant", True),
    "stream of 64 padded events one by one": ("assistant", True),
    "Responses: JSON": ("assistant", False),
    "Responses: stream of 64 events one by one": ("assistant", True),
    "Messages: JSON": ("assistant", False),
    "Messages: stream of 64 events one by one": ("assistant", True),
    "Gemini: JSON": ("assistant", False),
    "Gemini: stream of 64 events one by one": ("assistant", True),
}
# Bytes of each whole answer of a dialect, and of the last event of each stream.
_MARKS = {
    "chat": (b'"choices"', b"data: [DONE]"),
    "Responses": (b'"output"', b"response.completed"),
    "Messages": (b'"role":"assistant"', b"message_stop"),
    "Gemini": (b'"candidates"', b'"finishReason":"STOP"'),
}
_CHUNKED_EVENT = re.compile(rb"[0-9a-f]+\r\n(data: \{[^\n]+)\}\n\n\r\n")
_PADDING = b"bK7xq0ZtR2mVw9Pc"


def bench_table(text: str | None = None) -> ConfigVersion:
    """Return the compiled config of the bench, or of this text."""
    document = parse_document((text or production_config(PORTS)).encode(), "bench.yaml", ENVIRON)
    return compile_config(document, registry=load_registry()).config


def accounting_gateway(
    state_dir: Path, *, limited: bool = True, changed: Callable[[str], str] = lambda text: text
) -> InProcess:
    """Return a gateway with the default stores in this directory, and with receipts.

    The thread of its receipts does nothing: `write_receipts` does its work, where it can be measured.

    Args:
        state_dir: The directory, which is created.
        limited: Whether the clients have limits and four budgets. Without them, calls are only recorded.
        changed: Changes the text of the config.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    config = bench_table(changed(production_config(PORTS, accounts=limited)))
    with patch.object(Receipts, "_work", lambda _: None):
        client = InProcess(config, lambda it: Gateway.with_receipts(state_dir, config=config, transport=it))
    service = client.app._receipts
    client.receipts = service.stored if service is not None else None
    return client


def _parts_of(case: str) -> tuple[str, str]:
    """Return the dialect of a case, and the rest of its name."""
    dialect, colon, rest = case.partition(": ")
    return (dialect, rest) if colon else ("chat", case)


def request_bytes(case: str, *, capped: bool = True) -> bytes:
    """Return the bytes that a client sends for a case of CASES. Not `capped`: without a cap of the answer."""
    model, stream = CASES[case]
    path, body = request_for(_parts_of(case)[0], model, stream=stream)
    if not capped:
        chat = {name: value for name, value in orjson.loads(body).items() if name != "max_completion_tokens"}
        body = orjson.dumps(chat)
    return post_bytes(path, body)


def post_bytes(path: str, body: bytes, **headers: str) -> bytes:
    """Return the bytes of a POST with the headers of a client. A header that is named replaces that of the client."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in {**client_headers(), **named}.items()]
    head = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


def provider_answers(case: str) -> list[bytes]:
    """Return the pieces in which the provider's answer arrives."""
    answers = Answers(_EVENTS, _EVENTS)
    if _parts_of(case)[1] == "JSON":
        return [answers.json_answers["openai"]]
    if case.endswith("one by one"):
        pieces = list(answers.paced["openai+usage"])
    else:
        pieces = [answers.bursts["gemini" if "translated" in case else "openai+usage"]]
    return _padded(pieces) if "padded" in case else pieces


def _padded(pieces: Sequence[bytes]) -> list[bytes]:
    """Return the pieces with a padding of varying length as the last member of each chunk, as OpenAI sends them by
    default.

    """
    lengths = count()

    def pad(event: re.Match[bytes]) -> bytes:
        body = b'%b,"obfuscation":"%b"}\n\n' % (event[1], _PADDING[next(lengths) * 5 % len(_PADDING) :])
        return b"%x\r\n%b\r\n" % (len(body), body)

    return [_CHUNKED_EVENT.sub(pad, piece) for piece in pieces]


class Memory(asyncio.Transport):
    """A transport in place of a socket: written bytes are passed to a function."""

    def __init__(self, on_write: Callable[[bytes], None]) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 1)})
        self._on_write = on_write
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        self._on_write(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class InProcess:
    """One client's connection to one gateway, which has one connection to a provider. Created inside a running loop.

    Attributes:
        app: The gateway, or the other application.
        memory: The client's end.
        receipts: The receipts of the gateway, if it has a state directory.
    """

    receipts: Receipts | None = None

    def __init__(self, config: ConfigVersion, app: Callable[[Any], Any] | None = None, protocol: Any = None) -> None:
        """Connect a client, a gateway and a provider in memory.
        Args:
            app: makes another application than the gateway, given the transport to its providers.
            protocol: another protocol than that of the gateway's server.
        """
        self._loop = asyncio.get_running_loop()
        self._answer: Sequence[bytes] = ()
        self._received: list[bytes] = []
        self._complete: asyncio.Future[None] = self._loop.create_future()
        pool = Pool(allow)
        connection = Connection(self._loop, _ORIGIN)
        connection.connection_made(
            Memory(
                lambda data: self._feed(connection, self._answer_to(data) if self.answers_by_request else self._answer)
            )
        )
        pool.take_back(connection)
        transport = PoolTransport(pool)
        self.app = app(transport) if app is not None else Gateway(config, transport)
        server = server_config(self.app, 1)
        if protocol is not None:
            server.http = protocol
        server.load()
        made = cast(Any, server.http_protocol_class)
        self._protocol = made(server, ServerState(), {}, self._loop)
        self.memory = Memory(self._take)
        self._protocol.connection_made(self.memory)

    # A call for each answer would count in each case.
    answers_by_request = False

    def _answer_to(self, written: bytes) -> Sequence[bytes]:
        """Return the provider's answer to what the gateway has written to it now, or nothing if it still writes."""
        return self._answer

    def _feed(self, connection: Connection, pieces: Sequence[bytes]) -> None:
        """Feed each piece in its own turn of the loop, with a turn between for the gateway, as from a slow provider."""
        if pieces:
            self._loop.call_soon(connection.data_received, pieces[0])
            self._loop.call_soon(self._loop.call_soon, self._feed, connection, pieces[1:])

    def _take(self, data: bytes) -> None:
        self._received.append(data)
        is_end = data.endswith(b"0\r\n\r\n") or (data.endswith(b"}") and b"chat.completion.chunk" not in data)
        if is_end and not self._complete.done():
            self._complete.set_result(None)

    async def ask(self, request: bytes, answer: Sequence[bytes]) -> bytes:
        """Return the gateway's response to a request with this answer of the provider."""
        self._answer = answer
        self._received = []
        self._complete = self._loop.create_future()
        self._protocol.data_received(request)
        await self._complete
        return b"".join(self._received)

    def write_receipts(self) -> None:
        """Store the receipts that wait. Raises if there is none, because each request has one."""
        if self.receipts is not None:
            if not self.receipts.waiting:
                raise RuntimeError("the request left no receipt")
            self.receipts._write()

    async def ask_checked(self, case: str, *, capped: bool = True) -> None:
        """Send one request, and raise if the response is not the expected answer."""
        response = await self.ask(request_bytes(case, capped=capped), provider_answers(case))
        answer, end = _MARKS[_parts_of(case)[0]]
        if b" 200 " not in response[:20] or answer not in response:
            raise RuntimeError(f"{case}: the gateway answers {response[:600].decode('utf-8', 'replace')}")
        if CASES[case][1] and end not in response:
            raise RuntimeError(f"{case}: the stream doesn't end")
