"""Which store is named when rows cannot be moved, and the metrics of the state directory."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.free_space import FreeSpace
from gateway.model.budget import Stores, StoreServer
from gateway.model.status import WorkerStatus
from gateway.server.store_watch import StoreWatch
from gateway.usage.gate import RoundTrip
from tests.kit.case_files import cases

STORES = Stores(StoreServer("database", "db", 5432, "DE"), StoreServer("valkey", "valkey", 6379, "DE"))
SPACE = FreeSpace(70 * 1024**2, 1024**3)


def watch(
    directory: Path,
    stores: Stores | None,
    *,
    problem: str = "",
    of_journal: bool = False,
    skews_s: tuple[float, float] | None = None,
) -> StoreWatch:
    cell = trip = None
    if skews_s is not None:
        cell = SimpleNamespace(database_problem="", answer_s=0.001, skew_s=skews_s[0])
        trip = RoundTrip(0.001, skews_s[1])
    live: Any = SimpleNamespace(cell=cell, config=SimpleNamespace(stores=stores))
    ledger = SimpleNamespace(problem=problem or None, is_of_journal=of_journal)
    keepers: Any = SimpleNamespace(live=live, ledger=ledger)
    return StoreWatch(directory, keepers, lambda: trip, lambda _: SPACE)


@cases("skews_s", "words")
async def test_clock_that_differs_is_a_problem_and_no_store_is_down(
    tmp_path: Path, skews_s: tuple[float, float], words: str | None
) -> None:
    it = watch(tmp_path, STORES, skews_s=skews_s)
    problems = it.problems(())
    assert problems == ({} if words is None else {"clock": f"the clock of this machine is {words}: run NTP on both"})
    assert {value for [value] in (await it.series(problems))["gateway_store_up"].values()} == {1}


@pytest.mark.parametrize(
    ("stores", "of_journal", "named"),
    [(None, False, "ledger"), (STORES, False, "database"), (None, True, "journal"), (STORES, True, "journal")],
)
async def test_store_that_fails_is_named(tmp_path: Path, stores: Stores | None, of_journal: bool, named: str) -> None:
    it = watch(tmp_path, stores, problem="full", of_journal=of_journal)
    assert it.problems(()) == {named: "full"}
    up = (await it.series(it.problems(())))["gateway_store_up"]
    assert {kind for (kind,), [value] in up.items() if not value} == {named}


def test_journal_that_a_worker_cannot_write_is_named(tmp_path: Path) -> None:
    worker = WorkerStatus(1, 1, "", 0, False, {}, store_problems={"journal": "full"})
    assert watch(tmp_path, STORES).problems([worker]) == {"journal": "full"}


async def test_free_space_is_a_metric(tmp_path: Path) -> None:
    series = await watch(tmp_path, None).series({})
    assert series["gateway_state_free_bytes"] == {(): [SPACE.free]}
    assert series["gateway_state_size_bytes"] == {(): [SPACE.total]}
