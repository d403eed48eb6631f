"""Ask for a stream where the client wants one JSON answer, and fold it into that answer.

A JSON answer arrives only when it is complete, so until then a working provider and a dead one look the same, whereas a
stream begins at once. If a folded stream breaks off, no byte of it was shown to the client: the failure is an ordinary
one, which is retried and failed over.
"""

from __future__ import annotations

import asyncio

from gateway.execution.answer_stream import LiveStream
from gateway.execution.deadline import Deadline
from gateway.execution.transport import TURN_BYTES, UpstreamResponse
from gateway.model.deployment import Deployment
from gateway.tasks import run_apart
from providers.adapter import StreamParser
from providers.chat import ChatCompletion, ChatRequest, Heartbeat, change_request
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.matching.requirements import has_effects
from providers.reading.folding import Folding
from providers.reading.response_reader import MAX_BODY_BYTES, TOO_LARGE
from providers.transport.connection import Tap


def folds(request: ChatRequest, deployment: Deployment, *, is_last_step: bool) -> bool:
    """Return whether the deployment is asked for a stream although the client wants one JSON answer.

    Not for several choices, which not every wire format streams, and not where asking again could do something twice.
    """
    wanted = deployment.fold if deployment.fold is not None else not is_last_step
    has_one_choice = request.n is None or request.n == 1
    # Most requests have no further fields, and a look costs less than a call.
    return wanted and has_one_choice and not (request.extra and has_effects(request))


def as_stream(request: ChatRequest) -> ChatRequest:
    """Return the request as it is sent if its answer is folded."""
    return change_request(request, stream=True, folded=True)


class BoundedResponse:
    """A response of which no more is read than a whole answer may have, because all of it is kept."""

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self._left_bytes = MAX_BODY_BYTES

    @property
    def is_read(self) -> bool:
        return self._response.is_read

    async def read(self, _: Tap | None = None) -> bytes:
        """See UpstreamResponse; raise ProviderFailed if it is larger than accepted."""
        data = await self._response.read()
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ProviderFailed(TOO_LARGE)
        return data

    async def close(self) -> None:
        await self._response.close()


async def whole_of(stream: LiveStream, deadline: Deadline) -> ChatCompletion:
    """Return the whole answer of a stream that has begun; raise ProviderFailed if it does not become whole."""
    folding = Folding()
    async for batch in stream:
        folding.add(batch)
    try:
        return await run_apart(folding.whole) if stream.received_bytes > TURN_BYTES else folding.whole()
    except ProviderFailed as error:
        if not deadline.is_over(committed=True):
            raise
        # The provider was still working when the client's time was over.
        raise ProviderFailed(Failure(FailureKind.DEADLINE, "the request's time is over")) from error


async def whole_of_body(parser: StreamParser, body: bytes) -> ChatCompletion:
    """Return the answer of a large body of events that arrived where one JSON was asked for; raise ProviderFailed.

    It is parsed in pieces: parsed at once, its many events would keep all other requests waiting for seconds.
    """
    folding = Folding()
    read = 0
    for start in range(0, len(body), TURN_BYTES):
        piece = body[start : start + TURN_BYTES]
        is_large = start + len(piece) - read > TURN_BYTES
        events = await run_apart(parser.feed, piece) if is_large else parser.feed(piece)
        if events and events[-1].__class__ is not Heartbeat:
            read = start + len(piece)
        folding.add(events)
        await asyncio.sleep(0)
    folding.add(parser.close())
    return await run_apart(folding.whole)
