"""One connection to Valkey: commands in a pipeline, each with a deadline, and a breaker.

Theory of operation:

- A command is written at once, and its answer resolves a future. Any number of commands wait for their answers.
- A command that is not answered within its deadline raises `ValkeyUnavailable`. Its late answer is ignored.
- While there is no connection, every command raises `ValkeyUnavailable` at once. A task connects again, with growing
  pauses. If no command is answered in time for a while, the connection is given up too (`_LATE_S`).

The password is sent only on a connection that is encrypted, or that does not leave this machine: see `StoreServer`.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

import libvalkey

from gateway.model.budget import StoreServer
from gateway.tasks import stopped

DEADLINE_S = 0.05
"""The time in which a command must be answered."""

_GRACE_S, _LATE_S = 0.001, 0.1
_CONNECT_S = 2.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0

_REPLICA = ("READONLY", "MASTERDOWN")
_CLUSTER = ("MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN")
"""Answers of one shard of a cluster (Valkey's cluster specification, November 2026). Redirects are not followed."""

Word = bytes | str | int


class ValkeyUnavailable(Exception):
    """Valkey did not answer in time, refused the command, or cannot be reached. The message has no secrets."""


class OutcomeUnknown(ValkeyUnavailable):
    """The command was sent, and there was no answer. It may have been executed, or will be."""


class ValkeyRefused(ValkeyUnavailable):
    """Valkey answered with an error, whose first word is the code, such as `NOSCRIPT`."""

    def __init__(self, message: str) -> None:
        self.code = message.partition(" ")[0]
        # The rest of a message may quote what was sent.
        super().__init__(f"Valkey answered with the error {self.code}")


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, which Valkey keeps by its digest."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        # Valkey names scripts by SHA-1. Nothing depends on its strength.
        object.__setattr__(self, "digest", hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest())


class _Pipeline(asyncio.Protocol):
    """The bytes of one connection: writes commands, and gives each answer to the future of its command."""

    def __init__(self) -> None:
        self.is_lost = asyncio.Event()
        self._reader = libvalkey.Reader(
            protocolError=lambda _: ValkeyUnavailable("this is not a Valkey server"), replyError=ValkeyRefused
        )
        self._waiting: deque[asyncio.Future[object]] = deque()
        self._unsent: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self._late_since_s: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The transports of uvloop are not subclasses of those of asyncio.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                future = self._waiting.popleft()
                if future.done():
                    continue
                self._late_since_s = None
                if isinstance(answer, ValkeyRefused):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        except (IndexError, ValkeyUnavailable):  # not an answer of Valkey
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self.is_lost.set()
        for future in self._waiting:
            if not future.done():
                future.set_exception(OutcomeUnknown("the connection to Valkey was lost"))
        self._waiting.clear()

    def send(self, words: tuple[Word, ...]) -> asyncio.Future[object]:
        """Write a command, and return the future of its answer."""
        if self.transport is None:
            raise ValkeyUnavailable("there is no connection to Valkey")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append(future)
        # The commands of all requests that run now leave with one system call.
        if not self._unsent:
            loop.call_soon(self._flush)
        self._unsent.append(libvalkey.pack_command(words))
        return future

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.transport is not None:
            self.transport.write(b"".join(unsent))

    def expire(self, future: asyncio.Future[object]) -> None:
        """Give up waiting for an answer soon: a busy event loop may not have read it yet."""
        if not future.done():
            asyncio.get_running_loop().call_later(_GRACE_S, self._give_up, future)

    def _give_up(self, future: asyncio.Future[object]) -> None:
        """Give up waiting for an answer. Commands that are late at the same time do not cost the connection."""
        if future.done():
            return
        future.set_exception(OutcomeUnknown("Valkey did not answer in time"))
        now_s = time.monotonic()
        self._late_since_s = self._late_since_s or now_s
        if now_s - self._late_since_s >= _LATE_S:
            self.abort()

    def abort(self) -> None:
        """Close the connection without waiting."""
        if self.transport is not None:
            self.transport.abort()


@dataclass(eq=False, repr=False)
class ValkeyConnection:
    """Keeps a connection to one server, from `start` to `close`. A command must be answered in `deadline_s`.

    `prepared` is called with the connection after each connect, before any other command is accepted. If it raises
    ValkeyUnavailable, the connection is closed and tried again. `problem` is why there is no connection, or None.
    """

    _server: StoreServer
    _prepared: Callable[[ValkeyConnection], Awaitable[None]] | None = None
    deadline_s: float = DEADLINE_S
    _pipeline: _Pipeline | None = None
    _preparing: _Pipeline | None = None
    _task: asyncio.Task[None] | None = None
    problem: str | None = "it was not called yet"

    @property
    def is_connected(self) -> bool:
        """Whether a command would be sent now."""
        return self._pipeline is not None

    async def start(self) -> None:
        """Connect, or try for a short time. Afterwards the connection is kept by a task."""
        with suppress(ValkeyUnavailable):
            await self._connect()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Close the connection."""
        await stopped(self._task)
        self._drop("it is closed")

    async def call(self, *words: Word, deadline_s: float | None = None) -> object:
        """Send a command and return its answer. Raises ValkeyUnavailable."""
        pipeline = self._pipeline or self._preparing
        if pipeline is None:
            raise ValkeyUnavailable(f"Valkey can't be reached: {self.problem}")
        future = pipeline.send(words)
        deadline_s = self.deadline_s if deadline_s is None else deadline_s
        timer = asyncio.get_running_loop().call_later(deadline_s, pipeline.expire, future)
        try:
            return await future
        except ValkeyRefused as error:
            if error.code in _REPLICA:  # after a failover, the name may lead to another server by now
                pipeline.abort()
            raise
        finally:
            timer.cancel()

    async def run(
        self, script: Script, keys: tuple[str | bytes, ...], *values: Word, deadline_s: float | None = None
    ) -> object:
        """Run a script and return its answer. Raises ValkeyUnavailable."""
        words: tuple[Word, ...] = (len(keys), *keys, *values)
        try:
            return await self.call("EVALSHA", script.digest, *words, deadline_s=deadline_s)
        except ValkeyRefused as error:
            if error.code != "NOSCRIPT":
                raise
        return await self.call("EVAL", script.source, *words, deadline_s=deadline_s)

    async def skew_s(self) -> float:
        """Return the own time minus that of the server in seconds. Raises ValkeyUnavailable."""
        seconds, micros = cast("list[bytes]", await self.call("TIME", deadline_s=_CONNECT_S))
        return time.time() - (int(seconds) + int(micros) / 1e6)

    async def _keep(self) -> None:
        """Connect again whenever the connection is lost."""
        pause_s = _FIRST_PAUSE_S
        while True:
            if self._pipeline is not None:
                await self._pipeline.is_lost.wait()
                self._drop("the connection was lost")
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with suppress(ValkeyUnavailable):
                await self._connect()

    async def _connect(self) -> None:
        """Connect, log in and prepare. Raises ValkeyUnavailable, with `problem` set."""
        pipeline = _Pipeline()
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._open(pipeline)
                self._preparing = pipeline
                await self._log_in()
                if self._prepared is not None:
                    await self._prepared(self)
        except (OSError, TimeoutError, ValkeyUnavailable) as error:
            pipeline.abort()
            self.problem = problem = _description(error)
            raise ValkeyUnavailable(problem) from None
        except BaseException:
            pipeline.abort()
            raise
        finally:
            self._preparing = None
        if pipeline.transport is not None:
            self._pipeline, self.problem = pipeline, None

    async def _open(self, pipeline: _Pipeline) -> None:
        server, loop = self._server, asyncio.get_running_loop()
        if server.host.startswith("/"):
            await loop.create_unix_connection(lambda: pipeline, server.host)
            return
        context = ssl.create_default_context(cafile=server.ca_file or None) if server.uses_tls else None
        await loop.create_connection(lambda: pipeline, server.host, server.port, ssl=context)

    async def _log_in(self) -> None:
        server = self._server
        user = (server.user,) if server.user else ()
        for password in server.passwords:
            if password is None:
                break
            try:
                await self.call("AUTH", *user, password.reveal(), deadline_s=_CONNECT_S)
                break
            except ValkeyRefused as refusal:
                if refusal.code != "WRONGPASS" or password is server.passwords[-1]:
                    raise
        if server.database not in ("", "0"):
            await self.call("SELECT", server.database, deadline_s=_CONNECT_S)

    def _drop(self, problem: str) -> None:
        if self._pipeline is not None:
            self._pipeline.abort()
            self._pipeline, self.problem = None, problem


def _description(error: Exception) -> str:
    if isinstance(error, ValkeyRefused) and error.code in ("WRONGPASS", "NOAUTH", "NOPERM"):
        return f"Valkey refuses the user or the password ({error.code}): check `stores.valkey`"
    if isinstance(error, ValkeyRefused) and error.code in _CLUSTER:
        way_out = "turn that off, or name a cluster of one shard, which has all keys of a cell"
        return f"it is in cluster mode ({error.code}): {way_out}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of Valkey is not valid: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "it did not answer while connecting"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
