"""Serve a simulated provider on a loopback port, in the running event loop or in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from providers.testkit.app import TRANSPORT, SimulatorApp
from providers.testkit.prefix_cache import PrefixCache
from providers.testkit.scenario import Scenario
from providers.testkit.simulator import IncomingRequest, Simulator

_STARTUP_LIMIT_S = 30.0


class _State(ServerState):
    """The state that the connections of one server share."""

    def __init__(self) -> None:
        super().__init__()
        self.accepted = 0


class _Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol without logs, with the transport in the scope so that a scenario can break it."""

    def __init__(self, config: Config, server_state: _State) -> None:
        super().__init__(config, server_state, {})
        self._state = server_state
        self.access_log = False
        self.logger = logging.getLogger(__name__)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own does
        self._state.accepted += 1
        super().connection_made(transport)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"] = {TRANSPORT: self.transport}


class LoopbackServer:
    """A server for one ASGI application on this machine. Use it as an asynchronous context manager.

    It installs no signal handlers and writes no log. Port 0 is a free one. At the end of the block all connections are
    closed at once.
    """

    def __init__(self, app: Any, host: str, port: int) -> None:
        self._served = app
        self._host = host
        self._port = port
        self._state = _State()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Start to listen. Raises OSError if the port is in use."""
        config = Config(
            self._served,
            http=_Protocol,
            ws="none",
            interface="asgi3",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
        )
        config.load()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Protocol(config, self._state), self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop to listen, and close all connections at once."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._state.connections):
            connection.transport.abort()
        if self._state.tasks:
            await asyncio.wait(tuple(self._state.tasks))
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def origin(self) -> str:
        """The origin of the started server, `http://127.0.0.1:PORT`."""
        if self._server is None and not self._port:
            raise RuntimeError("the simulator has no port before it is started; use `async with`")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"


class SimulatorServer(LoopbackServer, SimulatorApp):
    """A server for one simulated provider, which is its own application. Use it as an asynchronous context manager.

    It installs no signal handlers and writes no log. At the end of the block all connections are closed at once.

    Args:
        dialect: The simulator.
        persona: The name that answers mention, such as that of a site.
        scenario: Delays and faults, or None for neither.
        host: The address to listen on.
        port: The port, or 0 for a free one.
        accepts: Returns whether the credential of a request is known, such as `SimulatedIssuers.knows`. A request with
            another credential is refused in the vendor's form. If it is None, any credential is accepted.
        cache: Its prompt cache, which answers then report, or None if nothing is cached.

    Attributes:
        scenario (Scenario): The delays and faults. A new one can be set while the server runs: its script starts anew.
        requests (list[IncomingRequest]): The last requests with a complete body, oldest first. At most 1,000.
        received (int): The number of requests with a complete body.
        disconnects (int): The number of requests that the client cancelled before their answer was complete.

    Examples:
        `async with SimulatorServer(dialect, "a site") as server: ... server.origin`
    """

    def __init__(
        self,
        dialect: Simulator,
        persona: str,
        scenario: Scenario | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        accepts: Callable[[IncomingRequest], bool] | None = None,
        cache: PrefixCache | None = None,
    ) -> None:
        LoopbackServer.__init__(self, self, host, port)
        SimulatorApp.__init__(self, dialect, persona, scenario, accepts=accepts, cache=cache)

    async def start(self) -> None:
        self.closing = False
        await super().start()

    async def close(self) -> None:
        self.closing = True
        await super().close()

    @property
    def accepted(self) -> int:
        """The number of connections that were ever accepted. 0 proves that no byte arrived."""
        return self._state.accepted

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self._state.connections)


class SimulatorThread:
    """Runs simulators in a thread with its own event loop, for programs without one. Use it as a context manager.

    Raises OSError if a port is in use. Raises TimeoutError if the simulators did not start within 30 s.

    Args:
        servers: Servers that are not started, by any name.

    Examples:
        `with SimulatorThread({"eu": SimulatorServer(dialect, "eu")}) as thread: thread["eu"].origin`
    """

    def __init__(self, servers: Mapping[str, SimulatorServer]) -> None:
        self._servers = servers
        self._thread = threading.Thread(target=self._run, name="simulators", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._error: BaseException | None = None

    def __getitem__(self, name: str) -> SimulatorServer:
        return self._servers[name]

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(_STARTUP_LIMIT_S):
            raise TimeoutError(f"the simulators did not start within {_STARTUP_LIMIT_S:g} s")
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *_: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised in the thread that waits
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        started: list[SimulatorServer] = []
        try:
            for server in self._servers.values():
                await server.start()
                started.append(server)
            self._ready.set()
            await self._stop.wait()
        finally:
            for server in started:
                await server.close()
