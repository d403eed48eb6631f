"""Kill, stop, cut off and empty the parts of a cell under load, and judge its history: `make chaos-cell`.

`python -m tests.chaos.cell --seconds 120 --seed 1`. The seed decides the faults and the load. It needs root for network
namespaces, and is skipped with the reason without them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from gateway.model.refusal_reason import STATUS
from providers.value import replace
from tests.architecture.source_tree import ROOT
from tests.chaos.cell_faults import CUTTING, FAULTS, LOSING, MISSED, TARGETS, stores_of
from tests.chaos.cell_history import (
    FOLLOWED_S,
    MADE,
    RECOVERY_S,
    RULES,
    UNCERTAIN,
    Answer,
    Command,
    Fault,
    History,
    KeyChange,
    Lease,
    Look,
    Row,
    every_call_has_one_row,
    longest_recovery_s,
    violations,
)
from tests.chaos.cell_plants import PLANTS, planted_copy
from tests.chaos.cell_world import (
    ASKS,
    CRIED,
    INSTANCES,
    LEAKY,
    LIMITS,
    NEEDS_VALKEY,
    SENDERS,
    CellWorld,
    cell_world,
    enter,
    key_of,
    why_not,
)
from tests.kit.audio import silent_wav
from tests.kit.chat_http import CHAT, body
from tests.kit.store_cell import environ_of, run_command
from tests.kit.waiting import eventually

__all__ = ["CellRun", "main", "run"]

_TLS = ssl.create_default_context()
_PACE_S = 0.5
_TURNS = 150
"""So many requests of a child are those of one user, whose day is over by then."""
_LOOKS_S = 3.0
_COMMANDS_S = 15.0
_FAULTS_S = (1.0, 3.0, 8.0, 36.0)
_SETTLE_S = 60.0
_PAUSE_S = RECOVERY_S + 3
_QUIET_S = RECOVERY_S + FOLLOWED_S + 2 * _LOOKS_S
"""A run ends with so much time without a fault and a command, so that each rule has a moment to judge."""


class CellRun:
    """One run: the world, and what was seen of it."""

    def __init__(self, world: CellWorld, seed: int) -> None:
        self.world = world
        self.draw, self.rounds = random.Random(seed), rounds(seed)
        self.ends_s = 0.0
        self.answers: list[Answer] = []
        self.faults: list[Fault] = []
        self.commands: list[Command] = []
        self.made: list[KeyChange] = []
        self.blocks: list[KeyChange] = []
        self.looks: list[Look] = []
        self.leases: list[Lease] = []
        self.alone: set[float] = set()
        self.file = asyncio.Lock()  # a release is refused while the file has an unsigned change

    # --- load -------------------------------------------------------------------------------------

    async def send_load(self, client: str, number: int) -> None:
        """Send requests of a client, each when the last one has ended."""
        draw = random.Random(f"{client} {self.draw.random()}")
        while time.time() < self.ends_s:
            number += 1
            await self._ask(client, f"{client}-{number:05}", draw.choice(ASKS[client]), f"user-{number // _TURNS}")
            await asyncio.sleep(_PACE_S * (0.5 + draw.random()))

    async def _ask(self, client: str, request: str, kind: str, user: str) -> None:
        began_s, agreed_s, status, code = time.time(), inf, 0, ""
        # The newest key, and as often the previous one.
        key = self.draw.choice(self.made[-2:]).key if client == MADE and self.made else key_of(client)
        headers = {"authorization": f"Bearer {key}", "x-request-id": request}
        if client in ("child", "user"):
            # A budget of users is one user's, so that it is spent.
            headers["x-gateway-user"] = user if client == "child" else client
        # Each request has a connection of its own, so that the balancer chooses an instance for it.
        with suppress(httpx.HTTPError, TimeoutError, ValueError, OSError, WebSocketException):
            async with asyncio.timeout(LIMITS.limit_s - 1):
                send = _turn if kind == "turn" else _post
                status, code = await send(self.world.front.url, kind, request, headers)
                if kind == "agree" and status == 403:
                    agreed_s = time.time()
                    headers["x-gateway-consent"] = code
                    status, code = await send(self.world.front.url, kind, request, headers)
        ended_s = time.time()
        needs = client in NEEDS_VALKEY
        child = user if client == "child" else ""
        self.answers.append(Answer(request, client, key, began_s, ended_s, status, code, needs, child, kind, agreed_s))

    # --- operators and observers ------------------------------------------------------------------

    async def operate(self, versions: tuple[str, str]) -> None:
        """Roll back and release in turn, each time on some instance."""
        while time.time() < self.ends_s - _QUIET_S - _COMMANDS_S:
            await asyncio.sleep(_COMMANDS_S * (0.5 + self.draw.random()))
            one = self.world.instances[self.draw.choice(INSTANCES)]
            report = await asyncio.to_thread(one.ask, "/readyz")
            if report is None:
                continue
            is_pinned = bool(report.get("rollback_pinned"))
            content = {"release": True} if is_pinned else {"version": versions[0]}
            async with self.file:
                done, given_s = await asyncio.to_thread(one.ask, "/rollback", content), time.time()
                await asyncio.sleep(2 * FOLLOWED_S)
            if done is None:  # it may have been done all the same, or will be when the instance goes on
                self.commands.append(Command(given_s, UNCERTAIN))
                report = None
                while report is None:
                    await asyncio.sleep(RECOVERY_S)
                    report = await asyncio.to_thread(one.ask, "/readyz")
                await asyncio.sleep(RECOVERY_S)
            elif done.get("result") == "activated":
                self.commands.append(Command(given_s, "" if is_pinned else versions[0]))

    async def block_key(self, client: str) -> None:
        """Block the key of a client in the middle of the run. The command is repeated while a store is away."""
        await asyncio.sleep((self.ends_s - time.time()) * self.draw.uniform(0.2, 0.6))
        named = self.world.key_ids[client]
        while time.time() < self.ends_s:
            one = self.world.instances[self.draw.choice(INSTANCES)]
            done = await asyncio.to_thread(one.ask, f"/v1/admin/keys/{named}/block", {})
            if done is not None and "error" not in done:
                self.blocks.append(KeyChange(key_of(client), time.time(), named))
                return
            await asyncio.sleep(_LOOKS_S)

    async def make_keys(self) -> None:
        """Make a key and replace it in turn, each time on some instance."""
        replaced = None
        while time.time() < self.ends_s:
            path = f"/v1/admin/keys/{replaced.named}/rotate" if replaced else "/v1/admin/keys"
            content = {"grace": "0s"} if replaced else {"client": MADE}
            one = self.world.instances[self.draw.choice(INSTANCES)]
            done = await asyncio.to_thread(one.ask, path, content)
            is_done = done is not None and "key" in done
            if is_done and replaced is not None:
                self.blocks.append(replace(replaced, at_s=time.time()))
            if replaced is not None and not is_done:
                # It may have been done all the same: nothing is certain of this key.
                self.made.remove(replaced)
            replaced = None
            if is_done:
                self.made.append(KeyChange(done["key"], time.time(), done["id"]))
                replaced = self.made[-1] if path.endswith("keys") else None
            await asyncio.sleep(_COMMANDS_S * self.draw.random())

    async def look(self) -> None:
        """Look at the status of each instance, and at the judge of the canary."""
        while time.time() < self.ends_s:
            await asyncio.gather(*(asyncio.to_thread(self._look_at, name) for name in INSTANCES))
            await asyncio.to_thread(self._look_at_judge)
            await asyncio.sleep(_LOOKS_S)

    def _look_at(self, name: str) -> None:
        report = self.world.instances[name].ask("/readyz")
        if report is not None:
            lost = frozenset(store for store, state in report.get("stores", {}).items() if state != "ok")
            version = str(report.get("config_version", {}).get("version")).partition("+")[0]
            self.looks.append(Look(time.time(), name, lost, str(report.get("rollback_pinned") or ""), version))

    async def look_at_gates(self) -> None:
        """Note when an instance has decided without Valkey, as its journal keeps it for at least a second."""
        while time.time() < self.ends_s:
            for one in self.world.instances.values():
                with suppress(OSError):
                    self.alone.add((one.state / "journal" / "last-failure").stat().st_ctime)
            await asyncio.sleep(_PACE_S)

    def _look_at_judge(self) -> None:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            for holder, epoch in self.world.database.sql("SELECT holder, epoch FROM cell_lease WHERE name = 'judge'"):
                self.leases.append(Lease(time.time(), str(holder), int(str(epoch))))

    # --- nemesis ----------------------------------------------------------------------------------

    async def inflict(self) -> None:
        """Inflict one fault after the other, or two at a time, with a pause in which all has to recover."""
        for faults, lasts_s in self.rounds:
            await asyncio.sleep(_PAUSE_S)
            left_s = self.ends_s - time.time() - _QUIET_S
            if left_s < _FAULTS_S[0]:
                return
            await self._tamper()
            lasting = (self._inflict(kind, target, min(left_s, lasts_s)) for kind, target in faults)
            await asyncio.gather(*lasting)

    async def _inflict(self, kind: str, target: str, lasts_s: float) -> None:
        began_s = time.time()
        print(f"{kind} {target} for {lasts_s:.0f} s", file=sys.stderr, flush=True)
        await asyncio.to_thread(FAULTS[kind], self.world, target, lasts_s)
        cuts = kind in CUTTING and target in INSTANCES
        for store in stores_of(target) or (MISSED.get(kind, ""),):
            self.faults.append(Fault(kind, target, began_s, time.time(), store, cuts, kind in LOSING))

    async def _tamper(self) -> None:
        """Plan a change of the protected region, reload it without a signature, and take it back."""
        async with self.file:
            signed = self.world.path.read_text("utf-8")
            self.world.path.write_text(signed.replace('["US", "DE"]', '["US", "DE", "FR"]'), "utf-8")
            one = self.world.instances[self.draw.choice(INSTANCES)]
            await asyncio.to_thread(one.ask, "/v1/admin/plan", {"text": self.world.path.read_text("utf-8")})
            await asyncio.to_thread(one.ask, "/reload", {})
            await asyncio.sleep(_LOOKS_S)
            self.world.path.write_text(signed, "utf-8")

    # --- the end ----------------------------------------------------------------------------------

    def history(self, versions: tuple[str, str], trails: tuple[str, ...]) -> History:
        """Return all that was seen, when the rows have settled."""
        with suppress(AssertionError):  # the checker reports which are missing
            eventually(lambda: not any(every_call_has_one_row(self._seen(versions, trails))), _SETTLE_S)
        return self._seen(versions, trails)

    def _seen(self, versions: tuple[str, str], trails: tuple[str, ...]) -> History:
        return replace(
            LIMITS,
            answers=tuple(self.answers), calls=tuple(self.world.calls.values()), rows=tuple(self._rows()),
            faults=tuple(self.faults), commands=tuple(self.commands), blocks=tuple(self.blocks), looks=tuple(self.looks),
            leases=tuple(self.leases), trails=trails, alone=frozenset(self.alone), signed=frozenset(versions),
            made=tuple(self.made), audited=frozenset(self._audited()),
        )  # fmt: skip

    def _audited(self) -> Iterator[str]:
        for one in self.world.instances.values():
            for line in (one.state / "audit.jsonl").read_text("utf-8").splitlines():
                yield from map(str, json.loads(line).values())

    def _rows(self) -> list[Row]:
        found = self.world.database.sql(
            "SELECT call_id, coalesce(request_id, ''), client, coalesce(outcome, ''), coalesce(amount_nano, 0) "
            "FROM usage_row JOIN series ON series = series.number"
        )
        return [Row(str(row[0]), str(row[1]), str(row[2]), str(row[3]), int(str(row[4]))) for row in found]


def rounds(seed: int) -> Iterator[tuple[list[tuple[str, str]], float]]:
    """Yield the faults of each round, one or two of different parts, and how long they last."""
    draw = random.Random(seed)
    while True:
        kinds = draw.sample(list(FAULTS), draw.choice((1, 1, 2)))
        kinds = ["update"] if "update" in kinds else kinds  # it may take all instances
        found = {target.partition("-")[0]: (kind, target) for kind in kinds for target in (draw.choice(TARGETS[kind]),)}
        yield list(found.values()), draw.choice(_FAULTS_S)


def _chat(request: str, **more: Any) -> Mapping[str, Any]:
    return {"json": body(messages=[{"role": "user", "content": request}], max_tokens=20, **more)}


_WAV = silent_wav(0.1)
_POSTED: Mapping[str, tuple[str, Callable[[str], Mapping[str, Any]]]] = {
    "chat": (CHAT, _chat),
    "cry": (CHAT, lambda request: _chat(f"{request} {CRIED}")),
    "agree": (CHAT, _chat),
    "stream": (CHAT, partial(_chat, stream=True)),
    "embed": ("/v1/embeddings", lambda request: {"json": {"model": "assistant", "input": request}}),
    "split": ("/v1/embeddings", lambda request: {"json": {"model": "assistant", "input": [request] * 300}}),
    "hear": (
        "/v1/audio/transcriptions",
        lambda request: {"data": {"model": "assistant", "prompt": request}, "files": {"file": ("a.wav", _WAV)}},
    ),
}
"""The path of each kind of request, and its content by its name."""


async def _post(url: str, kind: str, request: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Send a request, and return the status of its answer with the code of its error, or the token for a consent."""
    path, content = _POSTED[kind]
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=LIMITS.limit_s, verify=_TLS) as http:
        answer = await http.post(path, headers=headers, **content(request))
    if answer.status_code != 200:
        with suppress(ValueError, KeyError, TypeError):
            error = answer.json()["error"]
            return answer.status_code, str(error["consent"]["token"] if "consent" in error else error["code"])
        return answer.status_code, ""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return 200 if answer.json() else 0, answer.headers.get("x-gateway-crisis", "")
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    if errors := [json.loads(event)["error"] for event in events if event.startswith('{"error"')]:
        return STATUS.get(errors[0]["code"], 0), str(errors[0]["code"])
    return (200, "") if events[-1:] == ["[DONE]"] else (0, "")  # a stream without its end


async def _turn(url: str, _: str, request: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Ask for one turn over WebSocket."""
    wanted = {
        "type": "response.create", "model": "assistant", "input": request, "max_output_tokens": 20,
        "x_gateway": {"headers": {"x-request-id": request}},
    }  # fmt: skip
    try:
        async with connect(f"{url.replace('http', 'ws', 1)}/v1/responses", additional_headers=headers) as turns:
            await turns.send(json.dumps(wanted))
            async for message in turns:
                event = json.loads(message)
                if event["type"] == "error":
                    return event["status"], event["error"]["code"]
                if event["type"] in ("response.completed", "response.incomplete", "response.failed"):
                    return (200, "") if event["type"] != "response.failed" else (0, "")
    except InvalidStatus as refused:
        with suppress(ValueError, KeyError, TypeError):
            return refused.response.status_code, str(json.loads(refused.response.body or b"")["error"]["code"])
        return refused.response.status_code, ""
    return 0, ""


def _edit(world: CellWorld) -> tuple[str, str]:
    """Activate a second version by an edit of the file, and return both."""

    def versions() -> set[str]:
        reports = [one.ask("/readyz") or {} for one in world.instances.values()]
        # The suffix is of the shares of the canary.
        return {str(report.get("config_version", {}).get("version")).partition("+")[0] for report in reports}

    [first] = versions()
    world.path.write_text(world.path.read_text("utf-8").replace('"sample": 0.5', '"sample": 0.25'), "utf-8")
    eventually(lambda: len(versions()) == 1 and first not in versions())
    [second] = versions()
    return first, second


async def _run(it: CellRun, seconds: float, versions: tuple[str, str]) -> None:
    it.ends_s = time.time() + seconds
    # The second sender of a client counts on from a number of its own.
    load = (it.send_load(client, 50_000 * (client in SENDERS[:at])) for at, client in enumerate(SENDERS))
    blocks = (it.block_key(client) for client in LEAKY)
    others = (it.make_keys(), it.operate(versions), it.look(), it.look_at_gates(), it.inflict())
    await asyncio.gather(*load, *blocks, *others)


def run(seconds: float, seed: int, plant: str = "", keep: Path | None = None) -> History:
    """Run the cell under faults, and return its history. The process must be in its namespaces."""
    with (
        tempfile.TemporaryDirectory() as directory,
        cell_world(Path(directory), planted_copy(Path(directory), plant) if plant else ROOT) as world,
    ):
        it = CellRun(world, seed)
        versions = _edit(world)
        asyncio.run(_run(it, seconds, versions))
        status, text = run_command(environ_of(world.path, 0), "audit", "verify", "--config", str(world.path))
        for path in Path(directory).glob("*.log") if keep is not None else ():
            shutil.copy(path, keep)
        return it.history(versions, () if status == 0 else (text,))


def report(history: History, seed: int) -> str:
    """Return the result as text."""
    found = violations(history)
    kinds = Counter(fault.kind for fault in history.faults)
    lines = [
        f"seed {seed}: {len(history.answers):,} requests, {len(history.calls):,} calls, {len(history.rows):,} rows, "
        f"{len(history.commands)} commands, {len(history.made)} made and {len(history.blocks)} ended keys",
        f"faults survived: {', '.join(f'{kind} {number}' for kind, number in sorted(kinds.items()))}",
        f"longest recovery: {longest_recovery_s(history):.1f} s",
        f"rules: {len(RULES) - len(found)} of {len(RULES)} held",
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
    parser.add_argument("--keep", type=Path, help="copy the logs of the instances into this folder")
    options = parser.parse_args(arguments)
    if reason := why_not():
        print(f"skipped: {reason}")
        return 0
    named = ["--seconds", str(options.seconds), "--seed", str(options.seed)]
    named += [
        word
        for name in ("plant", "keep")
        if getattr(options, name)
        for word in (f"--{name}", str(getattr(options, name)))
    ]
    if (status := enter("tests.chaos.cell", named)) is not None:
        return status
    history = run(options.seconds, options.seed, options.plant or "", options.keep)
    print(report(history, options.seed))
    return 1 if violations(history) else 0


if __name__ == "__main__":
    sys.exit(main())
