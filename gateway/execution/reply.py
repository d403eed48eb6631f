"""A provider's response whose head has arrived, whichever transport it came by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from gateway.execution.deadline import TimeLimit
from providers.exchange import MAX_BODY_BYTES, TOO_LARGE
from providers.failures import ProviderFailed
from providers.transport import Tap
from providers.wire import WireResponse

_MAX_REFUSAL_BYTES = 1024 * 1024


class Body(Protocol):
    """Where the bytes come from."""

    @property
    def is_read(self) -> bool:
        """Whether it is known that nothing is left to read."""
        ...

    async def read(self, tap: Tap | None = None, /) -> bytes:
        """The next bytes, none at the end; raises ProviderFailed. See Reply."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


class Reply(ABC):
    """The head of a response, and its body as it arrives. `close` must be called, also after a failure.

    headers: lower-case names; repeated ones joined with `, `. received_at: see WireResponse.
    """

    __slots__ = ("headers", "received_at", "status")

    status: int
    headers: Mapping[str, str]
    received_at: float

    @property
    def is_read(self) -> bool:
        """Whether it is known that nothing of the body is left to read; what isn't known, a read tells."""
        return False

    @abstractmethod
    async def read(self, tap: Tap | None = None, /) -> bytes:
        """The next decoded bytes of the body, empty at its end; raises ProviderFailed if it breaks off.

        tap: a transport may offer it what arrives meanwhile; one that doesn't gives all of it here.
        """

    @abstractmethod
    async def close(self) -> None:
        """Give the connection back, or drop it if the body wasn't read to its end."""

    @property
    def head(self) -> WireResponse:
        """The response without its body."""
        return WireResponse(self.status, self.headers, b"", self.received_at)

    @property
    def is_refusal(self) -> bool:
        """Whether the status says that no answer follows."""
        return not 200 <= self.status < 300

    async def read_refusal(self, limit: TimeLimit) -> WireResponse:
        """A refusal with as much of its body as comes within the limit: its status has said what matters, so that a
        body that hangs, breaks off or never ends changes nothing."""
        body = b""
        with suppress(TimeoutError, ProviderFailed), limit:
            while len(body) < _MAX_REFUSAL_BYTES and (piece := await self.read()):
                body += piece
        return WireResponse(self.status, self.headers, body, self.received_at)

    async def read_whole(self) -> WireResponse:
        """The whole response, which is closed; raises ProviderFailed if it breaks off or is larger than accepted."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise ProviderFailed(TOO_LARGE)
        await self.close()
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return WireResponse(self.status, self.headers, body, self.received_at)
