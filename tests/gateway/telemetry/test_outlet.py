"""Nobody waits for who reads the log."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from subprocess import run

import pytest

from gateway.telemetry.outlet import Outlet
from gateway.telemetry.whole_lines import whole_lines

LIMIT_S = 30


class Stuck(io.StringIO):
    """A stream that takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.is_writing = threading.Event()
        self.may_go_on = threading.Event()

    def write(self, text: str) -> int:
        self.is_writing.set()
        assert self.may_go_on.wait(LIMIT_S)
        return super().write(text)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    stream = Stuck()
    yield stream
    stream.may_go_on.set()


def test_who_writes_does_not_wait_and_the_order_is_kept(stuck: Stuck) -> None:
    outlet = Outlet(stuck)
    outlet.write("one\n")
    assert stuck.is_writing.wait(LIMIT_S)
    outlet.write("two\nthree\n")
    outlet.write("four\n")
    assert stuck.getvalue() == ""
    stuck.may_go_on.set()
    outlet.finish(LIMIT_S)
    assert stuck.getvalue() == "one\ntwo\nthree\nfour\n"
    assert outlet.dropped_lines == 0


def test_what_finds_no_room_is_dropped_and_counted_and_the_rest_goes_on(stuck: Stuck) -> None:
    outlet = Outlet(stuck, most_characters=10)
    outlet.write("12345\n")
    outlet.write("7\n8\n9\n")
    outlet.write("890\n")
    assert outlet.dropped_lines == 3
    outlet.finish(0)
    stuck.may_go_on.set()
    outlet.finish(LIMIT_S)
    outlet.write("more\n")
    outlet.finish(LIMIT_S)
    assert stuck.getvalue() == "12345\n890\nmore\n"


def test_a_reader_that_is_gone_is_counted_and_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    outlet = Outlet(whole_lines(writing))
    try:
        outlet.write("one\ntwo\n")
        outlet.finish(LIMIT_S)
        assert outlet.dropped_lines == 2
        closed = Outlet(io.StringIO())
        closed._stream.close()
        closed.write("three\n")
        closed.finish(LIMIT_S)
        assert closed.dropped_lines == 1
    finally:
        os.close(writing)


_PROGRAM = """
from gateway.telemetry.log import configure, logger
configure("json")
for number in range(2000):
    logger().info("said", number=number)
"""


def test_all_that_was_logged_is_there_at_the_end_of_the_process() -> None:
    done = run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=LIMIT_S)
    assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(2000))
