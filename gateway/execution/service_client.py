"""Call a service that the config names, with its service permit and limits of time and size. Follows no redirect."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.execution.transport import Transport, UpstreamResponse, sent_anew
from gateway.execution.upstream_request import FenceBreach, upstream_request
from gateway.model.permit import ServicePermit
from providers.failures import ProviderFailed
from providers.reading.response_reader import TOO_LARGE
from providers.transport.tls import Link
from providers.value import Value
from providers.wire import WireRequest


class ServiceResponse(Value, frozen=True):
    """A whole answer with any status. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServiceFailed(Exception):
    """There is no complete answer: the service is unreachable, too slow, or its answer is too large or broken off."""


class ServiceAnswerTooLarge(ServiceFailed):
    """The answer is larger than accepted."""


class ServiceClient:
    """Makes calls over the gateway's transport, which is closed elsewhere."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def call(
        self,
        permit: ServicePermit,
        wire: WireRequest,
        *,
        limit_s: float,
        most_bytes: int,
        link: Link | None = None,
        credential: tuple[tuple[str, str], ...] = (),
    ) -> ServiceResponse:
        """Return the answer to one request. A redirect (3xx) is an answer like any other: it is not followed.

        `credential` is headers of which one may be for a proxy in front of the service.

        Raises ServiceFailed without a whole answer, and FenceBreach if the request may not be sent.
        """
        if not isinstance(permit, ServicePermit):
            raise FenceBreach("a call of a service needs a service permit")

        async def send(anew: bool) -> UpstreamResponse:
            request = upstream_request(permit, wire, limit_s, credential, link=link)
            request.anew = anew
            return await self._transport.send(request)

        try:
            async with asyncio.timeout(limit_s):
                response = await sent_anew(send)
                try:
                    whole = await response.read_whole(most_bytes)
                    return ServiceResponse(whole.status, whole.headers, whole.body)
                finally:
                    await response.close()
        except ProviderFailed as error:
            if error.failure is TOO_LARGE:
                raise ServiceAnswerTooLarge(f"the answer is larger than {most_bytes} bytes") from None
            raise ServiceFailed(error.failure.detail or error.failure.message) from error
        except TimeoutError:
            raise ServiceFailed(f"no answer within {limit_s:g} s") from None
