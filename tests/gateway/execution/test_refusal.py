"""How long the body of a refusal is waited for: its status has said what matters."""

from __future__ import annotations

import pytest

from gateway.execution.attempt import Caller
from gateway.execution.deadline import Deadline, TimeLimit
from gateway.execution.reply import Reply
from gateway.execution.send import Sender
from gateway.execution.transports import Credential, RequestHead
from gateway.model.permit import AnyPermit
from providers.chat import ChatRequest, UserMessage
from providers.failures import FailureKind, ProviderFailed
from providers.transport import Recheck, Tap
from providers.wire import WireResponse
from tests.gateway.execution.conftest import Bench


class Refusal(Reply):
    """A 503 whose body is asked for."""

    def __init__(self) -> None:
        self.status, self.headers, self.received_at = 503, {}, 7.0
        self.limit_s = -1.0

    async def read(self, _: Tap | None = None) -> bytes:
        raise AssertionError("read without a limit")

    async def read_refusal(self, limit: TimeLimit) -> WireResponse:
        self.limit_s = limit.seconds
        return self.head

    async def close(self) -> None:
        pass


class Refusing:
    """A transport to a provider that refuses everything."""

    def __init__(self) -> None:
        self.reply = Refusal()

    async def send(
        self,
        _: AnyPermit,
        __: RequestHead,
        ___: Credential,
        ____: bytes,
        connect_s: float,
        _____: Recheck | None = None,
    ) -> Reply:
        return self.reply

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(
    ("stream", "folded", "commit_s", "total_s", "waited_s"),
    [
        (True, False, 55, 600, 2),
        (True, False, 0.25, 600, 0.25),  # A stream's first word is late by then.
        (True, True, 0.25, 600, 2),
        (False, False, 0.25, 600, 2),
        (False, False, 0.25, 0.5, 0.5),
    ],
)
async def test_it_is_not_waited_for_beyond_the_time_of_the_answer(
    bench: Bench, stream: bool, folded: bool, commit_s: float, total_s: float, waited_s: float
) -> None:
    way, deadline = Refusing(), Deadline(0.0, total_s, commit_s, lambda: 0.0)
    request = ChatRequest("assistant", (UserMessage("hello"),), stream=stream, folded=folded)
    step = bench.plan(request).steps[0]
    with pytest.raises(ProviderFailed) as raised:
        await Caller(Sender(way)).attempt(step, None, request, bench.table.resilience, deadline, 60)
    deadline.close()
    assert raised.value.failure.kind is FailureKind.UNAVAILABLE
    assert way.reply.limit_s == waited_s
