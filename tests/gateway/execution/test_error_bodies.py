"""The wait for the body of an error response is short, because the status decides."""

import pytest

from gateway.execution.deadline import Deadline, TimeLimit
from gateway.execution.transport import UpstreamResponse
from gateway.execution.upstream_client import AttemptOptions, UpstreamClient
from gateway.execution.upstream_request import UpstreamRequest
from providers.chat import ChatRequest, UserMessage
from providers.failures import FailureKind, ProviderFailed
from providers.transport.connection import Tap
from providers.wire import WireResponse
from tests.gateway.execution.conftest import Bench
from tests.kit.case_files import cases


class Refusal(UpstreamResponse):
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

    async def send(self, _: UpstreamRequest) -> UpstreamResponse:
        return self.reply

    async def aclose(self) -> None:
        pass


@cases("stream", "folded", "commit_s", "total_s", "waited_s")
async def test_error_body_is_not_read_beyond_the_deadline_of_the_answer(
    bench: Bench, stream: bool, folded: bool, commit_s: float, total_s: float, waited_s: float
) -> None:
    way, deadline = Refusing(), Deadline(0.0, total_s, commit_s, lambda: 0.0)
    request = ChatRequest("assistant", (UserMessage("hello"),), stream=stream, folded=folded)
    step = bench.plan(request).steps[0]
    options = AttemptOptions(request, 60, 5, 30)
    with pytest.raises(ProviderFailed) as raised:
        await UpstreamClient(way).send(step, None, options, deadline)
    deadline.close()
    assert raised.value.failure.kind is FailureKind.UNAVAILABLE
    assert way.reply.limit_s == waited_s
