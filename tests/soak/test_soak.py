"""A short soak; the long one is `make soak`."""

from __future__ import annotations

import pytest

from tests.soak.run import Series, grown, report, run


# Clients that leave in the middle of their connect may leave a socket to the collector: theirs, in this process. What
# must not grow is another one.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_nothing_grows() -> None:
    storm, series = run(requests=1800, rate=40, workers=2, seed=7)
    told = report(storm, series)
    assert not storm.wrong, told
    assert not grown(series), told
    assert storm.ended.total() == 1800, told


def test_a_leak_is_seen() -> None:
    leak = Series("memory", "KB", 4096, at_rest=[180_000, 194_000])
    flat = Series("memory", "KB", 4096, at_rest=[180_000, 190_000])
    forgotten, kept = Series("sockets", "", 4, at_rest=[9, 14]), Series("sockets", "", 4, at_rest=[9, 13])
    assert grown({"leak": leak, "flat": flat, "forgotten": forgotten, "kept": kept}) == ["memory", "sockets"]
