"""Run the application under uvicorn: bind first, serve, finish the running requests on SIGTERM, exit with 0."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

import uvicorn

from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import CommandError
from gateway.server.descriptors import DescriptorWatch
from gateway.server.free_memory import HeapTrimmer, release_large_blocks
from gateway.server.http_protocol import ConnectionProtocol, DrainingState

_T = TypeVar("_T")
_BACKLOG = 2048
_KEEP_ALIVE_S = 75
_COLLECT = (20_000, 20, 50)
_SECOND_GRACE_S = 1.0
_DEFAULT_GRACE_S = 30.0
_CANCELLED_GRACE_S = 1.0
_SWITCH_S = 0.001
_DUPLICATES = 8
_DATE_S = 1.0
_CONNECTIONS_S = 0.05
_PORTS = {
    "public": "--port (make run PORT=9000)",
    "admin": "--admin-port (GATEWAY_ADMIN_PORT=9001; 0 for a free one)",
    "console": "GATEWAY_CONSOLE_PORT=9002 (0 for a free one)",
}
"""How to choose the port of each listener."""


class BindError(CommandError):
    """The address cannot be bound. The message contains the fix."""


def bind(host: str, port: int, name: str = "public") -> socket.socket:
    """Return a listening socket; raises BindError. It is bound first, so that a busy port is reported first.

    name: The listener: `public`, `admin` or `console`.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:  # UnicodeError: a name with an empty or a very long label
        reason = error.strerror if isinstance(error, OSError) else "the name is malformed"
        raise BindError(f"the host {host!r} is not an address of this machine: {reason}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BindError(_bind_message(host, port, name, error)) from error
    listener.setblocking(False)
    return listener


def _bind_message(host: str, port: int, name: str, error: OSError) -> str:
    how = _PORTS[name]
    if isinstance(error, PermissionError):
        return f"port {port} is reserved for root; choose another one with {how}"
    if error.errno != errno.EADDRINUSE:
        return f"{host} cannot be bound ({error.strerror}); use an address of this machine"
    return (
        f"{'' if name == 'public' else f'the {name} '}port {port} on {host} is used by another program "
        f"({error.strerror}); stop it, or choose another port with {how}"
    )


def url_of(listener: socket.socket) -> str:
    """Return the URL at which a program on this machine reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # a comparison, not a bind
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def duplicates_of(listener: socket.socket) -> list[socket.socket]:
    """Return the socket and duplicates of it, which a single process serves together.

    libuv accepts one connection per socket in each iteration of the loop. With one socket, a busy process would accept
    a connection about every ten milliseconds, and clients that reconnect at the same time would wait for minutes.
    Workers that share a listener accept one at a time, so that a new connection goes to an idle worker.
    """
    return [listener, *(listener.dup() for _ in range(_DUPLICATES - 1))]


def server_config(app: Any, grace_s: float = _DEFAULT_GRACE_S) -> uvicorn.Config:
    """Return uvicorn's configuration. uvicorn keeps the peer's address: the gateway itself judges proxy headers."""
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


def grace_s_of(setting_s: float | None, config: ConfigVersion) -> float:
    """Return the seconds in which running requests may finish: the setting, or as long as a request may take."""
    return setting_s if setting_s is not None else max(_DEFAULT_GRACE_S, config.resilience.total_s)


def settle() -> None:
    """Tune the interpreter of a process that has started: short pauses for requests, and free memory given back."""
    # Objects made at start-up live as long as the process, so the collector should not visit them again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    # A thread unpacks a new config version. Requests wait no longer than this for the interpreter's lock.
    sys.setswitchinterval(_SWITCH_S)
    release_large_blocks()


class _QuietServer(uvicorn.Server):
    """uvicorn's server, which wakes up only to renew the date header and to exit, and handles no signals.

    uvicorn's own server polls ten times a second for its exit, so that an idle process never sleeps.
    """

    _exit_requested: asyncio.Event | None = None
    _should_exit = False

    @property
    def should_exit(self) -> bool:
        """Whether the server is to exit."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, should_exit: bool) -> None:
        self._should_exit = should_exit
        if should_exit and self._exit_requested is not None:
            self._exit_requested.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals: the process does."""
        yield

    async def main_loop(self) -> None:
        """Run until the server is to exit; overrides uvicorn's polling loop."""
        exit_requested = self._exit_requested = asyncio.Event()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATE_S):
                    await exit_requested.wait()


class GatewayServer(_QuietServer):
    """uvicorn's server, which drains, finishes the running requests, and then exits.

    Args:
        on_draining: Called when the server begins to drain or to stop.
        on_cut: Called before the requests that still run are cancelled.
        grace_s: Returns the seconds in which running requests may finish. It is asked when the server stops.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_draining: Callable[[], None] = lambda: None,
        on_cut: Callable[[], None] = lambda: None,
        grace_s: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(config)
        self.server_state = self._draining = DrainingState()
        self._on_cut = on_cut
        self.on_started: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._on_draining = on_draining
        self._grace_s = grace_s
        self._after_start: asyncio.Task[None] | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._heap = HeapTrimmer()
        self.descriptors = DescriptorWatch()

    @property
    def running(self) -> int:
        """The number of running requests."""
        return len(self.server_state.tasks)

    async def on_tick(self, counter: int) -> bool:
        """Look after the date header, the heap and the descriptors, each second."""
        self._heap.look()
        self.descriptors.look()
        return await super().on_tick(counter)

    def drain(self) -> None:
        """Let clients go elsewhere: new connections are still accepted, and each answer closes its connection."""
        self._on_draining()
        self._draining.begin()

    def stop(self) -> None:
        """Accept no more connections, finish the running requests, and exit."""
        self._on_draining()
        if self._grace_s is not None:
            self.config.timeout_graceful_shutdown = max(1, round(self._grace_s()))
        self.should_exit = True

    def retire(self) -> None:
        """Leave new connections to another process with the same listener. Exit when the own ones have ended.

        Each connection is closed after its next answer. After the grace time, the rest is stopped. Until then a probe
        on a kept connection finds the service ready, because the other process is.
        """
        if self._retiring is not None or self.should_exit:
            return
        self._draining.begin()
        for server in self.servers:
            server.close()
        self._retiring = asyncio.get_running_loop().create_task(self._exit_after_connections())

    async def _exit_after_connections(self) -> None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + (self._grace_s() if self._grace_s is not None else _DEFAULT_GRACE_S)
        # uvicorn waits for the end of connections in the same way.
        state = self._draining
        while (state.connections or state.tasks or state.websockets) and loop.time() < ends_at:  # noqa: ASYNC110
            await asyncio.sleep(_CONNECTIONS_S)
        self._grace_s = lambda: ends_at - loop.time()
        self.stop()

    def cut(self) -> None:
        """Stop without waiting for the running requests, as after a second SIGINT."""
        self.stop()
        self.force_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections, then run `on_started`."""
        # Before the first connection is accepted, because it takes up to a second on a busy machine.
        settle()
        await super().startup(sockets)
        gc.freeze()
        if self.started and self.on_started is not None:
            self._after_start = asyncio.ensure_future(self.on_started())
            self._after_start.add_done_callback(self._stop_if_failed)

    def _stop_if_failed(self, started: asyncio.Task[None]) -> None:
        self.should_exit = self.should_exit or (not started.cancelled() and started.exception() is not None)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the running requests. An error of `on_started` is raised after everything is closed."""
        if self._retiring is None:
            await self._stop_listening(sockets or [])
        self._draining.is_stopping = True
        self._draining.close_websockets()
        # uvicorn cancels the requests that still run after this time.
        cut = asyncio.get_running_loop().call_later(self.config.timeout_graceful_shutdown or 0, self._on_cut)
        await super().shutdown(sockets)
        cut.cancel()
        if self.force_exit:
            self._on_cut()
            for task in self.server_state.tasks:
                task.cancel()
        if self.server_state.tasks:
            # These requests are cancelled. They still send an error to their clients, and are counted.
            await asyncio.wait(self.server_state.tasks, timeout=_CANCELLED_GRACE_S)
        self._draining.finish_websockets()
        if self.force_exit:
            # uvicorn skips the lifespan shutdown in this case, but finished requests must still be logged.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CANCELLED_GRACE_S):
                    await self.lifespan.shutdown()
        if self._after_start is not None and self._after_start.done() and not self._after_start.cancelled():
            self._after_start.result()

    async def _wait_tasks_to_complete(self) -> None:
        """See uvicorn: wait for connections and tasks, which turns of WebSockets are. Then close idle WebSockets."""
        await super()._wait_tasks_to_complete()
        self._draining.finish_websockets()

    def spread_websockets(self, delay_s: float) -> None:
        """Close idle WebSockets evenly over this time of a drain, or over a few seconds if that is longer."""
        grace_s = self._grace_s() if self._grace_s is not None else _DEFAULT_GRACE_S
        self._draining.websockets_s = min(max(delay_s, DrainingState.websockets_s), delay_s + grace_s)

    async def _stop_listening(self, sockets: list[socket.socket]) -> None:
        """Accept the connections that wait in the listener's queue, which its close would reset, and close it."""
        waiting = [connection for listener in sockets for connection in _accept_waiting(listener)]
        # At once: each further turn of the loop would let new connections into the queue.
        for server in self.servers:
            server.close()
        protocol = partial(ConnectionProtocol, self.config, self.server_state, self.lifespan.state)
        for connection in waiting:
            with contextlib.suppress(OSError):  # its client has left already
                await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)


def _accept_waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections in the queue of a listening socket until it is empty."""
    for _ in range(2 * _BACKLOG):
        try:
            connection, _ = listener.accept()
        except ConnectionAbortedError:
            continue
        except OSError:  # BlockingIOError: the queue is empty. Others: there is no file descriptor left.
            return
        connection.setblocking(False)
        yield connection


class DrainDelay:
    """The time between the begin of a drain and the end of the listener, which runs once."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self._ends_at: float | None = None
        self._is_waiting = False

    def begin(self) -> None:
        """Begin the delay, unless it has begun."""
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time() + self.delay_s

    def then(self, stop: Callable[[], None]) -> bool:
        """Call `stop` after what is left of the delay; return False if nothing is left, or a call waits already."""
        self.begin()
        loop = asyncio.get_running_loop()
        if self._is_waiting or self._ends_at is None or loop.time() >= self._ends_at:
            return False
        self._is_waiting = True
        loop.call_at(self._ends_at, stop)
        return True


@contextlib.asynccontextmanager
async def serving_in_background(app: Any, listener: socket.socket) -> AsyncIterator[Callable[[], None]]:
    """Serve a second application on a socket of its own while the block runs. Provide a function that ends it."""
    config = server_config(app, _SECOND_GRACE_S)
    config.lifespan = "off"
    server = _QuietServer(config)
    serving = asyncio.create_task(server.serve([listener]))

    def end() -> None:
        server.should_exit = True

    try:
        yield end
    finally:
        server.should_exit = True
        await serving


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, on uvloop if the platform has it."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    return uvloop.run(main)
