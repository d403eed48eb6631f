"""A short soak test. The long one is `make soak`."""

from __future__ import annotations

import pytest

from tests.soak.run import Series, growing_series, report, run


# Clients that disconnect while connecting may leave a socket to the garbage collector, in this process. A growth in the
# gateway is another matter.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow("growth shows with time")
def test_no_resource_grows() -> None:
    chaos, series = run(requests=1800, rate=40, workers=2, seed=7)
    text = report(chaos, series)
    assert not chaos.errors, text
    assert not growing_series(series), text
    assert chaos.ended.total() == 1800, text


def test_leak_is_detected() -> None:
    leak = Series("memory", "KB", 4096, idle_values=[180_000, 194_000])
    flat = Series("memory", "KB", 4096, idle_values=[180_000, 190_000])
    forgotten, kept = Series("sockets", "", 4, idle_values=[9, 14]), Series("sockets", "", 4, idle_values=[9, 13])
    assert growing_series({"leak": leak, "flat": flat, "forgotten": forgotten, "kept": kept}) == ["memory", "sockets"]
