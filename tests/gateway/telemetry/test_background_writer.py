"""The background writer never waits for the reader of the log, and its lines reach a shared pipe complete."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from subprocess import run

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import background_writer as module
from gateway.telemetry.background_writer import BackgroundWriter, pieces

LIMIT_S = 120


@pytest.fixture
def null() -> Iterator[int]:
    with open(os.devnull, "wb") as file:
        yield file.fileno()


class Stuck:
    """Stands for the write to a descriptor, which blocks until it is released."""

    def __init__(self) -> None:
        self.written = b""
        self.is_writing = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, _: int, data: bytes) -> None:
        self.is_writing.set()
        assert self.may_go_on.wait(LIMIT_S)
        self.written += data


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    stuck = Stuck()
    monkeypatch.setattr(module, "_write", stuck)
    yield stuck
    stuck.may_go_on.set()


def test_write_does_not_wait_and_keeps_the_order(stuck: Stuck, null: int) -> None:
    writer = BackgroundWriter(null)
    writer.write("one\n")
    assert stuck.is_writing.wait(LIMIT_S)
    writer.write("two\nthree\n")
    writer.write("four\n")
    assert stuck.written == b""
    stuck.may_go_on.set()
    writer.finish(LIMIT_S)
    assert stuck.written == b"one\ntwo\nthree\nfour\n"
    assert writer.dropped_lines == 0


def test_text_beyond_the_queue_is_dropped_and_counted(stuck: Stuck, null: int) -> None:
    writer = BackgroundWriter(null, most_characters=10)
    writer.write("12345\n")
    writer.write("7\n8\n9\n")
    writer.write("890\n")
    assert writer.dropped_lines == 3
    writer.finish(0)
    stuck.may_go_on.set()
    writer.finish(LIMIT_S)
    writer.write("more\n")
    writer.finish(LIMIT_S)
    assert stuck.written == b"12345\n890\nmore\n"


def test_missing_reader_is_counted_and_raises_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = BackgroundWriter(writing)
    try:
        writer.write("one\ntwo\n")
        writer.finish(LIMIT_S)
        assert writer.dropped_lines == 2
        assert not writer.isatty()
    finally:
        os.close(writing)


class Recorded:
    """Keeps each write separately and signals it."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.has_come = threading.Semaphore(0)

    def __call__(self, _: int, data: bytes) -> None:
        self.writes.append(data.decode())
        self.has_come.release()


MUCH = "x" * module._MUCH + "\n"


def test_finish_ends_the_pause_after_a_large_write(monkeypatch: pytest.MonkeyPatch, null: int) -> None:
    monkeypatch.setattr(module, "_REST_S", 10 * LIMIT_S)
    monkeypatch.setattr(module, "_write", recorded := Recorded())
    writer = BackgroundWriter(null)
    writer.write(MUCH)
    assert recorded.has_come.acquire(timeout=LIMIT_S)
    writer.write("one\n")
    writer.write("two\n")
    assert recorded.writes == [MUCH]
    writer.finish(LIMIT_S)
    assert recorded.writes == [MUCH, "one\ntwo\n"]


def test_pause_ends_and_small_writes_do_not_pause(monkeypatch: pytest.MonkeyPatch, null: int) -> None:
    monkeypatch.setattr(module, "_REST_S", 0.001)
    monkeypatch.setattr(module, "_write", recorded := Recorded())
    writer = BackgroundWriter(null)
    for text in (MUCH, "one\n", "two\n"):
        writer.write(text)
        assert recorded.has_come.acquire(timeout=LIMIT_S)
        monkeypatch.setattr(module, "_REST_S", 0.001 if text == MUCH else 10 * LIMIT_S)
    assert recorded.writes == [MUCH, "one\n", "two\n"]


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line)), st.integers(1, 30))
def test_pieces_are_whole_lines_within_the_limit(lines: list[bytes], limit: int) -> None:
    text = b"".join(line + b"\n" for line in lines)
    cut = list(pieces(text, limit))
    assert b"".join(cut) == text
    for piece in cut:
        assert piece.endswith(b"\n")
        assert len(piece) <= limit or piece.count(b"\n") == 1
    for piece, following in pairwise(cut):
        assert len(piece) + following.index(b"\n") + 1 > limit, "the next line would have fitted"


def test_file_gets_one_write_and_pipe_gets_atomic_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with (tmp_path / "log").open("wb") as file:
        for descriptor, is_file in ((file.fileno(), True), (writing, False)):
            monkeypatch.setattr(module, "_write", recorded := Recorded())
            writer = BackgroundWriter(descriptor)
            writer.write(("x" * 999 + "\n") * 10)
            writer.finish(LIMIT_S)
            assert (len(recorded.writes) == 1) == is_file
            assert len("".join(recorded.writes)) == 10_000
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_slow_reader_of_a_non_blocking_pipe_loses_nothing(kind: str) -> None:
    """All processes that share a descriptor share its blocking mode, so another program may have changed it."""
    reading, writing = os.pipe() if kind == "pipe" else [end.detach() for end in socket.socketpair()]
    os.set_blocking(writing, False)
    written = [f"{number} {'x' * (9000 if number % 10 == 0 else 300)}\n" for number in range(400)]
    writer = BackgroundWriter(writing)
    for line in written:
        writer.write(line)
    with open(reading, "rb") as reader:
        read = reader.read(len("".join(written)))
    writer.finish(LIMIT_S)
    os.close(writing)
    assert read.decode() == "".join(written)


_PROGRAM = """
from gateway.telemetry.log import configure, logger
configure("json")
for number in range(2000):
    logger().info("said", number=number)
"""


def test_queued_lines_are_written_at_the_end_of_the_process() -> None:
    done = run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(2000))
