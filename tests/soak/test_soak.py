"""A short soak; the long one is `make soak`."""

from __future__ import annotations

import pytest

from tests.soak.run import Series, grown, report, run


@pytest.mark.slow
def test_nothing_grows() -> None:
    storm, series = run(seconds=45, rate=40, workers=2, seed=7)
    told = report(storm, series)
    assert not storm.wrong, told
    assert not grown(series), told
    assert storm.ended.total() > 45 * 40 * 0.9, told


def test_a_leak_is_seen() -> None:
    leak = Series("memory", "KB", 4096, [60_000 + 100.0 * second for second in range(600)])
    flat = Series("sockets", "", 12, [20.0 + second % 7 for second in range(600)])
    assert grown({"leak": leak, "flat": flat}) == ["memory"]
