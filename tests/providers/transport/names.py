"""Names that resolve as a test says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from providers.transport import names

__all__ = ["Names"]


class Names:
    """Stands in for the system's resolver; remembers who was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.ports: Sequence[int] = ()
        self.error: Exception | None = None
        self.hangs = False
        monkeypatch.setattr(names.Names, "addresses", lambda _, host, port: self.resolve(host, port))

    async def resolve(self, host: str, port: int) -> list[object]:
        """The addresses of a name."""
        if host == "127.0.0.1":
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
