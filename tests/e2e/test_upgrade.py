"""Upgrades from an earlier release: its configuration and state are continued, and a cell is upgraded and brought back."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from providers.testkit.scenario import Scenario
from tests.kit.balancer import Balancer, balancer
from tests.kit.release_state import RELEASES, ask_from_everywhere, release_gateway, run_command, serving, unpacked
from tests.kit.reloading_gateway import LIMIT_S, Load, config, two_providers
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
COMMIT = "6b633bbf"
"""The commit of release 0.1.0."""


@pytest.mark.parametrize("release", sorted(folder.name for folder in RELEASES.iterdir()))
def test_configuration_and_state_of_an_earlier_release_are_continued(release: str) -> None:
    with unpacked(release) as (path, state):
        run_command(ROOT, state, "check", str(path))
        before = json.loads(run_command(ROOT, state, "history", "--json"))["activations"]
        assert [entry["cause"] for entry in reversed(before)] == ["start", "admin", "rollback"]
        old = receipts(state)
        with serving(ROOT, path, state) as gateway:
            answers = ask_from_everywhere(gateway.url)
            assert {answer.status_code for answer in answers} == {200, 451}
            kept = httpx.get(f"{gateway.url}/v1/receipts/{old[0]}", trust_env=False)
            assert kept.status_code == 200
            assert old[0] in kept.text
            run_command(ROOT, state, "rollback", before[1]["version"], "--as", "bob")
            status = httpx.get(f"{gateway.admin_url}/status", trust_env=False).json()
            assert status["version"].startswith(before[1]["version"])
        after = json.loads(run_command(ROOT, state, "history", "--json"))["activations"]
        assert [{**entry, "active": True} for entry in after[-3:]] == [{**entry, "active": True} for entry in before]
        assert (after[0]["cause"], after[0]["who"]) == ("rollback", "bob")
        assert set(old) < set(receipts(state))
        assert "as they were written" in run_command(ROOT, state, "audit", "verify")


def receipts(state: Path) -> list[str]:
    with closing(sqlite3.connect(state / "receipts.db")) as database:
        return [str(name) for (name,) in database.execute("SELECT id FROM receipt")]


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of release 0.1.0."""
    folder = tmp_path_factory.mktemp("former")
    archive = subprocess.run(
        ["git", "archive", COMMIT, "gateway", "providers", "config"], cwd=ROOT, capture_output=True
    )
    if archive.returncode != 0:
        pytest.skip("this checkout has no history, so it has no source of release 0.1.0")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


class Fleet:
    """Two instances behind a balancer, each with a state directory of its own."""

    def __init__(self, path: Path, front: Balancer) -> None:
        self.path = path
        self.front = front
        self.running: dict[int, tuple[int, ExitStack]] = {}

    def state(self, number: int) -> Path:
        return self.path.parent / f"state-{number}"

    def start(self, number: int, checkout: Path) -> None:
        stack = ExitStack()
        gateway = stack.enter_context(release_gateway(checkout, self.path, self.state(number)))
        self.running[number] = self.front.add(gateway.url), stack

    def stop(self, number: int) -> None:
        """Take an instance out of the balancer, then end it. Release 0.1.0 had no `gateway drain`."""
        slot, stack = self.running.pop(number)
        self.front.tell(f"set server gateway/slot{slot} state drain")
        eventually(lambda: self.front.running(slot) == 0, LIMIT_S)
        stack.close()
        self.front.remove(slot)

    def close(self) -> None:
        for number in [*self.running]:
            self.running.pop(number)[1].close()


def test_cell_is_upgraded_and_brought_back_without_a_failed_request(tmp_path: Path, former: Path) -> None:
    """The steps are those of the page: copy the state after the stop, and go back with the copy."""
    with ExitStack() as stack:
        providers = stack.enter_context(two_providers())
        providers["a"].scenario = Scenario(text="site a, one two three four five six", between_events_s=0.05)
        path = tmp_path / "gateway.yaml"
        path.write_text(config(providers).text)
        fleet = Fleet(path, stack.enter_context(balancer(tmp_path)))
        stack.callback(fleet.close)
        for number in range(2):
            fleet.start(number, former)
        load = Load(fleet.front.url)

        def operate() -> None:
            load.wait_for_more(30)
            for number in range(2):
                fleet.stop(number)
                shutil.copytree(fleet.state(number), tmp_path / f"copy-{number}")
                fleet.start(number, ROOT)
                load.wait_for_more(30)
            for number in range(2):
                fleet.stop(number)
                shutil.rmtree(fleet.state(number))
                shutil.copytree(tmp_path / f"copy-{number}", fleet.state(number))
                fleet.start(number, former)
                load.wait_for_more(30)

        asyncio.run(load.run(operate))
        fleet.close()
        for number in range(2):
            run_command(former, fleet.state(number), "audit", "verify")
