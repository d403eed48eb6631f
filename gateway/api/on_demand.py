"""An application that is built when it is first asked: a process that is never asked does without its memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.api.plain import error_answer, send_answer
from gateway.api.probe import Application


class OnDemand:
    """ASGI. build: imports and makes the application; run in a thread, so that the loop serves on meanwhile.

    All who ask before it is there wait for one build. One that failed is tried again by the next who asks. The end of
    the loop waits for a build as for any other thread of its executor.
    """

    def __init__(self, build: Callable[[], Application]) -> None:
        self._build = build
        self._application: Application | None = None
        self._building: asyncio.Task[Application] | None = None

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """One request."""
        application = self._application
        if application is None:
            try:
                application = await self._built()
            except Exception as error:  # as any fault of ours: told to the client, and to the server's log
                if scope["type"] == "http":
                    await send_answer(send, error_answer(scope, error))
                raise
        await application(scope, receive, send)

    async def _built(self) -> Application:
        building = self._building
        if building is None or building.done() or building.get_loop() is not asyncio.get_running_loop():
            building = self._building = asyncio.create_task(asyncio.to_thread(self._build))
        # Who stops waiting must not take it from the others.
        self._application = await asyncio.shield(building)
        self._building = None
        return self._application
