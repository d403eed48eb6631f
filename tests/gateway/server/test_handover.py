"""The running gateway's side of a handover, with next gateways that fail. Real ones are in tests/e2e/test_handover.py."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.operator_errors import StateError
from gateway.server import handover as module
from gateway.server.handover import Given, Handover, RestartBusy, ask_for_restart
from gateway.server.keepers import Keepers
from gateway.server.service_manager import ServiceManager
from tests.kit.scripted_server import until

LIMIT_S = 30.0
STARTS = """#!{python}
import os, socket, sys, time
pair_end = socket.socket(fileno=int(os.environ["GATEWAY_TAKEOVER"]))
pair_end.recv(65536)
{then}
"""
FAILS = """pair_end.sendall(b'{"failed": "the port is closed"}\\n')"""


class Live:
    """A live config that records what the handover does with it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.config = SimpleNamespace(version="v1")
        self.lock_descriptor = None
        self.problem = ""

    async def pause(self) -> None:
        self.calls.append("pause")
        if self.problem:
            raise StateError(self.problem)

    async def resume(self) -> None:
        self.calls.append("resume")

    def describe(self, facts: dict[str, Any]) -> None:
        self.calls.append("describe")


class Stopped:
    """A scheduler and a ledger writer without work."""

    async def stop(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


@asynccontextmanager
async def serving(directory: Path, live: Live, ready_s: float = LIMIT_S) -> AsyncIterator[Handover]:
    """Run the handover of a process that serves."""
    stopped: Any = Stopped()
    keepers = Keepers(live, stopped, stopped)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as admin:
        given = Given({"public": public, "admin": admin}, bytes(32), ServiceManager({}))
        handover = Handover(given, keepers, directory, ready_s=ready_s)
        handover.note_serving()
        running = asyncio.create_task(handover.run())
        await until(lambda: "describe" in live.calls)
        live.calls.clear()
        try:
            yield handover
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def script(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(text, "utf-8")
    path.chmod(0o700)
    return str(path)


async def asked(directory: Path, python: str) -> Any:
    return await asyncio.to_thread(ask_for_restart, directory, os.getpid(), python, LIMIT_S)


@pytest.mark.parametrize(
    ("then", "ready_s", "reason"),
    [
        ("time.sleep(1000)", 1.0, "the next gateway was not ready within 1 s"),
        ("sys.exit(4)", LIMIT_S, "the next gateway ended with status 4"),
        (FAILS, LIMIT_S, "the port is closed"),
    ],
)
async def test_gateway_goes_on_after_a_child_that_fails_with_the_state(
    tmp_path: Path, then: str, ready_s: float, reason: str
) -> None:
    python = script(tmp_path, STARTS.format(python=sys.executable, then=then))
    live = Live()
    async with serving(tmp_path, live, ready_s):
        assert await asked(tmp_path, python) == {"error": reason}
        assert live.calls == ["pause", "resume", "describe"]


async def test_child_that_hangs_at_its_start_is_ended(tmp_path: Path) -> None:
    live = Live()
    async with serving(tmp_path, live, 0.2):
        answer = await asked(tmp_path, script(tmp_path, "#!/bin/sh\nexec sleep 1000\n"))
    assert answer == {"error": "the next gateway was not ready within 0.2 s"}
    assert live.calls == ["pause", "resume", "describe"]


async def test_state_that_cannot_be_paused_is_reported(tmp_path: Path) -> None:
    live = Live()
    live.problem = "the disk is full"
    async with serving(tmp_path, live):
        python = script(tmp_path, STARTS.format(python=sys.executable, then="time.sleep(1000)"))
        assert await asked(tmp_path, python) == {"error": "the disk is full"}
        assert live.calls == ["pause"]


async def test_first_process_of_a_container_does_not_hand_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, Live()):
        own = os.getpid()
        monkeypatch.setattr(module.os, "getpid", lambda: 1)  # type: ignore[attr-defined]
        answer = await asyncio.to_thread(ask_for_restart, tmp_path, own, None, LIMIT_S)
    assert answer["error"].startswith("this is process 1 of its container")


async def test_second_command_waits_for_no_answer_of_the_first(tmp_path: Path) -> None:
    async with serving(tmp_path, Live(), 3.0):
        first = asyncio.create_task(asked(tmp_path, script(tmp_path, "#!/bin/sh\nexec sleep 1000\n")))
        await until((tmp_path / "restart.json").exists)
        with pytest.raises(RestartBusy):
            await asyncio.to_thread(ask_for_restart, tmp_path, os.getpid(), None, LIMIT_S)
        assert "not ready" in (await first)["error"]


@pytest.mark.parametrize("python", [None, "/opt/next/bin/python"])
def test_next_gateway_never_imports_from_the_current_directory(
    python: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "gateway", "serve"])
    monkeypatch.setattr(sys, "argv", ["gateway", "serve"])
    assert module._command(python) == [python or sys.executable, "-P", "-m", "gateway", "serve"]
