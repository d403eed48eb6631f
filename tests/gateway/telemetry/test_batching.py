"""Finished requests are processed in batches, soon, and each once."""

import asyncio

import pytest

from gateway.model.record import Record
from gateway.telemetry import batching
from gateway.telemetry.batching import Batcher, Ended


def record(number: int) -> Record:
    return Record(str(number), 0.0, "t")


def names_in(made: list[list[Ended]]) -> list[list[str]]:
    return [[ended.request_id for ended, _ in batch] for batch in made]


async def test_records_are_processed_together_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_WAIT_S", 0.001)
    made: list[list[Ended]] = []
    has_processed = asyncio.Event()

    def process(ended: list[Ended]) -> None:
        made.append(ended)
        has_processed.set()

    times = iter([7.0, 8.0, 9.0])
    gathered = Batcher(process, clock=lambda: next(times))  # type: ignore[arg-type]
    gathered.add(record(1))
    gathered.add(record(2))
    assert made == []
    await asyncio.wait_for(has_processed.wait(), 10)
    assert names_in(made) == [["1", "2"]]
    assert [at for _, at in made[0]] == [7.0, 8.0]
    has_processed.clear()
    gathered.add(record(3))
    await asyncio.wait_for(has_processed.wait(), 10)
    assert names_in(made) == [["1", "2"], ["3"]]


async def test_full_batch_does_not_wait_and_the_rest_is_processed_once() -> None:
    made: list[list[Ended]] = []
    gathered = Batcher(lambda ended: made.append(list(ended)))
    for number in range(70):
        gathered.add(record(number))
    gathered.flush()
    gathered.flush()
    assert [len(batch) for batch in made] == [64, 6]
    assert [name for batch in names_in(made) for name in batch] == [str(number) for number in range(70)]


def test_records_are_processed_at_once_without_an_event_loop() -> None:
    made: list[list[Ended]] = []
    Batcher(lambda ended: made.append(list(ended))).add(record(1))
    assert names_in(made) == [["1"]]
