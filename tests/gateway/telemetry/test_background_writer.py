"""The background writer never waits for the reader of the log."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from subprocess import run

import pytest

from gateway.telemetry import background_writer as outlet_module
from gateway.telemetry.background_writer import BackgroundWriter, whole_lines

LIMIT_S = 120


class BlockedStream(io.StringIO):
    """A stream that blocks until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.is_writing = threading.Event()
        self.may_go_on = threading.Event()

    def write(self, text: str) -> int:
        self.is_writing.set()
        assert self.may_go_on.wait(LIMIT_S)
        return super().write(text)


@pytest.fixture
def stuck() -> Iterator[BlockedStream]:
    stream = BlockedStream()
    yield stream
    stream.may_go_on.set()


def test_write_does_not_wait_and_keeps_the_order(stuck: BlockedStream) -> None:
    writer = BackgroundWriter(stuck)
    writer.write("one\n")
    assert stuck.is_writing.wait(LIMIT_S)
    writer.write("two\nthree\n")
    writer.write("four\n")
    assert stuck.getvalue() == ""
    stuck.may_go_on.set()
    writer.finish(LIMIT_S)
    assert stuck.getvalue() == "one\ntwo\nthree\nfour\n"
    assert writer.dropped_lines == 0


def test_text_beyond_the_queue_is_dropped_and_counted(stuck: BlockedStream) -> None:
    writer = BackgroundWriter(stuck, most_characters=10)
    writer.write("12345\n")
    writer.write("7\n8\n9\n")
    writer.write("890\n")
    assert writer.dropped_lines == 3
    writer.finish(0)
    stuck.may_go_on.set()
    writer.finish(LIMIT_S)
    writer.write("more\n")
    writer.finish(LIMIT_S)
    assert stuck.getvalue() == "12345\n890\nmore\n"


def test_missing_reader_is_counted_and_raises_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = BackgroundWriter(whole_lines(writing))
    try:
        writer.write("one\ntwo\n")
        writer.finish(LIMIT_S)
        assert writer.dropped_lines == 2
        closed = BackgroundWriter(io.StringIO())
        closed._stream.close()
        closed.write("three\n")
        closed.finish(LIMIT_S)
        assert closed.dropped_lines == 1
    finally:
        os.close(writing)


class RecordingStream(io.StringIO):
    """A stream that keeps each write separately and signals it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []
        self.has_come = threading.Semaphore(0)

    def write(self, text: str) -> int:
        self.writes.append(text)
        self.has_come.release()
        return len(text)


MUCH = "x" * outlet_module._MUCH + "\n"


def test_finish_ends_the_pause_after_a_large_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet_module, "_REST_S", 10 * LIMIT_S)
    stream = RecordingStream()
    writer = BackgroundWriter(stream)
    writer.write(MUCH)
    assert stream.has_come.acquire(timeout=LIMIT_S)
    writer.write("one\n")
    writer.write("two\n")
    assert stream.writes == [MUCH]
    writer.finish(LIMIT_S)
    assert stream.writes == [MUCH, "one\ntwo\n"]


def test_pause_ends_and_small_writes_do_not_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet_module, "_REST_S", 0.001)
    stream = RecordingStream()
    writer = BackgroundWriter(stream)
    for text in (MUCH, "one\n", "two\n"):
        writer.write(text)
        assert stream.has_come.acquire(timeout=LIMIT_S)
        monkeypatch.setattr(outlet_module, "_REST_S", 0.001 if text == MUCH else 10 * LIMIT_S)
    assert stream.writes == [MUCH, "one\n", "two\n"]


_PROGRAM = """
from gateway.telemetry.log import configure, logger
configure("json")
for number in range(2000):
    logger().info("said", number=number)
"""


def test_queued_lines_are_written_at_the_end_of_the_process() -> None:
    done = run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(2000))
