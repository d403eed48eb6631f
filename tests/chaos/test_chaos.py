"""A short chaos run: each answer is complete and from an allowed deployment, or a clear error. None is lost,
duplicated, mixed or miscounted.
"""

from __future__ import annotations

import pytest

from tests.chaos.run import report, run


@pytest.mark.parametrize(
    ("requests", "workers"),
    [(150, 1), pytest.param(500, 2, marks=pytest.mark.slow("sends 500 requests"))],
    ids=["short", "long"],
)
def test_chaos_run_violates_no_guarantee(requests: int, workers: int) -> None:
    chaos = run(requests, seed=20261120, workers=workers)
    text = report(chaos, 20261120)
    assert not chaos.errors, text
    assert chaos.ended["whole"] > requests / 2, text
    assert sum(site.calls - site.faults["none"] for site in chaos.sites) > requests / 20, text
