"""An answer that arrived as a whole is sent in one write, with its head and its end."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import patch

import pytest
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from bench.inprocess import CASES, InProcess, bench_table, provider_answers, request_bytes
from bench.stub import Answers
from gateway.server.connection_state import RequestState
from gateway.server.request_cycle import RequestCycle
from providers.chat import AssistantMessage

TABLE = bench_table()
LARGE = "x" * 2 * HIGH_WATER_LIMIT


# A stream whose events arrive one by one starts and ends through `send`.
AT_ONCE = [case for case in CASES if "one by one" not in case or "folded" in case]


@pytest.mark.parametrize("case", AT_ONCE)
async def test_complete_answer_is_written_in_one_piece(case: str) -> None:
    gateway = InProcess(TABLE)
    for _ in range(3):
        await gateway.ask_checked(case)
        assert len(gateway._received) == 1


@pytest.mark.parametrize("case", AT_ONCE)
async def test_complete_answer_does_not_pass_asgi_send(case: str) -> None:
    """A wrapper of `send` anywhere between server and responder switches the direct writes off, and all else passes."""
    gateway = InProcess(TABLE)
    with patch.object(RequestCycle, "send", autospec=True) as send:
        await gateway.ask_checked(case)
    send.assert_not_called()


async def test_streamed_answer_is_written_in_pieces() -> None:
    gateway, case = InProcess(TABLE), "stream of 64 events one by one"
    bits = await gateway.ask(request_bytes(case), provider_answers(case))
    assert len(gateway._received) > 60
    at_once = await gateway.ask(request_bytes(case), [b"".join(provider_answers(case))])
    assert len(gateway._received) == 1
    events = [answer.partition(b"\r\n\r\n")[2].count(b"data: ") for answer in (bits, at_once)]
    assert events[0] == events[1] > 60


async def test_slow_client_gets_the_complete_stream() -> None:
    gateway, case = InProcess(TABLE), "stream of 64 events at once"
    expected = await gateway.ask(request_bytes(case), provider_answers(case))
    flow = gateway._protocol.flow

    async def read_on() -> None:
        flow.resume_writing()

    flow.pause_writing()
    with patch.object(flow, "drain", read_on):
        answer = await gateway.ask(request_bytes(case), provider_answers(case))
    assert len(gateway._received) > 1
    assert answer.count(b"data: ") == expected.count(b"data: ")
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


@asynccontextmanager
async def asked_by_a_full_client(gateway: InProcess, case: str, answer: bytes) -> AsyncIterator[list[bytes]]:
    """Ask, and wait until the client takes no more; it reads on after the block. Yield the pieces that were written."""
    protocol, is_full, pieces = gateway._protocol, asyncio.Event(), list[bytes]()
    write = protocol.transport.write

    def fill(data: bytes) -> None:
        write(data)
        pieces.append(data)
        if sum(map(len, pieces)) > HIGH_WATER_LIMIT and not is_full.is_set():
            protocol.flow.pause_writing()
            is_full.set()

    with patch.object(protocol.transport, "write", fill):
        asking = asyncio.ensure_future(gateway.ask(request_bytes(case), [answer]))
        async with asyncio.timeout(30):
            await is_full.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        running = protocol._latest.task
        yield pieces
        protocol.flow.resume_writing()
        await asyncio.gather(asking, running)


@pytest.mark.parametrize("case", ["JSON", "stream of 64 events at once"])
async def test_large_answer_is_held_until_the_client_has_read_it(case: str) -> None:
    """An idle connection that holds an answer is cut, however well its client is reading; a request has its own time."""
    gateway, answer = InProcess(TABLE), _large_json() if case == "JSON" else Answers(2000, 2000).bursts["openai+usage"]
    async with asked_by_a_full_client(gateway, case, answer):
        assert gateway._protocol._latest.state is not RequestState.COMPLETE
    assert gateway._protocol._latest.state is RequestState.COMPLETE


async def test_large_answer_is_held_only_once_as_bytes_during_the_transfer() -> None:
    """A `str` with an emoji would need four times the memory, and a copy joined with the head would double it."""
    async with asked_by_a_full_client(InProcess(TABLE), "JSON", _large_json()) as pieces:
        held = [one for one in gc.get_objects() if type(one) is AssistantMessage and one.content == LARGE]
    assert not held
    assert pieces[-2].endswith(b"\r\n\r\n")
    assert pieces[-1].startswith(b"{")


def _large_json() -> bytes:
    message = {"role": "assistant", "content": LARGE}
    body = {"id": "a", "created": 1, "model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(data) + data
