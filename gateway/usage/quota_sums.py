"""Sum up in a ledger what the calls of deployments used of quotas: for new counters, and by client for reports."""

from __future__ import annotations

from collections import defaultdict

from gateway.model.budget import Window
from gateway.model.config_version import ConfigVersion
from gateway.state.database import Statements
from gateway.usage.amounts import NANO
from gateway.usage.quota_uses import deployments_of_quota
from gateway.usage.quotas import Parts, QuotaLimit, limits_of_quota, weighed

HOUR_NS = 3600 * NANO

_SUMS = "SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens)"
# `budget_unit` of the row of a call is `audio_ms 1500` if it has audio.
_SECONDS = (
    "SUM(CASE SUBSTR(budget_unit, 1, 9) WHEN 'audio_ms ' THEN (CAST(SUBSTR(budget_unit, 10) AS BIGINT) + 999) / 1000 "
    "ELSE 0 END)"
)
_OF_ROWS = (
    f"SELECT client, deployment, COUNT(*), {_SUMS}, {_SECONDS}, SUM(COALESCE(amount_nano, 0) / {NANO}), "  # noqa: S608
    f"SUM(COALESCE(amount_nano, 0) % {NANO}) FROM usage_row JOIN series ON series.number = usage_row.series "
    "WHERE time_ns >= ? AND kind = 'usage' GROUP BY 1, 2"
)
_OF_TOTALS = (
    f"SELECT client, deployment, SUM(calls), {_SUMS}, 0, SUM(amount_whole), SUM(total_day.amount_nano) "  # noqa: S608
    "FROM total_day JOIN series ON series.number = total_day.series WHERE day >= ? GROUP BY 1, 2"
)

PartsByCaller = dict[tuple[str, str], Parts]
"""The use of calls by client and deployment. The name of the client is empty for calls that no client asked for."""


def parts_since(statements: Statements, since_ns: int | None) -> PartsByCaller:
    """Return what calls have used since a time (Unix nanoseconds), or over all time."""
    text, since = (_OF_TOTALS, "") if since_ns is None else (_OF_ROWS, since_ns)
    found: PartsByCaller = {}
    for client, deployment, *numbers in statements.execute(text, (since,)).fetchall():
        calls, read, cached, written, seconds, whole, nano = (int(number or 0) for number in numbers)
        found[client or "", deployment or ""] = calls, read, cached, written, 0, seconds, whole * NANO + nano
    return found


def used_of(limit: QuotaLimit, used: PartsByCaller, deployments: frozenset[str]) -> dict[str, int]:
    """Return what the calls of these deployments count in a limit, by client."""
    sums: dict[str, int] = defaultdict(int)
    for (client, deployment), parts in used.items():
        if deployment in deployments:
            sums[client] += max(0, weighed(limit.uses, parts))
    return dict(sums)


def quota_sums(statements: Statements, config: ConfigVersion, now_ns: int) -> list[tuple[QuotaLimit, int]]:
    """Return what is used of each window of each quota, from the hour on in which the window began."""
    sums: list[tuple[QuotaLimit, int]] = []
    known: dict[int | None, PartsByCaller] = {}
    for quota in config.quotas.values():
        named = frozenset(deployments_of_quota(config, quota.name))
        for limit in limits_of_quota(quota):
            if limit.is_bucket:
                continue
            start_ns = limit.calendar.at(now_ns)[limit.window].start_ns
            since_ns = None if limit.window is Window.TOTAL else start_ns - start_ns % HOUR_NS
            if since_ns not in known:
                known[since_ns] = parts_since(statements, since_ns)
            sums.append((limit, sum(used_of(limit, known[since_ns], named).values())))
    return sums
