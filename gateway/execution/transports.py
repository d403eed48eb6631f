"""The way out: what a transport must do, and our lean pool behind it. Nothing gets through without its permit.

What goes wrong comes back as a `Failure`: the names of the libraries stop here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Protocol

from gateway.model.permit import AnyPermit, Permit, ServicePermit
from providers.exchange import MAX_BODY_BYTES
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.transport import (
    BadResponse,
    ConnectFailed,
    ConnectionBroken,
    NotAllowed,
    Pool,
    PooledResponse,
    Tap,
    TooLarge,
    TransportError,
)
from providers.transport.decoding import Decoder, decoder_for

__all__ = ["FenceBreach", "Headers", "Incoming", "LeanTransport", "Transport", "allow", "joined"]

Headers = Sequence[tuple[str, str]]


class FenceBreach(RuntimeError):
    """Something tried to send where it may not; nothing was sent. A bug or an attack, never a provider's failure."""


class Incoming(Protocol):
    """A response whose head has arrived. `close` must be called, however it ends."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names; repeated ones joined with `, `."""
        ...

    async def read(self, tap: Tap | None = None, /) -> bytes:
        """The next decoded bytes of the body, empty at its end; raises ProviderFailed if it breaks off.

        tap: a transport may offer it what arrives meanwhile; one that doesn't gives all of it here.
        """
        ...

    async def close(self) -> None:
        """Give the connection back, or drop it if the body wasn't read to its end."""
        ...


class Transport(Protocol):
    """Opens requests to permitted origins."""

    async def send(
        self, permit: AnyPermit, method: str, target: str, headers: Headers, body: bytes, connect_s: float
    ) -> Incoming:
        """The response's head; raises ProviderFailed, or FenceBreach if the permit doesn't hold."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...


def allow(origin: str, permit: object) -> None:
    """The pool's rule: a permit for exactly this origin; raises NotAllowed."""
    if not isinstance(permit, (Permit, ServicePermit)) or permit.origin != origin:
        raise NotAllowed("a request without a permit for its origin was stopped")


def joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Headers by name, repeated ones joined with `, ` (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in pairs:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


@lru_cache(maxsize=1024)
def _lines(headers: tuple[tuple[str, str], ...]) -> str:
    """Headers as they are sent. A deployment sends the same ones with each request."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


class LeanTransport:
    """Our own pool: the default."""

    def __init__(self, pool: Pool | None = None) -> None:
        self._pool = pool or Pool(allow)

    async def send(
        self, permit: AnyPermit, method: str, target: str, headers: Headers, body: bytes, connect_s: float
    ) -> Incoming:
        """See Transport."""
        try:
            response = await self._pool.send(
                permit.origin, method, target, _lines(tuple(headers)), body, connect_s, permit
            )
        except NotAllowed as error:
            raise FenceBreach(str(error)) from error
        except TransportError as error:
            raise ProviderFailed(_failure(error)) from error
        return _Pooled(response)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()


class _Pooled:
    """A pooled response, decoded."""

    __slots__ = ("_decoder", "_response", "headers", "status")

    def __init__(self, response: PooledResponse) -> None:
        self._response = response
        self.status = response.status
        # Decoded all at once; no header holds a line break.
        words = b"\n".join(chain.from_iterable(response.headers)).decode("latin-1").split("\n")
        headers = dict(zip(words[::2], words[1::2], strict=False))
        # Almost no answer has a header twice.
        if len(headers) * 2 < len(words):
            headers = joined([*zip(words[::2], words[1::2], strict=True)])
        self.headers: Mapping[str, str] = headers
        self._decoder: Decoder | None = None
        if "content-encoding" in self.headers:
            try:
                self._decoder = decoder_for(self.headers["content-encoding"])
            except BadResponse as error:
                response.close()
                raise ProviderFailed(_failure(error)) from error

    async def read(self, tap: Tap | None = None) -> bytes:
        decoder = self._decoder
        try:
            if decoder is None:
                return await self._response.read(tap)
            while data := await self._response.read():
                if decoded := decoder.feed(data, MAX_BODY_BYTES):
                    return decoded
            decoder.finish()
        except TransportError as error:
            raise ProviderFailed(_failure(error)) from error
        return b""

    async def close(self) -> None:
        self._response.close()


def _failure(error: TransportError) -> Failure:
    detail = f"{type(error).__name__}: {error}"
    match error:
        case ConnectFailed():
            return Failure(FailureKind.CONNECT, "the provider could not be reached", detail, unsent=True)
        case ConnectionBroken(answered=False):
            return Failure(FailureKind.CONNECT, "the connection to the provider broke before it answered", detail)
        case ConnectionBroken():
            return Failure(FailureKind.INTERRUPTED, "the provider's answer broke off", detail)
        case TooLarge():
            return Failure(FailureKind.TOO_LARGE, "the provider's answer is larger than is taken", detail)
        case _:
            return Failure(FailureKind.MALFORMED, "the provider's answer is no valid HTTP", detail)
