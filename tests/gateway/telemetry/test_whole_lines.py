"""Lines reach a shared pipe complete."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.background_writer import pieces, whole_lines
from gateway.telemetry.request_log import LineWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    os.close(writing)


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


def test_line_is_written_when_it_is_complete(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    stream = whole_lines(writing)
    print("你好", end="", file=stream, flush=True)
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)
    print("!\nmore", end="", file=stream, flush=True)
    assert os.read(reading, 100).decode() == "你好!\n"
    os.close(reading)


def test_file_gets_one_write_and_pipe_gets_atomic_writes(
    pipe: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr("os.write", lambda _, data: sizes.append(len(data)) or len(data))
    with (tmp_path / "log").open("wb") as file:
        for descriptor, is_file in ((file.fileno(), True), (pipe[1], False)):
            sizes.clear()
            whole_lines(descriptor).write(("x" * 999 + "\n") * 10)
            assert (sizes == [10_000]) == is_file
            assert sum(sizes) == 10_000


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_slow_reader_of_a_non_blocking_pipe_loses_nothing(kind: str) -> None:
    """All processes that share a descriptor share its blocking mode, so another program may have changed it."""
    reading, writing = os.pipe() if kind == "pipe" else [end.detach() for end in socket.socketpair()]
    os.set_blocking(writing, False)
    written = [f"{number} {'x' * (9000 if number % 10 == 0 else 300)}\n" for number in range(400)]
    stream = whole_lines(writing)

    def write() -> None:
        try:
            for line in written:
                stream.write(line)
        finally:
            os.close(writing)

    writer = threading.Thread(target=write)
    writer.start()
    with open(reading, "rb") as reader:
        read = reader.read()
    writer.join()
    assert read.decode() == "".join(written)


def test_write_works_without_a_reader(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    stream = whole_lines(writing)
    os.close(reading)
    print("a line", file=stream, flush=True)
    assert not stream.isatty()


def test_lines_without_a_reader_are_counted_and_raise_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = LineWriter(whole_lines(writing))
    try:
        for _ in range(3):
            lines.write([b"{}"])
        assert lines.dropped == 3
    finally:
        os.close(writing)


def test_lines_to_a_closed_stream_are_counted() -> None:
    stream = io.StringIO()
    lines = LineWriter(stream)
    lines.write([b"one"])
    assert lines.dropped == 0
    stream.close()
    lines.write([b"two"])
    assert lines.dropped == 1
