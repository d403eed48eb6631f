"""A raw socket server that sends exactly the bytes of a script, divided into the pieces that the test defines."""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

__all__ = ["GOOD", "Peer", "Script", "Scripted", "hold", "say", "scripted", "turns", "until"]

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"
_LIMIT_S = 60.0


async def turns(count: int = 3) -> None:
    """Run the event loop for some turns, so that the other end has read what was written."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool], limit_s: float = _LIMIT_S) -> None:
    """Wait for a condition, no longer than needed. Fails if it never becomes true."""
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  # a socket's other end gives no event to wait for
            await asyncio.sleep(0.001)


class Peer:
    """The server's end of one connection, after the headers of a request have arrived."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bodies: list[bytes]) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""
        self._bodies = bodies

    @property
    def length(self) -> int:
        """Return the request's content-length."""
        lines = self.head.lower().split(b"\r\n")
        return next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)

    async def body(self) -> bytes:
        """Return the request's body."""
        self._bodies.append(await self.reader.readexactly(self.length))
        return self._bodies[-1]

    async def send(self, *parts: bytes | asyncio.Event | asyncio.Barrier) -> None:
        """Send each part in its own write, with time for the other end to read it. An event or a barrier is awaited."""
        for part in parts:
            if not isinstance(part, bytes):
                await part.wait()
                continue
            self.writer.write(part)
            await self.writer.drain()
            await turns()

    async def gone(self) -> None:
        """Wait until the other end has closed or reset. Further bytes from it are discarded."""
        while await self.reader.read(65536):
            pass

    def close(self) -> None:
        """End the connection in order."""
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]
"""The actions for one request, from the moment when its headers have arrived."""


class Scripted:
    """The remaining scripts, and what the server has received."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.scripts = deque(scripts)
        self.origin = ""
        self.connections = 0
        self.open = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.served_by: list[int] = []
        self.errors: list[Exception] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        peer = Peer(reader, writer, self.bodies)
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            # Connections that end between requests, or that the test's client drops, are not errors.
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while not writer.is_closing():
                    peer.head = await reader.readuntil(b"\r\n\r\n")
                    self.heads.append(peer.head)
                    self.served_by.append(number)
                    await self.scripts.popleft()(peer)
        except asyncio.CancelledError:
            # The end of the test. The streams of asyncio in Python 3.11 would report a cancelled task as an error.
            return
        except Exception as error:
            self.errors.append(error)
        finally:
            self.open -= 1
            self.tasks.discard(task)
            writer.close()


def say(*parts: bytes | asyncio.Event | asyncio.Barrier, then: str = "keep") -> Script:
    """Read the request, send the parts, and then `keep` the connection, `close` or `reset` it, or `hold` it.

    A connection that is held stays until the other end closes.
    """

    async def script(peer: Peer) -> None:
        await peer.body()
        await peer.send(*parts)
        if then == "close":
            peer.close()
        elif then == "reset":
            peer.reset()
        elif then == "hold":
            await peer.gone()

    return script


def hold(*parts: bytes | asyncio.Event) -> Script:
    """Read the request, send the parts, and then nothing until the other end closes."""
    return say(*parts, then="hold")


@asynccontextmanager
async def scripted(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """Run a server on a free loopback port. A script that fails fails the test, and connections end with the block."""
    state = Scripted(scripts)
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    state.origin = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for task in tuple(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await turns()
    assert not state.errors, state.errors
