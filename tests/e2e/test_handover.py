"""`gateway restart` and SIGUSR2: the next gateway takes over the sockets, the state directory and the counts.

`HANDOVERS=20 HANDOVER_RATE=200 HANDOVER_STREAM_S=60` runs the load in full, as `make prove` does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import __version__
from gateway.cell.postgres import upgrade
from gateway.cli import main
from gateway.state.lock import holder_of
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.release_state import ROOT, copy_of_this_release, python_of
from tests.e2e.restartable_gateway import end, pid_of, restartable
from tests.e2e.service_manager import Manager
from tests.e2e.worker_processes import WORKERS
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.metered_gateway import CAP, HELD_TOKENS, rows_of, serving, with_budget
from tests.kit.operator_console import ConsoleClient
from tests.kit.postgres_server import running_postgres
from tests.kit.reloading_gateway import LIMIT_S, config, operated, two_providers
from tests.kit.store_cell import Cell, cell, environ_of, run_command
from tests.kit.waiting import eventually

HANDOVERS = int(os.environ.get("HANDOVERS", "3"))
RATE = float(os.environ.get("HANDOVER_RATE", "20"))
STREAM_S = float(os.environ.get("HANDOVER_STREAM_S", "4"))
WORDS = "one two three four five six seven eight nine ten"
SLOW = {"assistants": {"slow": {"routes": {"default": ["b"]}}}}


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    with two_providers() as thread:
        thread["b"].scenario = Scenario(text=WORDS, between_events_s=STREAM_S / len(WORDS.split()))
        yield thread


@pytest.fixture
def path(tmp_path: Path, providers: SimulatorThread) -> Path:
    return config(providers, "a", 0, SLOW).write(tmp_path)


def restart(state: Path, *more: str) -> int:
    return main(["restart", "--state", str(state), *more])


# --- under load -----------------------------------------------------------------------------------


class Traffic:
    """Requests at a steady rate on kept and on new connections: JSON, and streams that last long."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures: list[str] = []
        self.waits: list[float] = []
        self.streams = 0
        self.is_ending = False

    async def run(self, operate: Any) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=LIMIT_S, limits=limits) as client:
            sending = asyncio.create_task(self._send(client))
            try:
                await asyncio.to_thread(operate)
            finally:
                self.is_ending = True
                await sending

    async def _send(self, client: httpx.AsyncClient) -> None:
        loop, began = asyncio.get_running_loop(), time.monotonic()
        running = set()
        for number in itertools.count():
            if self.is_ending:
                break
            running.add(loop.create_task(self._ask(client, number)))
            running = {task for task in running if not task.done()}
            await asyncio.sleep(max(0.0, began + (number + 1) / RATE - time.monotonic()))
        await asyncio.gather(*running)

    async def _ask(self, client: httpx.AsyncClient, number: int) -> None:
        is_stream = number % 10 == 0
        headers = {"connection": "close"} if number % 3 == 0 else {}
        content = body(model="slow", stream=True) if is_stream else body()
        began = time.monotonic()
        try:
            async with client.stream("POST", CHAT, json=content, headers=headers) as answer:
                self.waits.append(time.monotonic() - began)
                await answer.aread()
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
            return
        text = answer.text
        if answer.status_code != 200 or not text.endswith("data: [DONE]\n\n" if is_stream else "}"):
            self.failures.append(f"{answer.status_code} {text[-300:]}")
        elif is_stream:
            self.streams += 1
            words = [json.loads(event) if isinstance(event, str) else event for event in events_of(answer)[:-1]]
            said = "".join(event["choices"][0]["delta"].get("content") or "" for event in words)
            if said != WORDS:
                self.failures.append(said)


@pytest.mark.slow("a load of seconds")
@pytest.mark.parametrize("workers", [1, 2])
async def test_handovers_under_load_refuse_and_fail_no_request(path: Path, workers: int) -> None:
    with restartable(path, workers) as (operator, state):
        first = operator.gateway.process
        traffic = Traffic(operator.gateway.url)
        pids = [pid_of(state)]

        def operate() -> None:
            time.sleep(1)  # undisturbed requests, for the longest wait of these
            undisturbed.append(max(traffic.waits))
            for _ in range(HANDOVERS):
                assert restart(state) == 0
                pids.append(pid_of(state))
                assert not traffic.failures, traffic.failures[:3]

        undisturbed: list[float] = []
        await traffic.run(operate)
        assert not traffic.failures, traffic.failures[:3]
        assert traffic.streams > 0
        assert len(set(pids)) == HANDOVERS + 1
        if HANDOVERS >= 20:  # in full, on a machine that does nothing else
            assert max(traffic.waits) <= max(2.0, 2 * undisturbed[0])
        print(f"{len(traffic.waits)} requests, longest wait {max(traffic.waits):.2f} s, before {undisturbed[0]:.2f} s")
        assert await asyncio.to_thread(first.wait, LIMIT_S) == 0


@pytest.mark.slow("a load of seconds, and three starts")
async def test_patch_goes_forward_and_back_with_the_same_state_under_load(path: Path, tmp_path: Path) -> None:
    patch = python_of(copy_of_this_release(tmp_path / "patch", "9.9.9"), tmp_path / "python-patch")
    own = python_of(ROOT, tmp_path / "python-own")
    with restartable(path) as (operator, state):
        traffic = Traffic(operator.gateway.url)
        releases: list[str] = []

        def operate() -> None:
            for python in (patch, own, patch):
                assert restart(state, "--python", python) == 0
                status = httpx.get(f"{operator.gateway.admin_url}/status", trust_env=False).json()
                releases.append(status["release"].split()[0])
                answered = len(traffic.waits)
                eventually(lambda answered=answered: len(traffic.waits) > answered + 10, LIMIT_S)

        await traffic.run(operate)
        assert not traffic.failures, traffic.failures[:3]
        assert releases == ["9.9.9", __version__, "9.9.9"]
    assert main(["audit", "verify", "--state", str(state)]) == 0


@pytest.mark.parametrize("workers", WORKERS)
def test_kept_connection_gets_an_answer_before_it_is_closed(path: Path, workers: int) -> None:
    request = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"
    with restartable(path, workers) as (operator, state):
        host, _, port = operator.gateway.url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), LIMIT_S) as connection:
            connection.sendall(request)
            assert b"connection: close" not in connection.recv(65536)
            first = operator.gateway.process
            assert restart(state) == 0
            assert first.poll() is None
            assert pid_of(state) != first.pid
            assert operator.answered_by() == "a"
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer
        operator.client.close()
        assert first.wait(LIMIT_S) == 0


# --- budgets ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_budgets_hold_exactly_across_a_handover(tmp_path: Path, workers: int) -> None:
    """Three requests hold their costs and run in the old process while the new one admits the rest."""
    budget = with_budget(tokens=HELD_TOKENS * 4 + 20)
    with serving(tmp_path, "ok", budget, workers=workers) as (gateway, meter):
        state = tmp_path / "state"
        eventually(lambda: bool((holder_of(state) or {}).get("restarts")), LIMIT_S)
        try:
            meter.hold("ok")

            async def ask() -> list[int]:
                headers = {"authorization": "Bearer gk-app", "connection": "close"}
                async with httpx.AsyncClient(
                    base_url=gateway.url, headers=headers, trust_env=False, timeout=LIMIT_S
                ) as client:

                    async def one() -> int:
                        return (await client.post(CHAT, json=body(max_tokens=CAP))).status_code

                    held = [asyncio.create_task(one()) for _ in range(3)]
                    await asyncio.to_thread(eventually, lambda: meter.number("ok") == 3, LIMIT_S)
                    assert await asyncio.to_thread(restart, state) == 0
                    more = [asyncio.create_task(one()) for _ in range(4)]
                    refused = []
                    # Of four, one has room in the budget. The others are refused without a call.
                    while len(refused) < 3:
                        done, pending = await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT_S)
                        refused += [task.result() for task in done]
                        more = [*pending]
                    assert refused == [429] * 3
                    await asyncio.to_thread(eventually, lambda: meter.number("ok") == 4, LIMIT_S)
                    meter.release()
                    return [*(await asyncio.gather(*held, *more))]

            assert asyncio.run(ask()) == [200] * 4
        finally:
            end(state)
    assert len(rows_of(tmp_path)) == 4


# --- a next gateway that does not serve -----------------------------------------------------------

CRASHING = "#!/bin/sh\necho 'ModuleNotFoundError: no module' >&2\nexit 3\n"
SECOND_LEDGER = """#!/bin/sh
exec {python} -c 'import sys, gateway.usage.ledger as ledger; ledger.VERSION = 2
from gateway.cli import main
sys.exit(main(sys.argv[sys.argv.index("serve"):]))' "$@"
"""


def script(folder: Path, text: str) -> str:
    path = folder / "python"
    path.write_text(text, "utf-8")
    path.chmod(0o700)
    return str(path)


@pytest.mark.slow("the old one waits for the new one")
@pytest.mark.parametrize("workers", WORKERS)
def test_next_gateway_that_cannot_serve_changes_nothing(
    path: Path, providers: SimulatorThread, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with restartable(path, workers) as (operator, state):
        pid, version = pid_of(state), operator.version()
        attempts = {
            "ended with status 3:\nModuleNotFoundError: no module": script(path.parent, CRASHING),
            "can't be started: No such file or directory": str(path.parent / "missing"),
        }
        for reason, python in attempts.items():
            assert restart(state, "--python", python) == 1
            assert reason in capsys.readouterr().err
        python = script(path.parent, SECOND_LEDGER.format(python=sys.executable))
        assert restart(state, "--python", python) == 1
        assert "ledger.db has layout 1 and would get 2; the running gateway could not" in (
            reason := capsys.readouterr().err
        )
        assert reason.endswith(": stop and start\n")
        operator.replace("version: 1\nassistents: {}\n")
        assert restart(state) == 1
        assert "assistents" in capsys.readouterr().err
        assert (pid_of(state), operator.version()) == (pid, version)
        # The running gateway records changes and moves usage rows again.
        operator.replace(config(providers, "a", 1, SLOW))
        operator.wait_for_another(version)
        operator.client.post(CHAT, json=body()).raise_for_status()
        assert main(["audit", "verify", "--state", str(state)]) == 0
        assert restart(state) == 0
        assert pid_of(state) != pid


def test_restart_without_a_gateway_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restart(tmp_path) == 2
    assert f"no gateway runs with {tmp_path}" in capsys.readouterr().err


# --- signals and the service manager --------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_service_manager_gets_the_process_that_serves(path: Path, workers: int) -> None:
    manager = Manager()
    with restartable(path, workers, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="10000000") as (operator, state):
        first = operator.gateway.process
        os.kill(first.pid, signal.SIGUSR2)
        eventually(lambda: any("MAINPID" in message for message in manager.told), LIMIT_S)
        eventually(lambda: manager.has_been_told("READY=1", 2), LIMIT_S)
        messages = [message for message in manager.told if message != "WATCHDOG=1"]
        assert messages[1] == f"MAINPID={pid_of(state)}"
        assert messages[2].splitlines()[0] == "READY=1"
        assert "WATCHDOG=1" in messages[2].splitlines()
        operator.client.close()
        assert first.wait(LIMIT_S) == 0
        end(state)
        assert [message for message in manager.told if message != "WATCHDOG=1"][-1].startswith("STOPPING=1")
        assert not any("STOPPING" in message for message in messages)


def test_gateway_without_a_state_directory_hands_over_at_the_signal(path: Path) -> None:
    with operated(path) as operator:
        first = operator.gateway
        os.kill(first.process.pid, signal.SIGUSR2)
        done = first.wait_for("handed_over")
        operator.reconnect()
        try:
            assert first.process.wait(LIMIT_S) == 0
            assert operator.answered_by() == "a"
        finally:
            os.kill(done["to"], signal.SIGTERM)


@pytest.mark.slow("starts demos")
def test_next_gateway_serves_the_console_at_the_same_address(path: Path) -> None:
    token = "a token of sixteen characters"
    with restartable(path, GATEWAY_CONSOLE_PORT="0", GATEWAY_ADMIN_TOKEN=token) as (operator, state):
        before = ConsoleClient(operator.gateway.console_url)
        assert before.sign_in(token).status_code == 303
        assert restart(state) == 0
        after = ConsoleClient(operator.gateway.console_url)
        eventually(lambda: after.sign_in(token).status_code == 303, LIMIT_S)
        assert after.get("/changes").status_code == 200


# --- a cell ---------------------------------------------------------------------------------------


@pytest.mark.slow("starts stores and gateways")
def test_instance_of_a_cell_stays_its_member_across_a_handover(tmp_path: Path) -> None:
    def status(both: Cell) -> Any:
        words = "status", "--admin", both.instances[0].admin_url, "--json"
        return json.loads(run_command(environ_of(both.path, 0), *words)[1])

    with running_postgres() as postgres:
        upgrade(postgres.address())
        releases: list[set[str]] = []
        with cell(tmp_path, postgres, "log: {sample: 0.5}") as both:
            state, first = both.state(0), both.instances[0]
            eventually(lambda: bool((holder_of(state) or {}).get("restarts")), LIMIT_S)
            try:
                assert both.ask(0).status_code == 200
                assert restart(state) == 0, first.lines
                assert first.process.wait(LIMIT_S) == 0
                assert both.ask(0).status_code == 200
                before = status(both)
                assert [item["state"] for item in before["instances"]] == ["current"] * 2
                eventually(lambda: len(both.rows()) == 2, LIMIT_S)
                both.path.write_text(both.path.read_text().replace("0.5", "0.25"))
                eventually(lambda: status(both)["version"] != before["version"], LIMIT_S)
                both.run("rollback", before["version"], "--as", "ada")
                assert restart(state) == 0, first.lines
                assert status(both)["version"] == before["version"]
                assert "as they were written" in both.run("audit", "verify")
                # A cell with two releases at once, and back.
                patch = copy_of_this_release(tmp_path / "patch", "9.9.9")
                for source in (patch, ROOT):
                    assert restart(state, "--python", python_of(source, tmp_path / "python")) == 0, first.lines
                    shown = status(both)
                    assert [it["state"] for it in shown["instances"]] == ["current"] * 2
                    releases.append({it["release"].split()[0] for it in shown["instances"]})
                    assert [both.ask(number).status_code for number in (0, 1)] == [200, 200]
                assert releases == [{__version__, "9.9.9"}, {__version__}]
                eventually(lambda: len(both.rows()) == 6, LIMIT_S)
            finally:
                end(state)
