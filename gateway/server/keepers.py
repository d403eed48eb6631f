"""The parts that only one process at a time may run for a state directory: the record, the schedules and the ledger."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.assembly.usage import keeping_ledger
from gateway.changes.compile_job import CompileJob
from gateway.changes.live_config import LiveConfig
from gateway.changes.schedules import Scheduler
from gateway.installation import client_store
from gateway.model.config_version import ConfigVersion
from gateway.operator_errors import CommandError, StateError
from gateway.server.uvicorn_server import url_of
from gateway.telemetry.log import logger
from providers.value import Value

if TYPE_CHECKING:
    from gateway.changes.initial_config import InitialConfig
    from gateway.usage.ledger_writer import LedgerWriter

_NOT_SERVED = {"detail": "nothing was served"}


class Keepers(Value, frozen=True):
    """The parts that only one process at a time may run for a state directory."""

    live: LiveConfig
    scheduler: Scheduler
    ledger: LedgerWriter | None

    async def pause(self) -> None:
        """End what is under way, and leave the state directory to the next gateway. Raises StateError."""
        await self.live.pause()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.resume)
            await self.scheduler.stop()
            if self.ledger is not None:
                await asyncio.to_thread(self.ledger.pause)
            undo.pop_all()

    async def resume(self) -> None:
        """Go on, because the next gateway has ended without serving."""
        if self.ledger is not None:
            await asyncio.to_thread(self.ledger.resume)
        self.scheduler.resume()
        try:
            await self.live.resume()
        except StateError as error:
            logger().error("audit_failed", detail=str(error))


@contextmanager
def recording_the_end(initial: InitialConfig) -> Iterator[None]:
    """Record the end of this process in the audit trail, and leave the state directory and the cell."""
    details = {}
    try:
        yield
    except CommandError:
        # A busy port or an unusable key. The audit trail already records the version as active.
        details = _NOT_SERVED
        raise
    except StateError as error:
        details = _NOT_SERVED
        raise CommandError(str(error)) from None
    finally:
        change_log, cell = initial.change_log, initial.cell
        if change_log is not None:
            try:
                if not change_log.is_paused:  # otherwise the next gateway serves
                    change_log.note("stopped", {"pid": os.getpid(), **details})
            except StateError as error:
                logger().error("audit_failed", detail=str(error))
            if cell is not None:
                cell.close()
            change_log.close()


@contextmanager
def keeping(
    directory: Path | None,
    initial: InitialConfig,
    admin: socket.socket,
    job: CompileJob,
    serving_problem: Callable[[ConfigVersion], str | None] = lambda _: None,
) -> Iterator[Keepers]:
    """Provide the parts that only one process may run for a state directory. Raises CommandError.

    The stores stay open until the event loop and its threads have ended, because a last write may be under way.
    """
    config, path = initial.config, os.path.abspath(job.path)
    with ExitStack() as stack:
        scheduler, clients = Scheduler(), None
        if directory is not None:
            from gateway.changes.stored_clients import ClientDatabase
            from gateway.state.schedules import ScheduleStore

            try:
                schedules = stack.enter_context(closing(ScheduleStore(directory)))
                scheduler = Scheduler(schedules) if initial.cell is None else initial.cell.scheduler(schedules)
                stored = stack.enter_context(closing(client_store(config, directory)))
                clients = ClientDatabase(directory, initial.change_log, path, stored)
                if initial.change_log is not None and not stored.knows_listener():
                    clients.note_listener(closes=initial.change_log.ever_gave_roles())
            except StateError as error:
                raise CommandError(str(error)) from None
        if initial.change_log is not None:
            initial.change_log.lock.write_info({"admin": url_of(admin), "config": path})
        live = LiveConfig(job, initial, serving_problem=serving_problem, stage=scheduler.stage, clients=clients)
        ledger = stack.enter_context(keeping_ledger(directory, lambda: live.config, config.stores))
        yield Keepers(live, scheduler, ledger)
