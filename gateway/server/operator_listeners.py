"""Serve the listeners of operators next to the public one: the admin listener, and the console outside a demo."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.api.admin import build_admin
from gateway.api.admin_control import Control
from gateway.api.admin_guard import Guard
from gateway.api.raw_responses import Application
from gateway.server.uvicorn_server import serving_in_background

BuildOperatorConsole = Callable[[Application, Guard, Control], Application]
"""Returns the console over the admin API. The map reads the state of the gateway as the admin API does."""


@dataclass(frozen=True, slots=True)
class ConsoleListener:
    """The listener of the console."""

    listener: socket.socket
    build: BuildOperatorConsole


@asynccontextmanager
async def operator_listeners(
    control: Control, admin: tuple[socket.socket, Guard], console: ConsoleListener | None
) -> AsyncIterator[Callable[[], None]]:
    """Serve the admin listener, and the console if there is one, while the block runs.

    Provide a function that ends both.
    """
    listener, guard = admin
    application = build_admin(control, guard)
    async with AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(serving_in_background(application, listener))]
        if console is not None:
            shown = console.build(application, guard, control)
            ends.append(await stack.enter_async_context(serving_in_background(shown, console.listener)))

        def end() -> None:
            for end_one in ends:
                end_one()

        yield end
