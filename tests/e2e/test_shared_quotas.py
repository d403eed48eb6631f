"""Quotas over two instances with one Valkey: never more than a bucket holds and refills, and shares without Valkey."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.usage.postgres import upgrade
from tests.kit.metered_gateway import ask_together
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.store_cell import cell
from tests.kit.valkey_server import RunningValkey
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts stores and several gateways")
LIMIT = 10


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    with running_postgres() as server:
        upgrade(server.address())
        yield server


def quota(**rules: Any) -> dict[str, Any]:
    return {"quotas": {"account": rules}, "deployments": {"ok": {"quota": "account"}}}


def asked(folder: Path, postgres: RunningPostgres, patch: dict[str, Any], workers: int) -> tuple[int, int, float]:
    """Ask two instances with 64 clients each. Return the answers, the calls of the provider, and the time it took.

    A busy machine that is too late for a decision tries again.
    """
    for attempt in range(5):
        (folder / str(attempt)).mkdir()
        with cell(folder / str(attempt), postgres, patch, workers=workers) as both:
            began_s = time.time()
            answers = asyncio.run(ask_together(both.instances, both.meter, 128))
            took_s = time.time() - began_s
            if not both.lost_gate_since(began_s):
                return Counter(status for status, _ in answers)[200], both.meter.number("ok"), took_s
    pytest.fail("Valkey did not answer in time in any try")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("window", ["minute", "hour"])
def test_two_instances_admit_what_the_quota_holds(
    tmp_path: Path, postgres: RunningPostgres, window: str, workers: int
) -> None:
    answered, called, took_s = asked(tmp_path, postgres, quota(requests={window: LIMIT}), workers)
    refilled = int(took_s * LIMIT / 60) + 1 if window == "minute" else 0
    assert LIMIT <= answered == called <= LIMIT + refilled


def test_two_instances_share_the_slots_of_a_deployment(tmp_path: Path, postgres: RunningPostgres) -> None:
    rule = {"deployments": {"ok": {"concurrency": {"limit": LIMIT, "queue": 0}}}}
    answered, called, _ = asked(tmp_path, postgres, rule, 1)
    assert (answered, called) == (LIMIT, LIMIT)


def test_without_valkey_each_instance_has_its_share(tmp_path: Path, postgres: RunningPostgres) -> None:
    with cell(tmp_path, postgres, quota(requests={"hour": LIMIT})) as both:
        # Each instance counts the others with its next sign of life.
        eventually(lambda: len(signs(both.valkey, time.time() - 5)) == 2, 20)
        now_s = time.time()
        eventually(lambda: len(signs(both.valkey, now_s)) == 2, 20)
        both.valkey.kill()
        answers = asyncio.run(ask_together(both.instances, both.meter, 64))
        assert Counter(status for status, _ in answers)[200] == both.meter.number("ok") == LIMIT


def signs(valkey: RunningValkey, since_s: float) -> list[str]:
    """Return the processes that gave a sign of life since a time."""
    (key,) = [str(it, "ascii") for it in valkey.command("KEYS", "*:owners")]  # type: ignore[attr-defined]
    found: Any = valkey.command("ZRANGEBYSCORE", key, str(int(since_s * 1_000_000)), "+inf")
    return list(found)
