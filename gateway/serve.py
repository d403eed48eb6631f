"""Run the application under uvicorn: bind first, serve, finish what is running on SIGTERM, exit 0."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn

from gateway.protocol import GatewayProtocol

__all__ = ["BindError", "GatewayServer", "bind", "run", "serve_alone", "server_config"]

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
_COLLECT = (20_000, 20, 50)


class BindError(OSError):
    """The address can't be bound; the message says what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, made before anything else starts, so that a busy port is the first news; raises BindError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise BindError(f"the host {host!r} is no address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BindError(_bind_message(host, port, error)) from error
    listener.setblocking(False)
    return listener


def _bind_message(host: str, port: int, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"port {port} is reserved for root; take another one with --port"
    if error.errno != errno.EADDRINUSE:
        return f"{host} can't be bound ({error.strerror}); give an address of this machine with --host"
    return (
        f"port {port} on {host} is taken by another program ({error.strerror}); "
        "stop that one, or take another port with --port (make run PORT=9000)"
    )


def server_config(app: Any, grace_s: float) -> uvicorn.Config:
    """How uvicorn runs the application. It never touches the peer's address: what a proxy says is judged by us."""
    return uvicorn.Config(
        app,
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(grace_s)),
    )


class GatewayServer(uvicorn.Server):
    """uvicorn's server, which on SIGTERM and SIGINT finishes what is running and then lets the process end with 0."""

    def __init__(
        self, config: uvicorn.Config, on_started: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept, then tell who waits for it."""
        await super().startup(sockets)
        # What start-up made lives as long as the process: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT)
        if self.started and self._on_started is not None:
            self._after_start = asyncio.ensure_future(self._on_started())
            self._after_start.add_done_callback(self._stop_if_failed)

    def _stop_if_failed(self, started: asyncio.Task[None]) -> None:
        self.should_exit = self.should_exit or (not started.cancelled() and started.exception() is not None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is running; what failed right after the start is raised once all is closed."""
        await super().shutdown(sockets)
        if self._after_start is not None and self._after_start.done() and not self._after_start.cancelled():
            self._after_start.result()


def serve_alone(app: Any, listener: socket.socket, grace_s: float, on_listening: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT in this process; `on_listening` is called when it takes connections."""

    async def started() -> None:
        on_listening()

    run(GatewayServer(server_config(app, grace_s), started).serve([listener]))


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end on uvloop where there is one."""
    if sys.platform == "win32":
        asyncio.run(main)
        return
    import uvloop

    uvloop.run(main)
