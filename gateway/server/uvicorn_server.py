"""Run the application under uvicorn: bind first, serve, finish what is running on SIGTERM, exit 0."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from types import FrameType
from typing import Any

import uvicorn

from gateway.server.http_protocol import ConnectionProtocol
from gateway.telemetry.log import logger

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
_COLLECT = (20_000, 20, 50)
_BESIDE_GRACE_S = 1.0
_LAST_WORDS_S = 1.0
_SWITCH_S = 0.001
_ABREAST = 8
_DATE_S = 1.0


class BindError(OSError):
    """The address can't be bound; the message says what to do."""


def bind(host: str, port: int, option: str = "port") -> socket.socket:
    """A listening socket, made before anything else starts, so that a busy port is the first news; raises BindError.

    option: the one that names another port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:  # of a name with an empty or a very long part, it is the latter
        reason = error.strerror if isinstance(error, OSError) else "it can't be a name"
        raise BindError(f"the host {host!r} is no address of this machine: {reason}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BindError(_bind_message(host, port, option, error)) from error
    listener.setblocking(False)
    return listener


def _bind_message(host: str, port: int, option: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"port {port} is reserved for root; take another one with --{option}"
    if error.errno != errno.EADDRINUSE:
        return f"{host} can't be bound ({error.strerror}); give an address of this machine"
    example = "make run PORT=9000" if option == "port" else "GATEWAY_ADMIN_PORT=9001; 0 for a free one"
    return (
        f"port {port} on {host} is taken by another program ({error.strerror}); "
        f"stop that one, or take another port with --{option} ({example})"
    )


def url_of(listener: socket.socket) -> str:
    """Where a program on this machine reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # a comparison, not a bind
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def abreast(listener: socket.socket) -> list[socket.socket]:
    """The socket and duplicates of it, to be served together by a process that is alone.

    libuv takes one connection from each in a turn of the loop: from one alone, a process that is busy with those that
    it has would take the next one every ten milliseconds, and who reconnects in a crowd would wait for minutes. Workers
    that share a listener take one at a time, so that what is new goes to whoever is idle.
    """
    return [listener, *(listener.dup() for _ in range(_ABREAST - 1))]


def server_config(app: Any, grace_s: float) -> uvicorn.Config:
    """How uvicorn runs the application. It never touches the peer's address: what a proxy says is judged by us."""
    return uvicorn.Config(
        app,
        interface="asgi3",
        http=ConnectionProtocol,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )


def settle() -> None:
    """Have the interpreter keep requests waiting as little as may be, and no free memory; for a process that has
    started up."""
    # What start-up made lives as long as the process: the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    # A new table is unpacked beside the loop: requests wait for the interpreter's lock no longer than this.
    sys.setswitchinterval(_SWITCH_S)
    give_back_large_blocks()


class _QuietServer(uvicorn.Server):
    """uvicorn's server, which wakes for the date of its answers and when it is told to exit.

    uvicorn's own looks ten times a second whether it is: so does no process that has nothing to do get to sleep.
    """

    _told: asyncio.Event | None = None
    _should_exit = False

    @property
    def should_exit(self) -> bool:
        """Whether it is to end."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, should_exit: bool) -> None:
        self._should_exit = should_exit
        if should_exit and self._told is not None:
            self._told.set()

    async def main_loop(self) -> None:
        """See uvicorn: until it is to exit."""
        told = self._told = asyncio.Event()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATE_S):
                    await told.wait()


class GatewayServer(_QuietServer):
    """uvicorn's server, which on SIGTERM and SIGINT finishes what is running and then lets the process end with 0.

    on_started: awaited when it takes connections. on_stopping: called when it is told to stop.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_started: Callable[[], Coroutine[Any, Any, None]] | None = None,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._on_stopping = on_stopping
        self._after_start: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's own, don't raise the signal again after a clean end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    @property
    def running(self) -> int:
        """How many requests are being answered."""
        return len(self.server_state.tasks)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal that ends the process; the second SIGINT doesn't wait for what is running."""
        self._on_stopping()
        super().handle_exit(sig, frame)

    def stop(self) -> None:
        """As at a SIGTERM."""
        self._on_stopping()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, then tell who waits for it."""
        await super().startup(sockets)
        settle()
        if self.started and self._on_started is not None:
            self._after_start = asyncio.ensure_future(self._on_started())
            self._after_start.add_done_callback(self._stop_if_failed)

    def _stop_if_failed(self, started: asyncio.Task[None]) -> None:
        self.should_exit = self.should_exit or (not started.cancelled() and started.exception() is not None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is running; what failed right after the start is raised once all is closed."""
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
        if self.server_state.tasks:
            # Their time is over and they have been told: they still tell their clients, and are counted.
            await asyncio.wait(self.server_state.tasks, timeout=_LAST_WORDS_S)
        if self.force_exit:
            # uvicorn leaves that out then; what has come to its end is to be written down all the same.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self.lifespan.shutdown()
        if self._after_start is not None and self._after_start.done() and not self._after_start.cancelled():
            self._after_start.result()


class _Beside(_QuietServer):
    """A second server in one process: signals are the first one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield


@contextlib.asynccontextmanager
async def serving_beside(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve this application too, on a socket of its own, for as long as the block runs."""
    config = server_config(app, _BESIDE_GRACE_S)
    config.lifespan = "off"
    server = _Beside(config)
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end on uvloop where there is one."""
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop

    uvloop.run(main)


_LARGE_BYTES = 4 * 1024 * 1024
"""What a body of 600 KB needs while it is read and written is less: a block by itself costs a fault for each page."""
_KEPT_BYTES = 8 * _LARGE_BYTES
"""At the heap's end, for the bodies that usually come at the same time."""
# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def give_back_large_blocks(environ: Mapping[str, str] = os.environ) -> bool:
    """From now on, for this process; whether it is so. What an operator has said to glibc stays."""
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in environ) or "GLIBC_TUNABLES" in environ:
        return False
    try:
        # Here, since a Python that was built without libffi lacks it, and serves as well as any.
        import ctypes

        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    except (ImportError, OSError):
        return False
    # Other C libraries have no such thing.
    return (
        mallopt is not None
        and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1
        and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) == 1
    )


_ENOUGH = 65_536
"""More than the connections that a worker has at its own bounds."""
_FEW = 10_000


def raise_file_limit() -> None:
    """Take what may be taken; what is started from here has as many. Where that is little, the log says so."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft != resource.RLIM_INFINITY and soft < _FEW:
        detail = "each request takes two, for its client and its provider: raise the hard limit (ulimit -Hn)"
        logger().warning("few_files", limit=soft, detail=detail)
