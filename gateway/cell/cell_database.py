"""The shared state of the instances of a cell in PostgreSQL: their signs of life, the judge of schedules, and commands.

A lease gives one process of the cell a task, for `LEASE_S` of the server's time. Each new holder has a higher epoch,
and every statement of a task compares it: a process that was paused, and believes that it still has the task, changes
nothing.

All times come from the clock of the server.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, TypeVar

from gateway.cell.postgres import COMMAND_LOCK, Postgres, PostgresConnection, locked
from gateway.model.budget import StoreServer
from gateway.model.schedule import NO_TALLY, ScheduleProgress, Tally
from gateway.model.status import CellInstance, instance_state
from gateway.state.schedules import decode_progress, decode_tally, encode_progress
from providers.value import Value

LEASE_S = 10.0
JUDGE = "judge"
"""The lease of the process that decides the stages of canary schedules."""

_COMMAND_S = 3.0
_OVERLAP_S = 60.0
"""A row that was changed before a look may become visible after it."""
_FORGOTTEN_S = 3600.0
LAST = "least(at_s, received_at) DESC, number DESC"
"""The order of activations, the last first. A clock that is ahead does not make one the last for ever."""

_COMMANDS = "SELECT number, action, version, who, signature, owner, noted_at FROM cell_command"
_LAST_PIN, _LAST_FIRST = f"{_COMMANDS} WHERE action <> 'reload'", "ORDER BY number DESC LIMIT 1"
_NOW_S = "extract(epoch FROM clock_timestamp())::double precision"
_T = TypeVar("_T")


class ScheduleKey(NamedTuple):
    """A schedule: its route, and the identity of its text and candidate."""

    assistant: str
    region: str
    identity: str


class ScheduleRow(Value, frozen=True):
    """The progress of a schedule under a config version. A change names the revision that it follows."""

    version: str
    key: ScheduleKey
    progress: ScheduleProgress
    revision: int = 0
    changed_at: float = 0.0


class CellCommand(Value, frozen=True):
    """A change that an operator requested for all instances: `rollback` (to a version), `release` or `reload`.

    The owner is the process that has executed it already. `noted_s` is its time by the clock of the server.
    """

    number: int
    action: str
    version: str
    who: str
    signature: str
    owner: str
    noted_s: float


class Sign(Value, frozen=True):
    """The report of an instance about itself. `version` has no suffix for its shares."""

    name: str
    version: str
    release: str
    since: str
    is_draining: bool
    rows_waiting: int | None


class CellDatabase:
    """The shared tables, for one process (`owner`) of an instance. It connects when it is first used.

    Methods raise StateError.
    """

    def __init__(self, server: StoreServer, instance: str) -> None:
        self.instance = instance
        self.owner = f"{instance}/{secrets.token_hex(8)}"
        self._database = Postgres(server, command_s=_COMMAND_S)
        self._one_at_a_time = threading.Lock()

    @property
    def connections(self) -> int:
        """How many connections were made. Each one may reach another database, such as a restored backup."""
        return self._database.connections

    def close(self) -> None:
        """Close the connection."""
        with self._one_at_a_time:
            self._database.close()

    def run(self, operation: Callable[[PostgresConnection], Coroutine[Any, Any, _T]]) -> _T:
        """Run an operation on the connection."""
        with self._one_at_a_time:
            return self._database.run(operation)

    def fetch(self, sql: str, *values: object) -> list[Any]:
        """Return the rows of one statement."""
        return self.run(lambda connection: connection.fetch(sql, *values))

    def now_s(self) -> float:
        """Return the Unix time of the server."""
        found: float = self.fetch(f"SELECT {_NOW_S}")[0][0]
        return found

    def sign(self, sign: Sign) -> float:
        """Store a sign of life, and return its Unix time by the server. Instances silent for an hour are forgotten."""
        [[seen_s]] = self.fetch(
            "WITH gone AS (DELETE FROM cell_instance WHERE instance <> $1 AND seen_at < "  # noqa: S608  # constants
            f"{_NOW_S} - {_FORGOTTEN_S}) INSERT INTO cell_instance (instance, owner, name, version, release, since, "
            f"is_draining, rows_waiting, seen_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, {_NOW_S}) "
            "ON CONFLICT (instance) DO UPDATE SET owner = excluded.owner, name = excluded.name, "
            "version = excluded.version, release = excluded.release, since = excluded.since, "
            "is_draining = excluded.is_draining, rows_waiting = excluded.rows_waiting, seen_at = excluded.seen_at "
            "RETURNING seen_at",
            self.instance, self.owner, sign.name, sign.version, sign.release, sign.since, sign.is_draining,
            sign.rows_waiting,
        )  # fmt: skip
        return float(seen_s)

    def leave(self) -> None:
        """Give up all leases, and remove the instance from the list, unless another process of it has signed.

        A lease stays with its epoch, because the next holder needs a higher one.
        """
        self.fetch("UPDATE cell_lease SET until = clock_timestamp() WHERE holder = $1", self.owner)
        self.fetch("DELETE FROM cell_instance WHERE owner = $1", self.owner)

    def forget(self, instance: str) -> None:
        """Remove an instance that has ended without leaving from the list."""
        self.fetch("DELETE FROM cell_instance WHERE instance = $1", instance)

    def instances(self) -> tuple[CellInstance, ...]:
        """Return all instances by name, without those that have been silent for an hour."""
        rows = self.fetch(
            f"SELECT cell_instance.*, {_NOW_S} - seen_at AS silent_s, last.version AS last, "  # noqa: S608  # constants
            f"{_NOW_S} - last.received_at AS last_s FROM cell_instance LEFT JOIN (SELECT version, received_at "
            f"FROM cell_activation ORDER BY {LAST} LIMIT 1) AS last ON true "
            f"WHERE {_NOW_S} - seen_at < {_FORGOTTEN_S} ORDER BY name, instance"
        )
        return tuple(
            CellInstance(
                row["name"],
                row["instance"],
                row["version"],
                instance_state(
                    row["silent_s"],
                    is_draining=row["is_draining"],
                    behind_s=0.0 if row["last"] in (None, row["version"]) else row["last_s"],
                ),
                row["since"],
                row["release"],
                row["rows_waiting"],
            )
            for row in rows
        )

    def hold(self, lease: str) -> int | None:
        """Take or renew a lease, and return its epoch. None if another process has it."""
        rows = self.fetch(
            "INSERT INTO cell_lease (name, holder, epoch, until) "  # noqa: S608  # constants
            f"VALUES ($1, $2, 1, clock_timestamp() + interval '{LEASE_S} s') "
            "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until, epoch = "
            "cell_lease.epoch + CASE WHEN cell_lease.holder = excluded.holder AND cell_lease.until > clock_timestamp() "
            "THEN 0 ELSE 1 END "
            "WHERE cell_lease.holder = excluded.holder OR cell_lease.until < clock_timestamp() RETURNING epoch",
            lease, self.owner,
        )  # fmt: skip
        return int(rows[0][0]) if rows else None

    def schedules(self, since_s: float) -> tuple[list[ScheduleRow], float]:
        """Return the schedules that changed since the time of an earlier look, and the time of this one."""
        now_s = self.now_s()
        rows = self.fetch(
            "SELECT version, assistant, region, identity, progress, revision, changed_at FROM cell_schedule "
            "WHERE changed_at >= $1",
            since_s - _OVERLAP_S,
        )
        found = []
        for version, assistant, region, identity, text, revision, changed_at in rows:
            if (progress := decode_progress(text)) is not None:
                key = ScheduleKey(assistant, region, identity)
                found.append(ScheduleRow(version, key, progress, revision, changed_at))
        return found, now_s

    def save_schedule(self, row: ScheduleRow, epoch: int) -> ScheduleRow | None:
        """Store the progress that follows the revision of this row. Return the stored row.

        It returns None, and changes nothing, if the judge has another epoch or another process has written the row.
        """
        saved = self.fetch(
            "INSERT INTO cell_schedule (version, assistant, region, identity, progress, epoch, revision, changed_at) "  # noqa: S608  # constants
            f"SELECT $1, $2, $3, $4, $5, epoch, $6::bigint + 1, {_NOW_S} FROM cell_lease "
            "WHERE name = $7 AND holder = $8 AND epoch = $9 AND until > clock_timestamp() FOR SHARE "
            "ON CONFLICT (version, assistant, region) DO UPDATE SET identity = excluded.identity, "
            "progress = excluded.progress, epoch = excluded.epoch, revision = excluded.revision, "
            "changed_at = excluded.changed_at "
            "WHERE cell_schedule.revision = $6 AND cell_schedule.epoch <= excluded.epoch "
            "RETURNING revision, changed_at",
            row.version, *row.key, encode_progress(row.progress), row.revision, JUDGE, self.owner, epoch,
        )  # fmt: skip
        return ScheduleRow(row.version, row.key, row.progress, *saved[0]) if saved else None

    def stop_schedule(self, row: ScheduleRow) -> None:
        """Store the progress of a schedule that an operator has stopped. No judge overwrites it."""
        self.fetch(
            "INSERT INTO cell_schedule (version, assistant, region, identity, progress, epoch, revision, changed_at) "  # noqa: S608  # constants
            f"VALUES ($1, $2, $3, $4, $5, 0, 1, {_NOW_S}) "
            "ON CONFLICT (version, assistant, region) DO UPDATE SET identity = excluded.identity, "
            "progress = excluded.progress, revision = cell_schedule.revision + 1, changed_at = excluded.changed_at",
            row.version, *row.key, encode_progress(row.progress),
        )  # fmt: skip

    def deliver(self, own: Mapping[ScheduleKey, ScheduleProgress]) -> None:
        """Store the counts of this process in the present stage of each schedule."""
        for key, progress in own.items():
            self.fetch(
                "INSERT INTO cell_count (owner, assistant, region, identity, stage, candidate, baseline) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (owner, assistant, region, identity, stage) "
                "DO UPDATE SET candidate = excluded.candidate, baseline = excluded.baseline",
                self.owner, *key, progress.stage, json.dumps(asdict(progress.candidate)),
                json.dumps(asdict(progress.baseline)),
            )  # fmt: skip

    def counted(self, key: ScheduleKey, stage: int) -> tuple[Tally, Tally]:
        """Return the counts of all processes in a stage: of the candidate, and of the others."""
        rows = self.fetch(
            "SELECT candidate, baseline FROM cell_count "
            "WHERE assistant = $1 AND region = $2 AND identity = $3 AND stage = $4",
            *key, stage,
        )  # fmt: skip
        return _sum_up(row[0] for row in rows), _sum_up(row[1] for row in rows)

    def forget_counts(self, key: ScheduleKey) -> None:
        """Delete the counts of a schedule whose stage has ended. A late delivery for it counts for nothing."""
        self.fetch("DELETE FROM cell_count WHERE assistant = $1 AND region = $2 AND identity = $3", *key)

    def add_command(self, command: CellCommand) -> CellCommand | None:
        """Store a command with its time for the other instances.

        If the cell has a pin of this time or of a later one, nothing is stored, and that pin is returned.
        """

        async def add(connection: PostgresConnection) -> CellCommand | None:
            # With the lock, numbers become visible in their order.
            async with locked(connection, COMMAND_LOCK):
                later = await connection.fetch(f"{_LAST_PIN} AND noted_at >= $1 {_LAST_FIRST}", command.noted_s)
                if later:
                    return CellCommand(*later[0])
                await connection.execute(
                    "INSERT INTO cell_command (action, version, who, signature, owner, noted_at) "
                    "VALUES ($1, $2, $3, $4, $5, $6)",
                    command.action, command.version, command.who, command.signature, command.owner, command.noted_s,
                )  # fmt: skip
            return None

        return self.run(add)

    def commands(self, after: int) -> list[CellCommand]:
        """Return the commands after a number, the oldest first."""
        return [CellCommand(*row) for row in self.fetch(f"{_COMMANDS} WHERE number > $1 ORDER BY number", after)]

    def last_commands(self) -> tuple[int, CellCommand | None]:
        """Return the number of the last command, and the last command that pins or releases a version."""
        rows = self.fetch(f"{_LAST_PIN} {_LAST_FIRST}")
        last = self.fetch("SELECT coalesce(max(number), 0) FROM cell_command")[0][0]
        return int(last), CellCommand(*rows[0]) if rows else None


def _sum_up(texts: Iterable[str]) -> Tally:
    """Return the sum of counts, given as JSON."""
    return sum(map(decode_tally, texts), NO_TALLY)
