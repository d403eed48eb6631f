"""A storm: each answer is whole and from where it may be, or a clear error; none is lost, doubled, mixed or miscounted."""

from __future__ import annotations

import pytest

from tests.chaos.run import report, run


@pytest.mark.parametrize(
    ("requests", "workers"), [(150, 1), pytest.param(5_000, 2, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_no_promise_is_broken_in_a_storm(requests: int, workers: int) -> None:
    storm = run(requests, seed=20261120, workers=workers)
    told = report(storm, 20261120)
    assert not storm.wrong, told
    assert storm.ended["whole"] > requests / 2, told
    assert sum(site.calls - site.faults["none"] for site in storm.sites) > requests / 20, told
