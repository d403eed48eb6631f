"""The shared stores of a cell for the commands `history`, `status`, `doctor` and `audit verify`.

A command reads the shared database if the config has one: the file of `--config` or `GATEWAY_CONFIG`, or the file that
the last gateway with the state directory served.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli.check_result import CheckResult
from gateway.cli.terminal import compile_file, settings_of, tell
from gateway.clock_skew import store_skew_problem
from gateway.files import path_exists
from gateway.operator_errors import CommandError, StateError
from gateway.settings import Settings

_OK, _REFUSED = 0, 1

if TYPE_CHECKING:
    from gateway.cell.cell_database import CellCommand, CellDatabase
    from gateway.cell.cell_record import CellRecord
    from gateway.model.budget import Stores, StoreServer
    from gateway.model.config_version import ConfigVersion
    from gateway.state.audit import TrailVerdict
    from gateway.state.history import Activation


def stores_of(settings: Settings) -> Stores | None:
    """Return the stores of a config with a shared database, or None. Print a note if the config has errors."""
    from gateway.state.lock import last_config

    path = settings.config
    if "config" not in settings.model_fields_set:
        served = last_config(settings.state_dir) if settings.state_dir is not None else ""
        if not served:
            return None
        path = Path(served)
    if not path_exists(path):
        return None
    try:
        # Most configs have no database, and then the command needs no secrets.
        stores = compile_file(path, resolve_secrets=False).config.stores
    except CommandError:
        tell(f"{path} has errors; if it has `stores.database`, the record of its cell is not read")
        return None
    if stores is None or stores.database is None:
        return None
    return compile_file(path).config.stores


def valkey_state(server: StoreServer, config: ConfigVersion) -> tuple[str | None, float | None]:
    """Return why a gateway of the config cannot use a Valkey, and the own time minus that of Valkey in seconds.

    Raises ImportError if its packages are missing.
    """
    from gateway.cell.valkey_gate import ValkeyGate
    from gateway.installation import cell_name

    async def ask() -> tuple[str | None, float | None]:
        gate = ValkeyGate(server, cell_name(config), "command")
        await gate.connection.start()
        problem, trip = gate.connection.problem, await gate.round_trip()
        await gate.connection.close()
        return problem, trip.skew_s if trip is not None else None

    return asyncio.run(ask())


def checked_stores(stores: Stores, config: ConfigVersion) -> Iterator[CheckResult]:
    """Return what `gateway doctor` finds at the shared stores."""
    skews_s: dict[str, float | None] = {}
    if stores.database is not None:
        try:
            from gateway.cell.postgres import current_schema, skew_of
            from gateway.cell.postgres_schema import check_schema

            check_schema(current_schema(stores.database))
            skews_s["database"] = skew_of(stores.database)
            yield CheckResult("ok", "stores.database", "it answers, and its schema fits")
        except ImportError:
            yield CheckResult("error", "stores.database", "packages are missing", "pip install asyncpg libvalkey")
        except StateError as error:
            yield CheckResult("error", "stores.database", str(error), "gateway db check has the details")
    if stores.valkey is not None:
        try:
            problem, skews_s["valkey"] = valkey_state(stores.valkey, config)
        except ImportError:
            yield CheckResult("error", "stores.valkey", "packages are missing", "pip install asyncpg libvalkey")
            return
        if problem is None:
            yield CheckResult("ok", "stores.valkey", "it answers")
        else:
            yield CheckResult("error", "stores.valkey", problem, "start it, or correct `stores.valkey`")
    if (skew := store_skew_problem(skews_s)) is not None:
        yield CheckResult("error", "clock", skew)


@contextmanager
def opened_cell(settings: Settings) -> Iterator[CellDatabase | None]:
    """Open the shared database of the config, or give None. Raises CommandError, and its use StateError."""
    stores = stores_of(settings)
    if stores is None or stores.database is None:
        yield None
        return
    try:
        from gateway.cell.cell_database import CellDatabase
    except ImportError:
        from gateway.installation import MISSING_PACKAGES

        raise CommandError(MISSING_PACKAGES) from None
    database = CellDatabase(stores.database, "command")
    try:
        yield database
    finally:
        database.close()


def share_pin(
    database: CellDatabase, directory: Path, last: CellCommand | None, version: str, who: str, signature: str | None
) -> None:
    """Share a pin that was recorded in this state directory, or a release without a version. Raises StateError."""
    from gateway.cell.kept_commands import KeptCommands

    commands = KeptCommands(directory, database)
    commands.give("rollback" if version else "release", version, who, signature, last.noted_s if last else 0.0)
    commands.share(last)


def cell_activations(record: CellRecord, limit: int) -> tuple[list[tuple[str, Activation]], str | None]:
    """Return the latest activations with the ids of their instances, and the version that is pinned, or None."""
    _, command = record.database.last_commands()
    return record.activations(limit), (command.version or None) if command is not None else None


def tell_chained(verdict: TrailVerdict) -> None:
    """Note the lines of which only the place in the chain is verified."""
    if verdict.chained:
        which = ", ".join(map(str, verdict.chained))
        tell(
            f"release 1.0.0 wrote line {which} about a key that is in no stored version: its place in the chain is "
            "verified, its words are not"
        )


def verify_cell(record: CellRecord) -> bool:
    """Print the state of each audit trail and version in the shared database. Return whether nothing was changed.

    The database has no head that it could not have lost, so missing lines at the end of a trail are found by the heads
    in the log, and by the state directory of the instance.
    """
    from gateway.changes.stored_versions import damaged
    from gateway.state.audit import key_hashes, verify_lines

    is_sound, keys = True, key_hashes(it.text for it in record.versions())
    for instance, last in record.trails().items():
        verdict = verify_lines(record.lines(instance), {}, keys)
        for finding in verdict.findings():
            print(f"instance {instance}: {finding}")
        tell_chained(verdict)
        if verdict.faults:
            is_sound = False
            continue
        print(
            f"instance {instance}: {verdict.lines} lines, as they were written; the last is {last}, {verdict.head.hash}"
        )
    for name, fault in damaged(record.versions()).items():
        print(f"version {name} of the shared database: {fault}")
        is_sound = False
    return is_sound


def forget_instance(options: argparse.Namespace) -> int:
    """Remove a silent instance from the list of its cell (`gateway instances forget`)."""
    settings = settings_of(options)
    with opened_cell(settings) as database:
        if database is None:
            raise CommandError(f"{settings.config} has no `stores.database`, so there is no cell")
        named = [it for it in database.instances() if options.name in (it.name, it.id)]
        if not named:
            raise CommandError(f"the cell has no instance {options.name!r}: gateway status --config {settings.config}")
        if alive := [it for it in named if it.state != "silent"]:
            tell(f"the instance {alive[0].name} ({alive[0].id}) gives signs of life: stop it")
            return _REFUSED
        for it in named:
            database.forget(it.id)
            rows = f"{it.rows_waiting or 0} usage rows waited in its state directory at its last sign"
            print(f"the instance {it.name} ({it.id}) is forgotten; {rows}, and perhaps later ones")
    return _OK


def status_of_cell(settings: Settings) -> Mapping[str, Any] | None:
    """Return the status document of a cell from its shared database, or None without one. Raises CommandError."""
    from gateway.api.admin_status import cell_document
    from gateway.cell.cell_record import CellRecord
    from gateway.changes.initial_config import compile_in_child
    from gateway.changes.pickling import unpack

    file, now_s = settings.config, time.time()
    config = compile_file(file, resolve_secrets=False).config
    with opened_cell(settings) as database:
        if database is None:
            return None
        stores = stores_of(settings)
        valkey = stores.valkey if stores is not None else None
        lost, valkey_skew_s = valkey_state(valkey, config) if valkey is not None else (None, None)
        lost_stores = {"valkey": lost} if lost is not None else {}
        try:
            instances, record = database.instances(), CellRecord(database)
            skews_s = {"database": time.time() - database.now_s(), "valkey": valkey_skew_s}
        except StateError as error:
            # The file is all that is known then.
            return cell_document(config, (), now_s, now_s, store_problems={"database": str(error), **lost_stores})
        if all(item.state == "silent" for item in instances):
            raise CommandError(f"no instance of the cell of {file} gives a sign: is one running?")
        active, activations = record.last_version(), record.activations(1)
        problems = [skew] if (skew := store_skew_problem(skews_s)) is not None else []
        if active is not None and active.version != config.version:
            problems.append(f"{file} is version {config.version}, but the cell has activated {active.version}")
            stored = active.catalogues
            outcome = (
                compile_in_child(active.text, active.version, file, secrets=False, catalogues=stored)
                if active.text
                else None
            )
            if outcome is not None and outcome.packed is not None:
                config = unpack(outcome.packed)
        _, pin = database.last_commands()
        pinned = pin.version if pin is not None else ""
        since_s = activations[0][1].at_s if activations else now_s
    return cell_document(
        config, instances, since_s, now_s, problems=problems, store_problems=lost_stores, pinned=pinned
    )
