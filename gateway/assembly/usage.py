"""The accounting of this process with its gate, and the ledger of the installation. Both need a state directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gateway.installation import (
    instance_name,
    pseudonym_key,
    serving_stores,
    shared_database,
    usage_reader,
    users_renamed_ns,
)
from gateway.model.budget import Stores, UsageRules
from gateway.model.config_version import ConfigVersion
from gateway.model.kept_metadata import regions_without_callers
from gateway.operator_errors import DatabaseUnreachable, StateError
from gateway.state.former_release import refuse_former_state
from gateway.state.generated_key import USER_KEY, generated_key
from gateway.tasks import stopped
from gateway.telemetry.log import logger
from gateway.undo import undone_on_failure
from providers.chat import Usage

if TYPE_CHECKING:
    from gateway.api.public_routes import ReportUsage
    from gateway.usage.accounting import Accounting
    from gateway.usage.ledger import Ledger
    from gateway.usage.ledger_writer import LedgerWriter


_KEPT_EVERY_S = 60.0
_LEARNED = "learned_usage.json"


class UsageWiring:
    """Holds and records what the calls of this process cost, in a state directory.

    `overshot` is called when a call has cost more than its hold, and `count_implausible` with the deployment and
    `input` or `other` for each count that cannot be true.
    """

    def __init__(
        self,
        state_dir: Path,
        config: Callable[[], ConfigVersion],
        overshot: Callable[[], None] = lambda: None,
        count_implausible: Callable[[tuple[str, str]], None] = lambda _labels: None,
    ) -> None:
        from gateway.usage.accounting import Accounting
        from gateway.usage.estimates import KeptUsage, LearnedUsage
        from gateway.usage.journal import FOLDER, Journal

        self._journal = Journal.open(state_dir / FOLDER)
        self.stores = serving_stores(config, state_dir, self._journal)
        self.accounting: Accounting = Accounting(
            self._journal if self.stores is None else self.stores.gate,
            pseudonym_key(config(), state_dir),
            overshot,
            implausible=partial(_report_implausible, count_implausible),
            renamed_ns=users_renamed_ns(state_dir),
        )
        self._learned_file = state_dir / _LEARNED
        self._keeping: asyncio.Task[None] | None = None
        self.accounting.learned = LearnedUsage(KeptUsage.read(self._learned_file))

    def problems(self) -> dict[str, str]:
        """Return why a store cannot be used now, by its kind."""
        journal = self._journal.problem
        found = self.stores.problems() if self.stores is not None else {}
        return {**found, "journal": journal} if journal else found

    async def start(self) -> None:
        """Connect to the shared stores, if there are any, and keep what is learned of usage from now on."""
        if self.stores is not None:
            await self.stores.start()
        self._keeping = asyncio.create_task(self._keep_learned())

    async def _keep_learned(self) -> None:
        while True:
            await asyncio.sleep(_KEPT_EVERY_S)
            await asyncio.to_thread(self.accounting.learned.to_keep().write, self._learned_file)

    async def aclose(self) -> None:
        """Record the calls that are still open, finish late settlements, and keep what was learned."""
        await stopped(self._keeping)
        await self.accounting.aclose()
        self.accounting.learned.to_keep().write(self._learned_file)
        if self.stores is not None:
            await self.stores.aclose()
        self._journal.close()


@asynccontextmanager
async def command_accounting(state_dir: Path | None, config: ConfigVersion) -> AsyncIterator[Accounting | None]:
    """Open the accounting of a command that calls providers. The ledger writer of a gateway moves its rows.

    Without a state directory, usage is not recorded. Raises StateError if it can't be used.
    """
    if state_dir is None:
        yield None
        return
    wiring = UsageWiring(state_dir, lambda: config)
    await wiring.start()
    try:
        yield wiring.accounting
    finally:
        await wiring.aclose()


def usage_reports(state_dir: Path, stores: Stores | None) -> ReportUsage:
    """Return the source of reports from the ledger of a state directory, or from the shared one. Raises StateError."""

    def report(client: str | None, month: str | None, by: tuple[str, ...]) -> dict[str, object]:
        with usage_reader(stores, state_dir) as reader:
            return reader.report(reader.period_query(month, None, by, client)[0]).data()

    return lambda client, month, by: asyncio.to_thread(report, client, month, by)


def report_problem(detail: str) -> None:
    """Log a problem of the ledger or the gate."""
    logger().error("usage", detail=detail)


@contextmanager
def keeping_ledger(
    state_dir: Path | None, config: Callable[[], ConfigVersion], stores: Stores | None = None
) -> Iterator[LedgerWriter | None]:
    """Move usage rows into the ledger while the block runs, and provide the writer. `config` has the stored clients.

    First, recover the calls that a killed gateway left open, and rebuild the counters of budgets if their file is new.
    The data of features that an earlier version stored for a region with `transit` is deleted. Raises StateError.
    """
    if state_dir is None:
        yield None
        return
    from gateway.features.running import KEPT
    from gateway.usage.ledger import NAME
    from gateway.usage.ledger_writer import LedgerWriter, ledger_rules

    counts_here = stores is None or stores.valkey is None
    refuse_former_state(state_dir, NAME, counts_here=counts_here)
    try:
        for kept in KEPT:
            kept.forget(state_dir, regions_without_callers(config()))
    except StateError as error:
        report_problem(f"results of regions with `transit` can't be deleted: {error}")
    # Before there are workers, so that all of them find the same key.
    generated_key(state_dir, USER_KEY)
    writer = LedgerWriter(
        state_dir,
        lambda: ledger_rules(config()),
        report_problem,
        ledger=_shared_ledger(stores, state_dir, lambda: config().usage),
        recovered=_log_recovered,
        erase=lambda requests: [kept.erase(state_dir, requests) for kept in KEPT],
    )
    # Calls that a killed gateway left open are settled before another one listens.
    writer.move()
    if counts_here:
        _rebuild_new_counters(config(), writer)
    writer.start()
    try:
        yield writer
    finally:
        writer.close()


def _rebuild_new_counters(config: ConfigVersion, writer: LedgerWriter) -> None:
    try:
        rebuilt = writer.rebuild_new_counters(config)
    except StateError as error:
        report_problem(f"the counters of budgets are new and can't be rebuilt, so open windows begin at 0: {error}")
        return
    if rebuilt:
        detail = "the journal was missing or new, so the budgets of open windows are counted again from the ledger"
        logger().warning("counters_rebuilt", counters=rebuilt, detail=detail)


def _report_implausible(
    count: Callable[[tuple[str, str]], None], deployment: str, usage: Usage, is_input: bool
) -> None:
    count((deployment, "input" if is_input else "other"))
    detail = "the provider states a count of tokens that cannot be true, so the usage row has an estimate"
    if is_input:
        detail += "; if it adds prompts of its own, write `counts_hidden: true` at the deployment"
    counts = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    logger().warning("usage_implausible", deployment=deployment, **counts, detail=detail)


def _log_recovered(number: int) -> None:
    detail = "calls of a process that was killed are in the ledger with the outcome `lost`, at an estimated cost"
    logger().warning("calls_lost", calls=number, detail=detail)


def _shared_ledger(stores: Stores | None, state_dir: Path, rules: Callable[[], UsageRules]) -> Ledger | None:
    """Return the shared ledger, or None if there is none. It may be unreachable: then rows wait in the journal.

    Raises StateError if the database refuses the password, or its schema does not fit this release.
    """
    from gateway.usage.ledger import Ledger

    if (database := shared_database(stores)) is None:
        return None
    ledger = Ledger(database, lambda: ZoneInfo(rules().timezone), instance_name(state_dir))
    # An unreachable database is the problem of the first move, which operators see.
    with undone_on_failure(ledger.close), suppress(DatabaseUnreachable):
        ledger.connect()
    return ledger
