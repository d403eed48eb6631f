"""A stream sent to its client: a text that bypasses the events is sent at the position of its event."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from gateway.api.chat import ChatEndpoint, HttpExchange
from gateway.api.connection import CONNECTION, ClientConnection, Cycle
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.api.written_exchange import _AT_ONCE_BYTES
from gateway.execution.answer_stream import AnswerStream
from gateway.execution.deadline import Deadline
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers import chat
from tests.kit.configs import BASE, table_of


class Client:
    """The output to a client. With `is_slow`, nothing can be written without a wait."""

    def __init__(self) -> None:
        self.is_slow = False
        self.is_direct = False
        self.received = b""

    def write(self, data: bytes) -> bool:
        if not self.is_slow:
            self.received += data
        return not self.is_slow

    def text_writer(self, head: bytes, tail: bytes, silence: object) -> None:
        pass

    def respond(self, lines: list[bytes], body: bytes) -> bool:
        self.received += body
        self.is_direct = True
        return True

    async def send(self, message: dict[str, Any]) -> None:
        self.received += message.get("body", b"")


class Passing:
    """A stream that offers texts between its batches: each step is a batch or a function."""

    def __init__(self, *steps: tuple[chat.StreamEvent, ...] | Callable[[], None]) -> None:
        self._steps = list(steps)
        self.take_text: Callable[[bytes], bool] = lambda _: False

    def text_tap(self) -> Passing:
        return self

    def whole_events(self) -> tuple[chat.StreamEvent, ...]:
        return ()

    def pass_texts_to(self, take_text: Callable[[bytes], bool]) -> None:
        self.take_text = take_text

    def __aiter__(self) -> Passing:
        return self

    async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
        while self._steps:
            step = self._steps.pop(0)
            if not callable(step):
                return step
            step()
        raise StopAsyncIteration

    async def close(self) -> None:
        pass


def exchange_with(scope: dict[str, Any], send: Any) -> HttpExchange:
    service: Any = SimpleNamespace(tokens=None)
    endpoint = ChatEndpoint(service, lambda _: None)
    exchange = HttpExchange(endpoint, scope, lambda: None, send, Record("r", 0, "t"), OPENAI_CHAT)
    exchange.deadline, exchange.config = Deadline.start(60, 60), table_of(BASE)
    return exchange


async def respond(scope: dict[str, Any], client: Client, stream: Passing) -> None:
    exchange = exchange_with(scope, client.send)
    writing = exchange.respond_stream(cast(AnswerStream, stream), AnswerStyle())
    assert writing is not None
    await writing


async def test_text_bypasses_the_events_only_if_the_client_accepts_it() -> None:
    client = Client()
    taken: list[bool] = []

    def offer(text: bytes, *, is_slow: bool = False) -> Callable[[], None]:
        def step() -> None:
            client.is_slow = is_slow
            taken.append(stream.take_text(text))

        return step

    stream = Passing(
        (chat.Opened("i", "m", 1),),
        offer(b"too early"),
        (chat.TextDelta("a"),),
        offer(b"b"),
        offer(b"c", is_slow=True),
        (chat.TextRun((b"c",)),),
        offer(b"\\u0064"),
        (chat.ChoiceFinish("stop"), chat.Finished()),
    )
    line = ClientConnection()
    line.cycle = cast(Cycle, client)
    await respond({"extensions": {CONNECTION: line}}, client, stream)
    *events, done = [line.removeprefix(b"data: ") for line in client.received.split(b"\n\n") if line]
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") for event in events]
    assert (taken, deltas, done) == ([False, True, False, True], ["a", "b", "c", "d", None], b"[DONE]")


async def test_text_is_not_passed_on_without_the_gateways_own_server() -> None:
    client = Client()
    stream = Passing((chat.Opened("i", "m", 1), chat.TextDelta("a")), lambda: offered.append(stream.take_text(b"b")))
    offered: list[bool] = []
    await respond({}, client, stream)
    assert offered == [False]


def test_responder_and_server_share_the_high_water_limit() -> None:
    assert _AT_ONCE_BYTES == HIGH_WATER_LIMIT


@pytest.mark.parametrize("is_wrapped", [False, True])
async def test_only_an_unwrapped_send_is_bypassed(is_wrapped: bool) -> None:
    """A wrapper of `send`, such as CORS, must see the head of the answer."""
    client, connection = Client(), ClientConnection()
    connection.cycle = cast(Cycle, client)

    async def wrapped(message: dict[str, Any]) -> None:
        await client.send(message)

    send = wrapped if is_wrapped else client.send
    scope = {"extensions": {CONNECTION: connection}}
    completion = chat.ChatCompletion("i", "m", 1, (chat.Choice(chat.AssistantMessage("Hi"), "stop"),))
    writing = exchange_with(scope, send).respond_whole(completion, AnswerStyle())
    assert (writing is None) is client.is_direct is not is_wrapped
    if writing is not None:
        await writing
    assert json.loads(client.received)["choices"][0]["message"]["content"] == "Hi"
