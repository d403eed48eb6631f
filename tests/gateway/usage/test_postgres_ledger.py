"""The shared ledger on a real PostgreSQL server."""

import asyncio
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cell.postgres import Postgres, current_schema, upgrade
from gateway.cell.postgres_schema import SCHEMA
from gateway.model.budget import StoreServer
from gateway.operator_errors import StateError
from gateway.usage.amounts import NANO
from gateway.usage.duty_counts import DutyKey, add_up, encode_key, kept_counts
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.ledger_writer import LedgerRules, LedgerWriter
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import BudgetChange, CallOutcome, RowKind, UsageRow, UsageSource
from gateway.usage.windows import WindowCalendar
from providers.auth import Secret
from tests.kit import usage_rows
from tests.kit.postgres_server import PASSWORD, RunningPostgres, running_postgres
from tests.kit.usage_rows import NOON_NS, keep_rows, kept_rows, usage_row
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts PostgreSQL")
EVERY_DAY = ("2000-01-01", "2100-01-01")
DAY_NS = 86_400 * NANO


@pytest.fixture
def database(postgres: RunningPostgres) -> RunningPostgres:
    postgres.empty()
    return postgres


def opened(server: RunningPostgres, instance: str = "one") -> Ledger:
    return Ledger(Postgres(server.address()), lambda: UTC, instance)


def reader_of(address: StoreServer) -> UsageReader:
    return UsageReader(None, Postgres(address))


def read_rows(address: StoreServer) -> list[UsageRow]:
    with reader_of(address) as reader:
        return list(reader.rows(UsageQuery((), *EVERY_DAY)))


@given(
    st.lists(
        st.lists(usage_rows.usage_rows(st.sampled_from([f"call-{number}" for number in range(12)])), max_size=6),
        max_size=4,
    )
)
@settings(max_examples=25)
def test_totals_equal_a_recount_of_the_rows(postgres: RunningPostgres, batches: list[list[UsageRow]]) -> None:
    """Also after repeated calls, which are inserted once."""
    postgres.empty()
    # A row of a lost call is replaced by a later one of its own process, so these batches have none.
    batches = [[_not_lost(row) for row in batch] for batch in batches]
    rows = usage_rows.first_of_each_call([row for batch in batches for row in batch])
    with closing(opened(postgres)) as ledger:
        for batch in batches:
            assert ledger.insert(batch) <= len(rows)
    with reader_of(postgres.address()) as reader:
        usage_rows.expect_recount(reader, rows)


def _not_lost(row: UsageRow) -> UsageRow:
    fields = {
        name: value.replace("\0", "") or None if isinstance(value := getattr(row, name), str) and name not in ("call", "kind", "usage_source", "outcome") else value
        for name in row.__struct_fields__
    }  # fmt: skip
    if fields["outcome"] is CallOutcome.LOST:
        fields["outcome"] = CallOutcome.FAILED
    return msgspec.structs.replace(row, **fields)


def test_counters_are_summed_up_as_in_sqlite(database: RunningPostgres, tmp_path: Path) -> None:
    rows = [
        usage_row(f"{client}-{user}-{ago}", client=client, user=user, time_ns=NOON_NS - ago * NANO)
        for client in ("app", "other")
        for user in ("u_1", None)
        for ago in (0, 60, 7_200, 3 * 86_400, 40 * 86_400)
    ]
    for kind, of, owner in (
        (RowKind.TOP_UP, "user", {"client": "app", "user": "u_1"}),
        (RowKind.RESET, "client", {"client": "other"}),
        (RowKind.TOP_UP, "project", {"project": "shop"}),
    ):
        change = BudgetChange(of, "month", "EUR", 70_000)  # type: ignore[arg-type]
        rows.append(UsageRow(call=of, time_ns=NOON_NS, kind=kind, budget=change, **owner))
    windows = WindowCalendar(UTC).at(NOON_NS)
    found = []
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger, closing(opened(database)) as on_postgres:
        for one in (ledger, on_postgres):
            one.insert(rows)
            found.append(sorted(map(str, one.sum_up(windows)[1])))
    assert len(found[0]) == 60, "six windows, two units; two clients, a project, and a user of each client"
    assert found[0] == found[1]


def test_report_names_implausible_counts(database: RunningPostgres) -> None:
    row = usage_row("hidden", usage_source=UsageSource.ESTIMATED, reported_input_tokens=9_520)
    with closing(opened(database)) as ledger:
        ledger.insert([row, usage_row("plain"), usage_row("unstated", usage_source=UsageSource.ESTIMATED)])
    with reader_of(database.address()) as reader:
        found = reader.report_data(UsageQuery((), *EVERY_DAY))["implausible"]
        assert {one.call: one.reported_input_tokens for one in reader.rows(UsageQuery((), *EVERY_DAY))} == {
            "hidden": 9_520,
            "plain": None,
            "unstated": None,
        }
    assert found == [{"deployment": row.deployment, "calls": 1, "reported_input_tokens": 9_520}]


def test_row_of_a_call_takes_the_place_of_its_lost_row(database: RunningPostgres) -> None:
    lost = usage_row(
        "call", outcome=CallOutcome.LOST, usage_source=UsageSource.ESTIMATED, output_tokens=9000, amount_nano=10**9
    )
    row = usage_row("call")
    with closing(opened(database, "other")) as ledger:
        assert ledger.insert([lost]) == 1
    with closing(opened(database)) as ledger:
        assert ledger.insert([row]) == 1
        assert ledger.insert([lost]) == 0
    assert read_rows(database.address()) == [row]
    with reader_of(database.address()) as reader:
        found = usage_rows.counted(reader.report(UsageQuery(("client",), *EVERY_DAY)))
    assert usage_rows.without_zeros(found) == usage_rows.recount([row], "client")


def test_instances_add_rows_at_the_same_time(database: RunningPostgres) -> None:
    """Each inserts its rows in many batches, in another order, and some calls twice."""
    instances = 3
    rows = [usage_row(f"call-{number}", client=f"client-{number % 5}") for number in range(300)]

    def insert(number: int) -> None:
        mine = rows[number * 100 :] + rows[: number * 100]
        with closing(opened(database, str(number))) as ledger:
            for start in range(0, 300, 20):
                ledger.insert(mine[start : start + 20])

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(instances)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {row.call for row in read_rows(database.address())} == {row.call for row in rows}
    with reader_of(database.address()) as reader:
        assert reader.report(UsageQuery((), *EVERY_DAY)).total.all.calls == 300


def test_writer_ships_rows_while_the_database_is_there_and_keeps_them_otherwise(
    database: RunningPostgres, tmp_path: Path
) -> None:
    failures: list[str] = []
    database.kill()
    writer = LedgerWriter(tmp_path, lambda: LedgerRules(UTC), failures.append, ledger=opened(database))
    writer.start()
    for number in range(50):
        keep_rows(tmp_path, usage_row(f"call-{number}"))
    eventually(lambda: writer.problem is not None)
    assert "can't be reached" in str(writer.problem)
    database.restart()
    eventually(lambda: len(database.sql("SELECT 1 FROM usage_row")) == 50)
    for number in range(50, 90):
        keep_rows(tmp_path, usage_row(f"call-{number}"))
        if number == 70:
            database.kill()
            database.restart()
    eventually(lambda: len(database.sql("SELECT 1 FROM usage_row")) == 90)
    writer.close()
    assert {row.call for row in read_rows(database.address())} == {f"call-{number}" for number in range(90)}
    assert kept_rows(tmp_path) == []
    # A task that ran while the database was killed may have reported it.
    assert [failure for failure in failures if "can't be reached" not in failure] == []


def test_rows_of_a_machine_without_a_shared_ledger_are_moved_once(database: RunningPostgres, tmp_path: Path) -> None:
    rows = [usage_row(f"call-{number}", user="anna", region="eu" if number % 2 else "us") for number in range(2_500)]
    top_up = usage_row("top-up", kind=RowKind.TOP_UP, budget=BudgetChange("client", "month", "EUR", 7 * NANO))
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as own:
        own.insert(rows[:2_000])
        own.insert([*rows[2_000:], top_up])
    with closing(opened(database)) as shared:  # an earlier attempt ended in between
        shared.insert(rows[1:10:2])
    rules = LedgerRules(UTC, None, frozenset({"us"}))
    for _ in range(2):
        with closing(LedgerWriter(tmp_path, lambda: rules, pytest.fail, ledger=opened(database))):
            pass
        assert sorted(path.name for path in tmp_path.glob("ledger*")) == ["ledger.db.moved"]
        assert b"anna" not in (tmp_path / "ledger.db.moved").read_bytes()
        moved = {row.call: row for row in read_rows(database.address())}
        assert moved.keys() == {row.call for row in [*rows, top_up]}
        assert moved["top-up"].budget == top_up.budget
        assert moved["call-2499"] == rows[2_499]
        assert moved["call-2498"].user is None, "of a region with `transit`"


def test_wrong_password_is_refused_and_never_shown(database: RunningPostgres) -> None:
    wrong = database.address("another-secret")
    for use in (current_schema, upgrade, reader_of):
        with pytest.raises(StateError) as caught:
            use(wrong)  # type: ignore[operator]
        assert "refuses the user or the password" in str(caught.value)
        assert "another-secret" not in f"{caught.value!r}{caught.value.__cause__!r}"


def test_refusal_before_the_password_names_what_the_server_may_refuse(database: RunningPostgres) -> None:
    database.sql("CREATE ROLE locked NOLOGIN PASSWORD 'a-secret-of-the-test'")
    try:
        with pytest.raises(StateError, match=r"refuses the user, this machine, or a connection without TLS: .*pg_hba"):
            current_schema(replace(database.address(), user="locked"))
    finally:
        database.sql("DROP ROLE locked")


def test_former_password_works_until_the_server_has_the_new_one(database: RunningPostgres) -> None:
    address, new, former = database.address(), Secret("the-new-one"), Secret("the-former-one")
    assert current_schema(replace(address, passwords=(new, Secret(PASSWORD)))) is not None
    assert current_schema(replace(address, passwords=(Secret(PASSWORD), former))) is not None
    with pytest.raises(StateError, match="refuses the user or the password"):
        current_schema(replace(address, passwords=(new, former)))


def test_upgrade_is_repeatable_and_a_schema_from_the_future_is_refused(tmp_path: Path) -> None:
    with running_postgres() as server:
        assert current_schema(server.address()) is None
        with (
            pytest.raises(StateError, match="has no schema: run `gateway db upgrade"),
            closing(opened(server)) as ledger,
        ):
            ledger.insert([usage_row("call")])
        results: list[tuple[int | None, int]] = []
        threads = [threading.Thread(target=lambda: results.append(upgrade(server.address()))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [after for _, after in results] == [SCHEMA] * 3
        assert upgrade(server.address()) == (SCHEMA, SCHEMA)
        server.sql("UPDATE alembic_version SET version_num = $1", str(SCHEMA + 1))
        with closing(opened(server)) as ledger:  # a later release keeps the previous one working
            assert ledger.insert([usage_row("call")]) == 1
        assert upgrade(server.address()) == (SCHEMA + 1, SCHEMA + 1)  # a rollback of a release may run it
        server.sql("UPDATE alembic_version SET version_num = $1", str(SCHEMA + 2))
        with pytest.raises(StateError, match="of a later release"), closing(opened(server)) as ledger:
            ledger.insert([usage_row("other")])
        with pytest.raises(StateError, match="of a later release"):
            upgrade(server.address())
        server.sql("UPDATE alembic_version SET version_num = 'f00'")
        for asks in (upgrade, current_schema):
            with pytest.raises(StateError, match="has the schema 'f00', which this release does not know"):
                asks(server.address())


def test_schema_of_a_release_before_1_0_is_refused_by_name() -> None:
    with running_postgres() as server:
        upgrade(server.address())
        with closing(opened(server)) as ledger:
            server.sql("ALTER TABLE usage_row DROP COLUMN processes")
            with pytest.raises(
                StateError, match=r"lacks a part of this release: run `gateway db upgrade` of release 1\.0"
            ):
                ledger.insert([usage_row("new")])
        server.sql("UPDATE alembic_version SET version_num = '3'")
        for use in (upgrade, lambda address: opened(server).connect()):
            with pytest.raises(
                StateError, match=r"has the schema 3 of release 0\.2: run `gateway db upgrade` of release 1"
            ):
                use(server.address())
        assert current_schema(server.address()) == 3


def test_frozen_database_ends_a_command_at_its_deadline(database: RunningPostgres) -> None:
    reader = Postgres(database.address(), command_s=0.3)
    assert reader.run(lambda connection: connection.fetchval("SELECT 1")) == 1
    database.freeze()
    try:
        with pytest.raises(StateError, match="did not answer in time"):
            reader.run(lambda connection: connection.fetchval("SELECT 1"))
    finally:
        database.thaw()
    assert reader.run(lambda connection: connection.fetchval("SELECT 2")) == 2
    reader.close()


def test_callers_are_removed_once_for_each_region_and_instance_and_sums_stay(database: RunningPostgres) -> None:
    rows = [
        usage_row(f"call-{number}", region="us" if number % 2 else "eu", request=f"r_{number}", user=f"u_{number}")
        for number in range(6)
    ]
    with closing(opened(database)) as ledger:
        ledger.insert(rows)
        ledger.remove_callers(frozenset({"us"}))
        ledger.remove_callers(frozenset({"us"}))
    left = {row.call: (row.request, row.territory, row.user) for row in read_rows(database.address())}
    assert left == {
        row.call: (None, None, None) if row.region == "us" else (row.request, "DE", row.user) for row in rows
    }
    late = usage_row("late", region="us", user="u_late")
    with closing(opened(database, "other")) as ledger:
        ledger.insert([late])  # by an earlier release
        ledger.remove_callers(frozenset({"us"}))
    assert {row.user for row in read_rows(database.address()) if row.region == "us"} == {None}


def test_duties_of_two_instances_are_counted_once(database: RunningPostgres, tmp_path: Path) -> None:
    """Each writes its numbers again after a restart."""
    key = DutyKey("2027-03", "us-wa", "US-WA", "tutor", "child", "crisis")
    for instance in ("one", "two", "one"):
        with closing(Journal.open(tmp_path / instance / FOLDER)) as journal:
            asyncio.run(journal.count([encode_key(key)]))
        for _ in range(2):
            writer = LedgerWriter(
                tmp_path / instance, lambda: LedgerRules(UTC), print, ledger=opened(database, instance)
            )
            writer.close()
    shared = Postgres(database.address())
    with closing(shared), shared.transaction(reads_only=True) as statements:
        assert add_up(statements, (), ("2027-01", "2027-12")) == {key: 3}
        assert len(kept_counts(statements)) == 2
