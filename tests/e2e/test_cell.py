"""A cell of real instances with PostgreSQL and Valkey: a rollback, its release and a reload reach all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.postgres_migration import upgrade
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.store_cell import Cell, cell, environ_of, instance, run_command
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    with running_postgres() as server:
        upgrade(server.address())
        yield server


def ready(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{url}/readyz", trust_env=False, timeout=60).json()
    return answer


def version(both: Cell, number: int) -> str:
    return str(ready(both.instances[number].admin_url)["config_version"]["version"])


def status(both: Cell, number: int) -> tuple[int, dict[str, Any]]:
    environ = environ_of(both.path, number)
    code, text = run_command(environ, "status", "--admin", both.instances[number].admin_url, "--json")
    return code, json.loads(text)


def test_rollback_release_and_reload_reach_every_instance_also_one_that_starts_later(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    with cell(tmp_path, postgres, "log: {sample: 0.5}") as both:
        first = version(both, 0)
        both.path.write_text(both.path.read_text().replace("0.5", "0.25"))
        eventually(lambda: version(both, 0) == version(both, 1) != first)
        second = version(both, 0)
        both.run("rollback", first, "--as", "ada")
        eventually(lambda: ready(both.instances[1].admin_url)["rollback_pinned"] == first)
        with instance(both.path, 2) as late:
            both.instances.append(late)
            assert ready(late.admin_url)["rollback_pinned"] == first
            document = status(both, 2)[1]
            assert [(it["version"], it["state"]) for it in document["instances"]] == [(first, "current")] * 3
            both.run("rollback", "--release", "--as", "bob", number=1)
            eventually(lambda: {version(both, number) for number in range(3)} == {second})
            reloaded = httpx.post(f"{late.admin_url}/reload", trust_env=False, timeout=60).json()
            assert reloaded["scope"] == "cell"
            for number in range(3):
                trail = both.state(number) / "audit.jsonl"
                eventually(lambda trail=trail: '"event":"reloaded"' in trail.read_text())  # type: ignore[misc]
            both.instances.pop()
        assert len(status(both, 0)[1]["instances"]) == 2, "one has left"
