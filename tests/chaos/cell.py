"""Kill, stop, cut off and empty the parts of a cell under load, and judge its history: `make chaos-cell`.

`python -m tests.chaos.cell --seconds 120 --seed 1`. The seed decides the faults and the load. It needs root for network
namespaces, and is skipped with the reason without them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx

from tests.architecture.source_tree import ROOT
from tests.chaos.cell_history import (
    FOLLOWED_S,
    RECOVERY_S,
    Answer,
    Block,
    Command,
    Fault,
    History,
    Lease,
    Look,
    Row,
    violations,
)
from tests.chaos.cell_plants import PLANTS, planted_copy
from tests.chaos.cell_world import (
    BOUNDARY,
    CLIENTS,
    INSTANCES,
    POOR_NANO,
    QUOTA_A_MINUTE,
    STORES,
    CellWorld,
    cell_world,
    cut,
    enter,
    heal,
    key_of,
    request_body,
    why_not,
    within,
)
from tests.kit.chat_http import CHAT
from tests.kit.configs import key_hash
from tests.kit.store_cell import environ_of, run_command
from tests.kit.waiting import eventually

__all__ = ["CellRun", "main", "run"]

_LIMIT_S = 20.0
_PACE_S = 0.5
_LOOKS_S = 3.0
_COMMANDS_S = 15.0
_FAULTS_S = (1.0, 3.0, 8.0, 36.0)
_SETTLE_S = 120.0
_PAUSE_S = RECOVERY_S + 3
_QUIET_S = RECOVERY_S + FOLLOWED_S + 2 * _LOOKS_S
"""A run ends with so much time without a fault and a command, so that each rule has a moment to judge."""


class CellRun:
    """One run: the world, and what was seen of it."""

    def __init__(self, world: CellWorld, seed: int) -> None:
        self.world = world
        self.draw = random.Random(seed)
        self.ends_s = 0.0
        self.answers: list[Answer] = []
        self.faults: list[Fault] = []
        self.commands: list[Command] = []
        self.blocks: list[Block] = []
        self.looks: list[Look] = []
        self.leases: list[Lease] = []

    # --- load -------------------------------------------------------------------------------------

    async def send_load(self, client: str) -> None:
        """Send requests of a client, each when the last one has ended."""
        number, draw = 0, random.Random(f"{client} {self.draw.random()}")
        while time.time() < self.ends_s:
            number += 1
            await self._ask(client, f"{client}-{number:05}", stream=draw.random() < 0.5)
            await asyncio.sleep(_PACE_S * (0.5 + draw.random()))

    async def _ask(self, client: str, request: str, *, stream: bool) -> None:
        began_s, status, code = time.time(), 0, ""
        headers = {"authorization": f"Bearer {key_of(client)}", "x-request-id": request}
        # Each request has a connection of its own, so that the balancer chooses an instance for it.
        with suppress(httpx.HTTPError, TimeoutError, ValueError):
            async with (
                asyncio.timeout(_LIMIT_S - 1),
                httpx.AsyncClient(base_url=self.world.front.url, trust_env=False, timeout=_LIMIT_S) as http,
            ):
                answer = await http.post(CHAT, json=request_body(request, stream=stream), headers=headers)
                status, code = _result_of(answer, stream=stream)
        budgeted = "budgets" in CLIENTS[client]
        ended_s = time.time()
        self.answers.append(Answer(request, client, key_of(client), began_s, ended_s, status, code, budgeted))

    # --- operators and observers ------------------------------------------------------------------

    async def operate(self, versions: tuple[str, str]) -> None:
        """Roll back and release in turn, each time on some instance."""
        is_pinned = False
        while time.time() < self.ends_s - _QUIET_S - _COMMANDS_S:
            await asyncio.sleep(_COMMANDS_S * (0.5 + self.draw.random()))
            one = self.world.instances[self.draw.choice(INSTANCES)]
            content = {"release": True} if is_pinned else {"version": versions[0]}
            done = await asyncio.to_thread(one.post, "/rollback", content)
            if done is None:
                # It may have been done all the same: nothing is certain until the next one.
                pinned = await asyncio.to_thread(self._wait_for_pin, one.name)
                is_pinned = bool(pinned)
                self.commands.append(Command(time.time(), pinned))
            elif done.get("result") == "activated":
                is_pinned = not is_pinned
                self.commands.append(Command(time.time(), versions[0] if is_pinned else ""))

    async def block_key(self) -> None:
        """Block the key of one client in the middle of the run. The command is repeated while a store is away."""
        await asyncio.sleep((self.ends_s - time.time()) * self.draw.uniform(0.2, 0.6))
        words = ("keys", "block", key_hash(key_of("leaky")), "--config", str(self.world.path))
        while time.time() < self.ends_s:
            status, _ = await asyncio.to_thread(run_command, environ_of(self.world.path, 0), *words)
            if status == 0:
                self.blocks.append(Block(key_of("leaky"), time.time()))
                return
            await asyncio.sleep(_LOOKS_S)

    def _wait_for_pin(self, name: str) -> str:
        found: list[str] = []

        def is_known() -> bool:
            pinned = self.world.instances[name].pinned()
            found.extend([] if pinned is None else [pinned])
            return bool(found)

        eventually(is_known, _SETTLE_S)
        return found[-1]

    async def look(self) -> None:
        """Look at the status of each instance, and at the judge of the canary."""
        while time.time() < self.ends_s:
            await asyncio.gather(*(asyncio.to_thread(self._look_at, name) for name in INSTANCES))
            await asyncio.to_thread(self._look_at_judge)
            await asyncio.sleep(_LOOKS_S)

    def _look_at(self, name: str) -> None:
        report = self.world.instances[name].ready()
        if report is not None:
            lost = frozenset(store for store, state in report.get("stores", {}).items() if state != "ok")
            self.looks.append(Look(time.time(), name, lost, str(report.get("rollback_pinned") or "")))

    def _look_at_judge(self) -> None:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            for holder, epoch in self.world.database.sql("SELECT holder, epoch FROM cell_lease WHERE name = 'judge'"):
                self.leases.append(Lease(time.time(), str(holder), int(str(epoch))))

    # --- nemesis ----------------------------------------------------------------------------------

    async def inflict(self) -> None:
        """Inflict one fault after the other, or two at a time, with a pause in which all has to recover."""
        while True:
            await asyncio.sleep(_PAUSE_S)
            left_s = self.ends_s - time.time() - _QUIET_S
            if left_s < _FAULTS_S[0]:
                return
            chosen = self.draw.sample(FAULTS, self.draw.choice((1, 1, 2)))
            lasts_s = min(left_s, self.draw.choice(_FAULTS_S))
            targets = {fault: self.draw.random() for fault in chosen}
            taken: set[str] = set()
            await asyncio.gather(*(self._inflict(fault, targets[fault], lasts_s, taken) for fault in chosen))

    async def _inflict(self, fault: Callable[..., object], which: float, lasts_s: float, taken: set[str]) -> None:
        target = TARGETS[fault.__name__][int(which * len(TARGETS[fault.__name__]))]
        if target.partition("-")[0] in taken:
            return
        taken.add(target.partition("-")[0])
        store = next((name for name in STORES if name in target), "")
        began_s = time.time()
        print(f"{fault.__name__} {target} for {lasts_s:.0f} s", file=sys.stderr, flush=True)
        await asyncio.to_thread(fault, self.world, target, lasts_s)
        cuts, loses = target in INSTANCES, fault is restore
        self.faults.append(Fault(fault.__name__, target, began_s, time.time(), store, cuts, loses))

    # --- the end ----------------------------------------------------------------------------------

    def history(self, trails: tuple[str, ...]) -> History:
        """Return all that was seen, when the rows have settled."""
        received = len(self.world.calls)
        with suppress(AssertionError):  # the checker reports which are missing
            eventually(lambda: len(self._rows()) >= received, _SETTLE_S)
        return History(
            answers=tuple(self.answers), calls=tuple(self.world.calls), rows=tuple(self._rows()),
            faults=tuple(self.faults), commands=tuple(self.commands), blocks=tuple(self.blocks), looks=tuple(self.looks),
            leases=tuple(self.leases), trails=trails, budgets={"poor": POOR_NANO},
            quotas={"limited": QUOTA_A_MINUTE}, boundary=BOUNDARY, limit_s=_LIMIT_S,
        )  # fmt: skip

    def _rows(self) -> list[Row]:
        found = self.world.database.sql(
            "SELECT call_id, coalesce(request_id, ''), client, coalesce(outcome, ''), coalesce(amount_nano, 0) "
            "FROM usage_row JOIN series ON series = series.number"
        )
        return [Row(str(row[0]), str(row[1]), str(row[2]), str(row[3]), int(str(row[4]))) for row in found]


def _result_of(answer: httpx.Response, *, stream: bool) -> tuple[int, str]:
    """Return the status of an answer with the code of its error. A stream without its end has the status 0."""
    if answer.status_code != 200:
        with suppress(ValueError, KeyError, TypeError):
            return answer.status_code, str(answer.json()["error"]["code"])
        return answer.status_code, ""
    if not stream:
        return (200, "") if answer.json()["choices"][0]["finish_reason"] == "stop" else (0, "")
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    errors = [json.loads(event)["error"] for event in events if event.startswith('{"error"')]
    if errors:
        from gateway.model.refusal_reason import STATUS

        return STATUS.get(errors[0]["code"], 0), str(errors[0]["code"])
    return (200, "") if events[-1:] == ["[DONE]"] else (0, "")


def kill(world: CellWorld, target: str, lasts_s: float) -> None:
    """Kill a part with `kill -9`, and start it again. A Valkey that was killed is empty."""
    if target in STORES:
        server = world.valkey if target == "valkey" else world.database
        server.kill()
        time.sleep(lasts_s)
        with within(target):
            server.restart()
        return
    world.instances[target].kill()
    time.sleep(min(lasts_s, 5.0))
    world.instances[target].start()
    world.wait_until_ready()


def stop(world: CellWorld, target: str, lasts_s: float) -> None:
    """Stop a part with SIGSTOP, and let it go on."""
    if target in STORES:
        server = world.valkey if target == "valkey" else world.database
        server.freeze()
        time.sleep(lasts_s)
        server.thaw()
        return
    world.instances[target].send(signal.SIGSTOP)
    time.sleep(lasts_s)
    world.instances[target].send(signal.SIGCONT)


def kill_worker(world: CellWorld, target: str, _: float) -> None:
    """Kill one worker of an instance, which starts another one."""
    worker = world.instances[target].worker()
    if worker is not None:
        worker.kill()
    world.wait_until_ready()


def part(world: CellWorld, target: str, lasts_s: float) -> None:
    """Cut an instance off from a store: what it sends, what the store sends, or both."""
    instance, store, way = target.split("-")
    ways = [(instance, store), (store, instance)]
    chosen = {"to": ways[:1], "from": ways[1:], "both": ways}[way]
    for link in chosen:
        cut(*link)
    time.sleep(lasts_s)
    for link in chosen:
        heal(*link)


def restore(world: CellWorld, _: str, lasts_s: float) -> None:
    """Replace the database by a backup of the begin, once in a run, and empty Valkey as the page of stores asks."""
    if (world.database.directory / "standby").exists():
        return
    world.database.tool("pg_basebackup --pgdata standby --checkpoint fast")
    time.sleep(lasts_s)
    world.database.kill()
    with within("database"):
        world.database.continue_as_standby()
    world.valkey.command("FLUSHALL")


FAULTS: tuple[Callable[[CellWorld, str, float], None], ...] = (kill, stop, kill_worker, part, restore)
TARGETS = {
    "kill": (*INSTANCES, *STORES),
    "stop": (*INSTANCES, *STORES),
    "kill_worker": INSTANCES,
    "restore": ("database",),
    "part": tuple(f"{name}-{store}-{way}" for name in INSTANCES for store in STORES for way in ("to", "from", "both")),
}


def _edit(world: CellWorld) -> tuple[str, str]:
    """Activate a second version by an edit of the file, and return both."""

    def versions() -> set[str]:
        reports = [one.ready() or {} for one in world.instances.values()]
        # The suffix is of the shares of the canary.
        return {str(report.get("config_version", {}).get("version")).partition("+")[0] for report in reports}

    [first] = versions()
    world.path.write_text(world.path.read_text("utf-8").replace('"sample": 0.5', '"sample": 0.25'), "utf-8")
    eventually(lambda: len(versions()) == 1 and first not in versions())
    [second] = versions()
    return first, second


async def _run(it: CellRun, seconds: float, versions: tuple[str, str]) -> None:
    it.ends_s = time.time() + seconds
    load = (it.send_load(client) for client in CLIENTS)
    await asyncio.gather(*load, it.operate(versions), it.block_key(), it.look(), it.inflict())


def run(seconds: float, seed: int, plant: str = "") -> History:
    """Run the cell under faults, and return its history. The process must be in its namespaces."""
    with (
        tempfile.TemporaryDirectory() as directory,
        cell_world(Path(directory), planted_copy(Path(directory), plant) if plant else ROOT) as world,
    ):
        it = CellRun(world, seed)
        versions = _edit(world)
        asyncio.run(_run(it, seconds, versions))
        status, text = run_command(environ_of(world.path, 0), "audit", "verify", "--config", str(world.path))
        return it.history(() if status == 0 else (text,))


def report(history: History, seed: int) -> str:
    """Return the result as text."""
    found = violations(history)
    faults = ", ".join(f"{fault.kind} {fault.target}" for fault in history.faults)
    lines = [
        f"seed {seed}: {len(history.answers)} requests, {len(history.calls)} calls, {len(history.rows)} rows, "
        f"{len(history.commands)} commands, {len(history.blocks)} blocked keys, {len(history.faults)} faults: {faults}",
        f"violated rules: {len(found)}",
    ]
    for name, texts in found.items():
        lines += [f"{name}: {len(texts)}", *(f"  {text}" for text in texts[:10])]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 1 if a rule was violated."""
    parser = argparse.ArgumentParser(prog="chaos-cell", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--plant", choices=PLANTS, help="run a copy of the product with this fault, to see it found")
    options = parser.parse_args(arguments)
    if reason := why_not():
        print(f"skipped: {reason}")
        return 0
    named = ["--seconds", str(options.seconds), "--seed", str(options.seed)]
    named += ["--plant", options.plant] if options.plant else []
    if (status := enter("tests.chaos.cell", named)) is not None:
        return status
    history = run(options.seconds, options.seed, options.plant or "")
    print(report(history, options.seed))
    return 1 if violations(history) else 0


if __name__ == "__main__":
    sys.exit(main())
