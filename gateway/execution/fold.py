"""A request for one JSON that is asked as a stream, so that a provider's silence is seen, and its answer put together.

One JSON comes when all of it is written: until then a provider that works and one that is dead look the same. A stream
begins at once. What breaks off here was shown to nobody, so that it is an ordinary failure, retried and failed over.
"""

from __future__ import annotations

import asyncio

from gateway.execution.deadline import Deadline
from gateway.execution.reply import Reply
from gateway.execution.stream import LiveStream
from gateway.execution.transports import TURN_BYTES
from gateway.model.deployment import Deployment
from providers.adapter import StreamParser
from providers.chat import ChatCompletion, ChatRequest, change_request
from providers.exchange import MAX_BODY_BYTES, TOO_LARGE
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.folding import Folding
from providers.needs import has_effects
from providers.transport import Tap


def folds(request: ChatRequest, deployment: Deployment, *, is_last_step: bool) -> bool:
    """Whether the deployment is asked for a stream, though the client wants one JSON.

    Not where several choices are asked for, which not every wire format streams, nor where asking again could do
    something twice.
    """
    wanted = deployment.fold if deployment.fold is not None else not is_last_step
    return wanted and (request.n is None or request.n == 1) and not has_effects(request)


def as_stream(request: ChatRequest) -> ChatRequest:
    """The request as it is sent where its answer is folded."""
    return change_request(request, stream=True, folded=True)


class BoundedReply:
    """A reply of which no more is read than a whole answer may have: here all of it is kept."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._left_bytes = MAX_BODY_BYTES

    @property
    def is_read(self) -> bool:
        """See Reply."""
        return self._reply.is_read

    async def read(self, _: Tap | None = None) -> bytes:
        """See Reply; raises ProviderFailed if it is larger than accepted."""
        data = await self._reply.read()
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ProviderFailed(TOO_LARGE)
        return data

    async def close(self) -> None:
        """See Reply."""
        await self._reply.close()


async def whole_of(stream: LiveStream, deadline: Deadline) -> ChatCompletion:
    """The answer of a stream that has begun; raises ProviderFailed if it doesn't become whole."""
    folding = Folding()
    async for batch in stream:
        folding.add(batch)
    try:
        return folding.whole()
    except ProviderFailed as error:
        if not deadline.is_over(committed=True):
            raise
        # The provider was at work when the client's time was over.
        raise ProviderFailed(Failure(FailureKind.DEADLINE, "the request's time is over")) from error


async def whole_of_body(parser: StreamParser, body: bytes) -> ChatCompletion:
    """The answer of a large body of events, which came where one JSON was asked for; raises ProviderFailed.

    Read at once, its many events would keep all other requests waiting for seconds.
    """
    folding = Folding()
    for start in range(0, len(body), TURN_BYTES):
        folding.add(parser.feed(body[start : start + TURN_BYTES]))
        await asyncio.sleep(0)
    folding.add(parser.close())
    return folding.whole()
