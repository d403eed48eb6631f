"""How the work of a function grows with its input: at most 2.2-fold for twice as much."""

import gc
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TypeVar

MOST_GROWTH = 2.2
_MOST_TIMED = 3.0
_MOST_ROUNDS = 100
_LEAST_S = 0.002
_Made = TypeVar("_Made")


def growth(make: Callable[[int], _Made], act: Callable[[_Made], object], size: int, *refused: type[Exception]) -> float:
    """Return the greater growth of the work of `act` from a size to twice as much, and from there on.

    The work is the number of calls, of Python and C functions alike, which is always the same. The work of a single call
    of C is seen in CPU time alone. A square takes four times as long; caches and neighbours of this process take their
    part too, so up to three times counts as no growth. A refusal is work as well.
    """
    inputs = [make(size << at) for at in range(3)]

    def acted(given: _Made) -> None:
        with suppress(*refused):
            act(given)

    acted(inputs[0])  # what is made once is made here
    counts = [_calls_of(acted, given) for given in inputs]
    timed = _timed(acted, inputs)
    return timed if timed > _MOST_TIMED else max(counts[1] / counts[0], counts[2] / counts[1])


def _calls_of(act: Callable[[_Made], object], given: _Made) -> int:
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act(given)
    finally:
        sys.setprofile(before)
    return count


def _timed(act: Callable[[_Made], object], inputs: list[_Made]) -> float:
    """Return the growth of CPU time. The least of several rounds counts, until it is small enough."""

    def measure(given: _Made, times: int) -> float:
        started_s = time.thread_time()
        for _ in range(times):
            act(given)
        return time.thread_time() - started_s

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        times = 1 + int(_LEAST_S / max(measure(inputs[0], 1), 1e-6))
        least = [float("inf")] * 3
        for _ in range(_MOST_ROUNDS):
            least = [min(before, measure(given, times)) for before, given in zip(least, inputs, strict=True)]
            if (found := max(least[1] / least[0], least[2] / least[1])) <= _MOST_TIMED:
                break
        return found
    finally:
        if was_enabled:
            gc.enable()
