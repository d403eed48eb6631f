"""Name resolution that answers as a test defines."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from providers.transport import dial

__all__ = ["Names"]


class Names:
    """Replaces the system's resolver and records the names that were looked up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.ports: Sequence[int] = ()
        self.error: Exception | None = None
        self.hangs = False
        monkeypatch.setattr(dial.Names, "addresses", lambda _, host, port: self.resolve(host, port))

    async def resolve(self, host: str, port: int) -> list[object]:
        """Return the addresses of a name."""
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


_LIMIT_S = 30


FOUND = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("192.0.2.1", 443))]


class System:
    """Replaces the system's blocking resolver. Names that end with `silent.test` wait for the event `speaks`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: Counter[str] = Counter()
        self.speaks = threading.Event()
        self.error: Exception | None = None
        self._really = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(
        self, host: str | bytes, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[object]:
        if isinstance(host, bytes):  # the signature that httpx uses
            host = host.decode("ascii")
        if flags & socket.AI_NUMERICHOST or not host.endswith(".test"):
            return self._really(host, port, family, type, proto, flags)  # type: ignore[return-value]
        self.asked[host] += 1
        if host.endswith("silent.test"):
            self.speaks.wait(_LIMIT_S)
        if self.error is not None:
            raise self.error
        return [*(self._really("127.0.0.1", port, family, type, proto) if host == "provider.test" else FOUND)]
