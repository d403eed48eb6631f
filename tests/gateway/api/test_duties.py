"""Duties of a chat are counted before its last byte leaves, each kind once, however the chat ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from gateway.model.record import Record
from tests.kit.chat_exchange import Endless, Exchange, Handler, answer_completely, answering, chunk, streaming

CRISIS, NOTICE = "crisis", "notice"


async def refuse(_: httpx.Request) -> httpx.Response:
    return httpx.Response(400, json={"error": {"message": "no"}})


async def break_off(request: httpx.Request) -> httpx.Response:
    return await answering(chunk("a"))(request)


class CountedExchange(Exchange):
    """An exchange that notes duties before its answer, and records when they are counted between what is sent."""

    noted: Record

    def of(self, *kinds: str) -> CountedExchange:
        service = self.endpoint.service
        answer_chat = service.answer_chat
        self.order: list[Any] = []
        self.on_send = lambda message: self.order.append(message.get("body") or b"")

        async def noting(exchange: Any, request: Any) -> Any:
            self.noted = exchange.record
            for kind in kinds:
                self.noted.note_duty(kind)
            return await answer_chat(exchange, request)

        async def count(record: Record, counted: Iterable[str]) -> None:
            assert record is self.noted
            self.order.append(frozenset(counted))

        service.answer_chat = noting  # type: ignore[method-assign]
        service.count_duties = count  # type: ignore[method-assign]
        return self

    @property
    def counts(self) -> list[frozenset[str]]:
        return [item for item in self.order if isinstance(item, frozenset)]

    def place_of(self, text: bytes) -> int:
        """Return the place of the first part of the body that has this text."""
        return next(number for number, item in enumerate(self.order) if isinstance(item, bytes) and text in item)


@pytest.mark.parametrize(
    ("handler", "body"),
    [
        (answer_completely, None),
        (refuse, None),
        (answering(chunk("a"), chunk("", "stop"), b"data: [DONE]\n\n"), streaming()),
        (break_off, streaming()),
        (refuse, streaming()),
    ],
    ids=["whole", "error", "stream", "broken stream", "error of a stream"],
)
async def test_duties_are_counted_once_and_before_any_text_leaves(handler: Handler, body: bytes | None) -> None:
    exchange = CountedExchange(handler, **({"body": body} if body is not None else {})).of(CRISIS, NOTICE, CRISIS)
    await exchange.run()
    assert exchange.counts == [{CRISIS, NOTICE}]
    assert exchange.order.index(exchange.counts[0]) < exchange.place_of(b"{")


async def test_chat_without_duties_counts_nothing() -> None:
    exchange = CountedExchange(answer_completely).of()
    await exchange.run()
    assert exchange.counts == []


async def test_duty_that_is_noted_within_a_stream_is_counted_before_its_end() -> None:
    exchange = CountedExchange(
        answering(chunk("a"), chunk("b"), chunk("", "stop"), b"data: [DONE]\n\n"), body=streaming()
    )
    exchange.of(CRISIS)
    passed = exchange.on_send

    def note_then(message: Any) -> None:
        passed(message)
        if b'"a"' in (message.get("body") or b""):
            exchange.noted.note_duty(NOTICE)

    exchange.on_send = note_then
    await exchange.run()
    assert exchange.counts == [{CRISIS}, {NOTICE}]
    assert exchange.order.index(exchange.counts[1]) < exchange.place_of(b"[DONE]")


async def test_client_that_leaves_within_the_text_is_counted() -> None:
    exchange = CountedExchange(Endless(), body=streaming()).of(CRISIS)
    passed = exchange.on_send

    def leave(message: Any) -> None:
        passed(message)
        if message.get("body"):
            exchange.gone.set()

    exchange.on_send = leave
    await exchange.run()
    assert exchange.counts == [{CRISIS}]
    assert exchange.record.outcome == "cancelled"
