"""Asks a service that the config names, under its service permit: bounded time, bounded answer, no redirect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.execution.reply import Reply
from gateway.execution.send import checked_credential, request_head
from gateway.execution.transports import FenceBreach, Transport
from gateway.model.permit import ServicePermit
from providers.failures import ProviderFailed
from providers.wire import WireRequest


@dataclass(frozen=True, slots=True)
class ServiceReply:
    """The whole answer, whatever its status; `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServiceFailed(Exception):
    """No whole answer: unreachable, too slow, too large, broken off. The message says which, and no more."""


class Services:
    """Calls over the transport that the gateway has anyway, and which somebody else closes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def call(self, permit: ServicePermit, wire: WireRequest, *, limit_s: float, most_bytes: int) -> ServiceReply:
        """The answer to one request; raises ServiceFailed, or FenceBreach for a request that may not be sent.

        A status of 3xx is an answer like any other: nothing is followed.
        """
        if not isinstance(permit, ServicePermit):
            raise FenceBreach("a service is asked under a service permit, and no other")
        head = request_head(permit.origin, wire)
        try:
            async with asyncio.timeout(limit_s):
                incoming = await self._transport.send(permit, head, checked_credential(()), wire.body, limit_s)
                try:
                    return ServiceReply(incoming.status, incoming.headers, await _read(incoming, most_bytes))
                finally:
                    await incoming.close()
        except ProviderFailed as error:
            raise ServiceFailed(error.failure.detail or error.failure.message) from error
        except TimeoutError:
            raise ServiceFailed(f"no answer within {limit_s:g} s") from None


async def _read(incoming: Reply, most_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await incoming.read():
        pieces.append(piece)
        size += len(piece)
        if size > most_bytes:
            raise ServiceFailed(f"an answer of more than {most_bytes} bytes")
    return b"".join(pieces)
