"""Rebuild the counters of the gate on Valkey, after the server has lost data or may have.

Theory of operation. An epoch belongs to one run of the Valkey server. When a process finds no epoch, or one of another
run, it begins a new one in the state `building`, in which requests with a budget are refused. Then, in PostgreSQL:

    shipped   each process reports that all rows of its machine are in the ledger
    built     one process reads what was spent in each window from the ledger, and sets the counters
    adopted   each process counts its open calls, except those whose rows the counters contain already
    ready     all have adopted: requests with a budget are decided again

A process that gave no sign of life for 30 seconds is not waited for. Open calls are settled only after they were
adopted, so no cost is lost, and none is counted twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import tzinfo

from gateway.cell.postgres import EPOCH_LOCK, Postgres, PostgresConnection, connect, postgres_errors, schema_number
from gateway.cell.postgres_schema import check_schema
from gateway.cell.valkey_connection import ValkeyUnavailable
from gateway.cell.valkey_gate import SILENT_S, ValkeyGate
from gateway.cell.valkey_scripts import BUILDING, MOVE_EPOCH, READY
from gateway.model.budget import StoreServer, Window
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import StateError
from gateway.tasks import stopped
from gateway.usage.gate import GateUnavailable
from gateway.usage.ledger import READ, Ledger, read_row
from gateway.usage.lost_call import Used
from gateway.usage.quotas import QuotaLimit, row_parts
from gateway.usage.usage_row import CallOutcome, UsageRow
from gateway.usage.windows import bounds

_STEP_S = 0.2
_SIGN_OF_LIFE_S = 5.0
_FORGOTTEN_S = 3600.0
_RECENT_S = 300.0
_COUNTED_S = 2.0
_AT_ONCE = 100
_NEW, _SHIPPED, _ADOPTED = "new", "shipped", "adopted"

_NOW_US = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


@dataclass(eq=False, repr=False)
class EpochKeeper:
    """Keeps one gate in the epoch of its cell, from `start` to `close`.

    Args:
        instance: The name of this instance, whose spool positions show what is shipped.
        unshipped: Returns whether rows of this machine are not in the ledger. It may read files.
        zone: Returns the time zone of windows (`usage.timezone`).
        config: Returns the active config version, whose quotas are rebuilt, or None without quotas.

    Attributes:
        is_ready: Set when the counters of budgets were complete for the first time.
        problem: Why the database could not be used last, or None.
    """

    _gate: ValkeyGate
    _server: StoreServer
    _instance: str
    _unshipped: Callable[[], bool]
    _zone: Callable[[], tzinfo]
    _config: Callable[[], ConfigVersion] | None = None
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    _connection: PostgresConnection | None = None
    _phase: str = _NEW
    problem: str | None = None
    _signed_at: float = 0.0
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Stop. The process is not waited for any more, unless it leaves open calls."""
        await stopped(self._task)
        if self._connection is not None and not self._gate.open_calls:
            with suppress(StateError):
                await self._execute("DELETE FROM gate_owner WHERE owner = $1", self._gate.owner)
        self._drop()

    async def count_instances(self) -> None:
        """Count the instances by their signs of life in the database, for a start without Valkey."""
        with suppress(StateError, TimeoutError):
            async with asyncio.timeout(_COUNTED_S):
                connection = await connect(self._server)
                try:
                    with postgres_errors():
                        others = await connection.fetchval(
                            "SELECT count(DISTINCT split_part(owner, '/', 1)) FROM gate_owner "  # noqa: S608
                            f"WHERE seen_us > {_NOW_US} - $1 AND split_part(owner, '/', 1) <> $2",
                            int(_RECENT_S * 1_000_000),
                            self._gate.owner.partition("/")[0],
                        )
                    self._gate.saw(others + 1)
                finally:
                    connection.terminate()

    async def _keep(self) -> None:
        while True:
            try:
                await self._advance()
                self.problem = None
            except (GateUnavailable, ValkeyUnavailable, StateError) as error:
                self._drop()
                # A moment without Valkey is usual after its restart, and reported by the gate itself.
                if isinstance(error, StateError):
                    self.problem = str(error)
            gate = self._gate
            is_settled = gate.epoch is not None and gate.is_ready and gate.has_adopted and not gate.epoch_ended.is_set()
            wait_s = _SIGN_OF_LIFE_S if is_settled and not self.problem else _STEP_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._gate.epoch_ended.wait()
                    await asyncio.sleep(_STEP_S)

    async def _advance(self) -> None:
        """Do what can be done now for the present epoch."""
        gate = self._gate
        if not gate.connection.is_connected:
            return
        epoch, state = await self._present_epoch()
        if epoch != gate.epoch:
            self._phase = _NEW
        gate.enter(epoch, is_ready=state == READY)
        if state == READY:
            self.is_ready.set()
        if state == READY and gate.has_adopted:
            await self._sign(epoch, _ADOPTED)
            return
        if self._phase == _NEW and (state == READY or not await asyncio.to_thread(self._unshipped)):
            self._phase = _SHIPPED
        await self._sign(epoch, self._phase, at_once=True)
        last_row = await self._last_row(epoch)
        if last_row is None and self._phase == _SHIPPED and await self._all_have(epoch, _SHIPPED):
            last_row = await self._build(epoch)
        if last_row is not None and self._phase == _SHIPPED:
            await gate.adopt_open_calls(await self._counted(last_row))
            self._phase = _ADOPTED
            await self._sign(epoch, _ADOPTED, at_once=True)
        if state == BUILDING and self._phase == _ADOPTED and await self._all_have(epoch, _ADOPTED):
            await self._move(f"{epoch}|{BUILDING}", f"{epoch}|{READY}")
            gate.enter(epoch, is_ready=True)
            self.is_ready.set()

    async def _present_epoch(self) -> tuple[str, str]:
        """Return the id of the epoch with its run, and its state. Begin a new one if it is of another run."""
        gate = self._gate
        stored = await gate.connection.call("GET", gate.epoch_key)
        value = stored.decode() if isinstance(stored, bytes) else ""
        epoch, _, state = value.rpartition("|")
        if not epoch.endswith(f"|{gate.run}"):
            value = await self._move(value, f"{secrets.token_hex(8)}|{gate.run}|{BUILDING}")
            epoch, _, state = value.rpartition("|")
        return epoch, state

    async def _move(self, before: str, after: str) -> str:
        value = await self._gate.connection.run(MOVE_EPOCH, (self._gate.epoch_key,), before, after)
        return value.decode() if isinstance(value, bytes) else ""

    async def _sign(self, epoch: str, phase: str, *, at_once: bool = False) -> None:
        """Give a sign of life in the database."""
        now_s = asyncio.get_running_loop().time()
        if not at_once and now_s - self._signed_at < _SIGN_OF_LIFE_S / 2:
            return
        await self._execute(
            f"INSERT INTO gate_owner (owner, epoch, phase, seen_us) VALUES ($1, $2, $3, {_NOW_US}) "  # noqa: S608
            "ON CONFLICT (owner) DO UPDATE SET epoch = excluded.epoch, phase = excluded.phase, "
            "seen_us = excluded.seen_us",
            self._gate.owner,
            epoch,
            phase,
        )
        self._signed_at = now_s

    async def _all_have(self, epoch: str, phase: str) -> bool:
        """Return whether every process that is not silent has reached a phase of this epoch."""
        sql = f"SELECT epoch, phase FROM gate_owner WHERE seen_us > {_NOW_US} - $1"  # noqa: S608
        found = await self._fetch(sql, int(SILENT_S * 1_000_000))
        enough = (_SHIPPED, _ADOPTED) if phase == _SHIPPED else (_ADOPTED,)
        return all(its_epoch == epoch and its_phase in enough for its_epoch, its_phase in found)

    async def _last_row(self, epoch: str) -> int | None:
        found = await self._fetch("SELECT last_row FROM gate_epoch WHERE epoch = $1", epoch)
        return int(str(found[0][0])) if found else None

    async def _counted(self, last_row: int) -> dict[str, Used | None]:
        """Return the open calls of this process whose rows are in the counters, with the charge of a lost call."""
        lines = await self._fetch(
            f"SELECT usage_row.number, {READ} FROM usage_row JOIN series ON series.number = usage_row.series "  # noqa: S608
            "WHERE call_id = ANY($1) AND usage_row.number <= $2",
            list(self._gate.open_calls),
            last_row,
        )
        return {row.call: _charge_if_lost(row) for row in map(read_row, lines)}

    async def _build(self, epoch: str) -> int | None:
        """Set all counters from the ledger. Return the last row that they contain, or None if another process does."""
        connection = await self._connected()
        with postgres_errors():
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", EPOCH_LOCK):
                return None
        # The lock ends with the connection if this fails.
        if (last_row := await self._last_row(epoch)) is None:
            with postgres_errors():
                now_us = await connection.fetchval(f"SELECT {_NOW_US}")
                windows = {window: bounds(window, now_us * 1000, self._zone()) for window in Window}
            with closing(Ledger(Postgres(self._server), self._zone)) as ledger:
                config = self._config() if self._config is not None else None
                last_row, found = await asyncio.to_thread(ledger.sum_up, windows, config, now_us * 1000)
            for start in range(0, len(found), _AT_ONCE):
                some = found[start : start + _AT_ONCE]
                await asyncio.gather(
                    *(
                        self._gate.set_numbers(
                            one, one.calendar.at(now_us * 1000) if isinstance(one, QuotaLimit) else windows, *numbers
                        )
                        for one, *numbers in some
                    )
                )
            with postgres_errors():
                await connection.execute("DELETE FROM gate_epoch")
                await connection.execute("INSERT INTO gate_epoch (epoch, last_row) VALUES ($1, $2)", epoch, last_row)
                sql = f"DELETE FROM gate_owner WHERE seen_us < {_NOW_US} - $1"  # noqa: S608
                await connection.execute(sql, int(_FORGOTTEN_S * 1_000_000))
        with postgres_errors():
            await connection.execute("SELECT pg_advisory_unlock($1)", EPOCH_LOCK)
        return last_row

    # The database.

    async def _connected(self) -> PostgresConnection:
        if self._connection is None or self._connection.is_closed():
            connection = await connect(self._server)
            self._connection = connection
            with postgres_errors():
                check_schema(await schema_number(connection))
        return self._connection

    async def _fetch(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        connection = await self._connected()
        with postgres_errors():
            return [tuple(line) for line in await connection.fetch(statement, *values)]

    async def _execute(self, statement: str, *values: object) -> None:
        connection = await self._connected()
        with postgres_errors():
            await connection.execute(statement, *values)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _charge_if_lost(row: UsageRow) -> Used | None:
    own_nano = row.amount_nano or 0
    return (row.total_tokens, own_nano, row_parts(row, own_nano)) if row.outcome is CallOutcome.LOST else None
