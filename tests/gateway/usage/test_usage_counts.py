"""Counts of calls for metrics: by client and project, bounded."""

import pytest

from gateway.usage import usage_counts
from gateway.usage.usage_counts import UsageCounts
from gateway.usage.usage_row import UsageRow, UsageSource
from tests.kit.usage_rows import usage_row


def added(counts: UsageCounts, *rows: UsageRow) -> None:
    for row in rows:
        counts.add(row)


def test_calls_are_added_up_by_client_and_project() -> None:
    counts = UsageCounts()
    tokens = {"input_tokens": 30, "output_tokens": 7}
    shop = {"client": "ios", "project": "shop", **tokens}
    added(
        counts,
        usage_row("1", amount_nano=5, currency="EUR", **shop),
        usage_row("2", amount_nano=6, currency="EUR", **shop),
        usage_row("3", amount_nano=1, usage_source=UsageSource.ESTIMATED, **shop),
        usage_row("4", client=None, project=None, amount_nano=None, vendor_amount_nano=9, vendor_currency="USD"),
    )
    assert counts.calls() == {("ios", "shop", "provider"): 2, ("ios", "shop", "estimated"): 1, ("", "", "provider"): 1}
    assert counts.tokens()["ios", "shop", "input"] == 90
    assert counts.tokens()["ios", "shop", "output"] == 21
    assert counts.costs() == {("ios", "shop", "EUR"): 12, ("", "", "USD"): 9}


def test_number_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_counts, "_MOST_KEYS", 2)
    counts = UsageCounts()
    added(counts, *(usage_row(str(number), client=f"client-{number}") for number in range(5)))
    clients = {client: calls for (client, _, _), calls in counts.calls().items()}
    assert clients == {"client-0": 1, "client-1": 1, "other": 3}
