"""Usage rows for tests: one row with the given fields, a Hypothesis strategy for all rows, and a recount of rows."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from gateway.model.served import USES
from gateway.usage.amounts import NANO
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.journal_reading import waiting_rows
from gateway.usage.ledger import AUDIO
from gateway.usage.reports import GroupedUsage, UsageQuery, UsageReader
from gateway.usage.usage_row import (  # type: ignore[attr-defined]
    MOST_NANO,
    MOST_TOKENS,
    TOKENS,
    BudgetChange,
    CallOutcome,
    RowKind,
    UsageRow,
    UsageSource,
    encode_row,
)

NOON_NS = 1_795_518_000 * NANO
"""2026-11-24, 11:00 UTC."""

_DAY_NS = 86_400 * NANO


def keep_rows(directory: Path, *rows: UsageRow) -> None:
    """Put rows into the journal of a state directory, as a process does."""

    def keep(txn: Any, _: object) -> None:
        for row in rows:
            txn.put(b"w" + row.call.encode(), encode_row(row))

    with closing(Journal.open(directory / FOLDER)) as journal:
        journal.do_now(keep)


def kept_rows(directory: Path) -> list[UsageRow]:
    """Return the rows in the journal of a state directory by call."""
    return waiting_rows(directory)


def usage_row(call: str, **fields: object) -> UsageRow:
    """Return the row of an answered call of the client `ios-app`, with these fields."""
    usual: dict[str, object] = {
        "time_ns": NOON_NS,
        "client": "ios-app",
        "project": "shop",
        "region": "eu",
        "territory": "DE",
        "assistant": "helper",
        "provider": "openai",
        "site": "eu",
        "deployment": "gpt-eu",
        "processes": "@EEA, CH",
        "model": "gpt-5-mini",
        "input_tokens": 100,
        "output_tokens": 20,
        "usage_source": UsageSource.PROVIDER,
        "vendor_amount_nano": 65_000,
        "vendor_currency": "USD",
        "amount_nano": 59_800,
        "currency": "EUR",
        "rate": "0.92",
        "outcome": CallOutcome.ANSWERED,
        "use": "chat",
    }
    return UsageRow(call=call, **{**usual, **fields})  # type: ignore[arg-type]


_NAMES = st.none() | st.sampled_from(["a", "b", "Ünïcode 中文", '"quoted",\n', "\x00"])
_NANO = st.none() | st.integers(0, 10**9) | st.just(MOST_NANO)
_TOKENS = st.integers(0, 5000) | st.just(MOST_TOKENS)
_CHANGES = st.builds(
    BudgetChange,
    of=st.sampled_from(["client", "project", "user"]),
    per=st.sampled_from(["day", "month"]),
    unit=st.sampled_from(["tokens", "EUR"]),
    amount=st.integers(0, 2**62),
)


def usage_rows(calls: st.SearchStrategy[str] | None = None) -> st.SearchStrategy[UsageRow]:
    """Return a strategy for rows of all kinds, within three days."""
    any_row = st.builds(
        UsageRow,
        call=calls if calls is not None else st.text(min_size=1, max_size=5),
        time_ns=st.integers(NOON_NS - _DAY_NS, NOON_NS + _DAY_NS),
        kind=st.sampled_from([*RowKind, RowKind.USAGE, RowKind.USAGE]),
        usage_source=st.none() | st.sampled_from(UsageSource),
        outcome=st.none() | st.sampled_from(CallOutcome),
        vendor_amount_nano=_NANO,
        amount_nano=_NANO,
        currency=st.sampled_from([None, "EUR", "USD"]),
        vendor_currency=st.sampled_from([None, "CNY", "USD"]),
        rate=st.none() | st.just("0.92"),
        budget=st.none() | _CHANGES,
        reported_input_tokens=st.none() | _TOKENS,
        use=st.none() | st.sampled_from(USES),
        audio_ms=st.none() | _TOKENS,
        characters=st.none() | _TOKENS,
        **dict.fromkeys(TOKENS, _TOKENS),
        **dict.fromkeys(("request", "client", "project", "user", "region", "territory", "assistant", "provider", "site", "deployment", "processes", "model", "config_version", "price_version"), _NAMES),
    )  # fmt: skip
    return any_row.map(_with_currencies)


def _with_currencies(row: UsageRow) -> UsageRow:
    """An amount has a currency, a row that changes a budget does not record a call, and audio has its use."""
    if row.kind is RowKind.USAGE:
        row = msgspec.structs.replace(row, budget=None)
    if row.budget is not None:
        row = msgspec.structs.replace(row, reported_input_tokens=None, use=None)
    if row.use != "transcription":
        row = msgspec.structs.replace(row, audio_ms=None)
    if row.use != "speech":
        row = msgspec.structs.replace(row, characters=None)
    if row.currency is None:
        row = msgspec.structs.replace(row, amount_nano=None)
    if row.vendor_currency is None:
        row = msgspec.structs.replace(row, vendor_amount_nano=None)
    return row


def recount(rows: Iterable[UsageRow], *names: str) -> dict[tuple[object, ...], Counter[str]]:
    """Count calls, tokens and amounts by these fields, without any code of the ledger."""
    found: dict[tuple[object, ...], Counter[str]] = {}
    for row in rows:
        if row.kind is RowKind.USAGE:
            counter = found.setdefault(tuple(getattr(row, name) for name in names), Counter())
            counter["calls"] += 1
            for name in (*TOKENS, *AUDIO):
                counter[name] += getattr(row, name) or 0
            if row.currency == "EUR":
                counter["EUR"] += row.amount_nano or 0
            if row.vendor_currency is not None:
                counter[row.vendor_currency] += row.vendor_amount_nano or 0
    return found


def counted(found: GroupedUsage) -> dict[tuple[object, ...], Counter[str]]:
    """Return the sums of a report as `recount` returns them."""
    sums: dict[tuple[object, ...], Counter[str]] = {}
    for group in found.groups:
        counter = sums.setdefault(group.key, Counter())
        counter["calls"] += group.all.calls
        counter.update(dict(zip((*TOKENS, *AUDIO), (*group.all.tokens, *group.all.audio), strict=True)))
        counter["EUR"] += group.all.amount_nano if group.currency == "EUR" else 0
        counter.update(group.all.vendor_nano)
    return sums


def without_zeros(sums: dict[tuple[object, ...], Counter[str]]) -> dict[tuple[object, ...], Counter[str]]:
    return {key: +counter for key, counter in sums.items()}


def expect_recount(reader: UsageReader, rows: Sequence[UsageRow]) -> None:
    """Compare the rows of a ledger, and the sums of its reports, with these rows."""
    every_day = ("2000-01-01", "2100-01-01")
    for names in (
        ("client",),
        ("user", "model"),
        ("assistant", "client"),
        ("region", "provider", "project", "site", "deployment"),
        ("territory", "processes"),
        ("use", "client"),
        ("user", "assistant", "territory", "site"),
        (),
    ):
        found = counted(reader.report(UsageQuery(names, *every_day)))
        assert without_zeros(found) == without_zeros(recount(rows, *names)), names
    assert {row.call: row for row in reader.rows(UsageQuery((), *every_day))} == {row.call: row for row in rows}


def first_of_each_call(rows: Sequence[UsageRow]) -> list[UsageRow]:
    return list({row.call: row for row in reversed(rows)}.values())
