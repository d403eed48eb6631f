"""Names that resolve as a test says, on whichever loop it runs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

__all__ = ["Names"]


class Names:
    """Stands in for the loop's resolver; remembers who was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.ports: Sequence[int] = ()
        self.error: Exception | None = None
        self.hangs = False
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._resolve)

    async def _resolve(self, host: str, port: int, **_: object) -> list[object]:
        if host == "127.0.0.1":
            # uvloop has addresses resolved, too, when it connects to them.
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
        self.asked.append(host)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
            for port in (self.ports or (port,))
        ]
