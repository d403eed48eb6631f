"""How the work of a function grows with its input: at most 2.2-fold for twice as much."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

MOST_GROWTH = 2.2
_MOST_ROUNDS = 60
_LEAST_S = 0.002
_Made = TypeVar("_Made")


def growth(make: Callable[[int], _Made], act: Callable[[_Made], object], size: int, *refused: type[Exception]) -> float:
    """Return the greater growth of the CPU time of `act` from a size to twice as much, and from there on.

    `act` is called several times with what `make` makes. A refusal is its work too. The least time of several rounds
    counts, which is that of the work alone. Rounds end when the growth is small enough: another one only lessens times.
    """
    inputs = [make(size << at) for at in range(3)]

    def measure(given: _Made, times: int) -> float:
        started_s = time.thread_time()
        for _ in range(times):
            with suppress(*refused):
                act(given)
        return time.thread_time() - started_s

    was_enabled = gc.isenabled()
    gc.disable()
    try:
        measure(inputs[0], 1)  # what is made once is made here
        times = 1 + int(_LEAST_S / max(measure(inputs[0], 1), 1e-6))
        least = [float("inf")] * 3
        for _ in range(_MOST_ROUNDS):
            least = [min(before, measure(given, times)) for before, given in zip(least, inputs, strict=True)]
            if (found := max(least[1] / least[0], least[2] / least[1])) <= MOST_GROWTH:
                break
        return found
    finally:
        if was_enabled:
            gc.enable()
