"""A state directory on a small file system that becomes full: what stops first, and what operators see."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.reloading_gateway import Operator, config, operated
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("fills a file system")
MB = 1024**2


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MB."""
    folder = tmp_path / "state"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, left: int) -> None:
    """Write until so many bytes are left."""
    with open(folder / "filled", "wb", buffering=0) as file:
        while (free := os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize) > left:
            try:
                file.write(bytes(min(MB, free - left)))
            except OSError:
                return


def metric(operator: Operator, name: str) -> float:
    lines = operator.admin.get("/metrics").text.splitlines()
    (value,) = [float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
    return value


def test_receipts_stop_first_and_the_journal_is_named(tmp_path: Path, pair: SimulatorThread, state: Path) -> None:
    path = config(pair, "a", 0).write(tmp_path)
    with operated(path, GATEWAY_STATE_DIR=str(state)) as operator:

        def answers(number: int) -> list[int]:
            return [operator.client.post(CHAT, json=body()).status_code for _ in range(number)]

        def said(word: str) -> Any:
            return operator.admin.get("/status").json()[word]

        assert answers(1) == [200]
        assert any("the state directory has" in line for line in said("warnings"))
        eventually(lambda: metric(operator, "gateway_receipts_waiting") == 0)
        fill(state, 60 * MB)
        assert answers(20) == [200] * 20
        assert metric(operator, "gateway_receipts_waiting") == 20
        assert metric(operator, "gateway_state_free_bytes") <= 60 * MB
        assert any("MB free: receipts wait" in line for line in said("problems"))
        fill(state, 0)
        assert answers(200)[-1] == 503
        lost = operator.gateway.wait_for("store_lost", store="journal")
        assert "No space left on device" in lost["detail"]
        (state / "filled").unlink()
        eventually(lambda: metric(operator, "gateway_receipts_waiting") == 0)
        eventually(lambda: answers(1) == [200])
        operator.gateway.wait_for("store_back", store="journal")
