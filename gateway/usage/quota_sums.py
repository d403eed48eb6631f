"""Return what calls used of quotas: as the gate counts it, and summed up in a ledger for new counters and by client."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

from gateway.model.budget import Window
from gateway.model.config_version import ConfigVersion
from gateway.model.quota import QuotaUnit
from gateway.model.status import QuotaUse
from gateway.usage.amounts import NANO, shown_nano
from gateway.usage.gate import Counters
from gateway.usage.quotas import Parts, QuotaLimit, QuotaState, limits_of, weighed
from gateway.usage.windows import FOREVER_NS

if TYPE_CHECKING:  # its module loads SQLite, which a process with quotas alone does not need
    from gateway.state.database import Statements

HOUR_NS = 3600 * NANO

_SUMS = "SUM(input_tokens), SUM(cached_tokens), SUM(output_tokens)"
# `budget_unit` of the row of a call is `transcription 1500` if it has audio.
_SECONDS = (
    "SUM(CASE SUBSTR(budget_unit, 1, 14) WHEN 'transcription ' THEN (CAST(SUBSTR(budget_unit, 15) AS BIGINT) + 999) "
    "/ 1000 ELSE 0 END)"
)
_OF_ROWS = (
    f"SELECT client, deployment, COUNT(*), {_SUMS}, {_SECONDS}, SUM(COALESCE(amount_nano, 0) / {NANO}), "  # noqa: S608
    f"SUM(COALESCE(amount_nano, 0) % {NANO}) FROM usage_row JOIN series ON series.number = usage_row.series "
    "WHERE time_ns >= ? AND kind = 'usage' GROUP BY 1, 2"
)
_OF_TOTALS = (
    f"SELECT client, deployment, SUM(calls), {_SUMS}, 0, SUM(amount_whole), SUM(total_hour.amount_nano) "  # noqa: S608
    "FROM total_hour JOIN series ON series.number = total_hour.series WHERE day >= ? AND hour >= ? GROUP BY 1, 2"
)

PartsByCaller = dict[tuple[str, str], Parts]
"""The use of calls by client and deployment. The name of the client is empty for calls that no client asked for."""


def parts_since(statements: Statements, since: int | str) -> PartsByCaller:
    """Return what calls have used since a time (Unix nanoseconds), or since an hour of the totals, which have no audio.

    Rows may have been deleted after a day, and totals never are.
    """
    text, values = (_OF_TOTALS, (since[:10], since)) if isinstance(since, str) else (_OF_ROWS, (since,))
    found: PartsByCaller = {}
    for client, deployment, *numbers in statements.execute(text, values).fetchall():
        calls, read, cached, written, seconds, whole, nano = (int(number or 0) for number in numbers)
        found[client or "", deployment or ""] = calls, read, cached, written, 0, seconds, whole * NANO + nano
    return found


def used_of(limit: QuotaLimit, used: PartsByCaller, deployments: Collection[str]) -> dict[str, int]:
    """Return what the calls of these deployments count in a limit, by client."""
    sums: dict[str, int] = defaultdict(int)
    for (client, deployment), parts in used.items():
        if deployment in deployments:
            sums[client] += max(0, weighed(limit.uses, parts))
    return dict(sums)


def quota_sums(
    statements: Statements, config: ConfigVersion, now_ns: int, zone: tzinfo
) -> Iterator[tuple[QuotaLimit, int, int]]:
    """Yield what is used of each window of each quota, from the hour on in which the window began, and no credit.

    `zone` is the time zone of the ledger.
    """
    known: dict[int | str, PartsByCaller] = {}
    for limit in limits_of(config):
        if limit.is_bucket:
            continue
        start_ns = limit.calendar.at(now_ns)[limit.window].start_ns
        since: int | str = start_ns - start_ns % HOUR_NS
        if limit.window is not Window.HOUR and limit.unit != QuotaUnit.SECONDS:
            # Without the offset, so that an hour that is repeated is counted twice.
            hour = datetime.fromtimestamp(start_ns // NANO, zone).strftime("%Y-%m-%dT%H")
            since = "" if limit.window is Window.TOTAL else hour
        if since not in known:
            known[since] = parts_since(statements, since)
        yield limit, sum(used_of(limit, known[since], deployments_of_quota(config, limit.quota)).values()), 0


def deployments_of_quota(config: ConfigVersion, name: str) -> list[str]:
    """Return the deployments that name a quota."""
    return [it.name for it in config.deployments.values() if any(quota.name == name for quota in it.quotas)]


async def read_uses(config: ConfigVersion, gate: Counters) -> tuple[QuotaUse, ...]:
    """Return what is used of each limit of each quota. Raises GateUnavailable."""
    if not (limits := limits_of(config)):
        return ()
    now_ns, states = await gate.read_quotas(limits)
    return tuple(_use(config, limit, state, now_ns) for limit, state in zip(limits, states, strict=True))


def _use(config: ConfigVersion, limit: QuotaLimit, state: QuotaState, now_ns: int) -> QuotaUse:
    used, held = limit.used(state)
    wait_ns = limit.wait_ns(1, state, now_ns)
    is_known = wait_ns is not None and wait_ns < FOREVER_NS
    free_in_s = (wait_ns or 0) / NANO if is_known else None
    free_at = datetime.fromtimestamp((now_ns + (wait_ns or 0)) / NANO, UTC) if is_known and wait_ns else None
    return QuotaUse(
        limit.quota,
        str(limit.unit),
        str(limit.window),
        _shown(limit, limit.limit),
        _shown(limit, used),
        _shown(limit, held),
        free_at=f"{free_at:%Y-%m-%dT%H:%M:%SZ}" if free_at is not None else None if is_known else "never",
        free_in_s=free_in_s,
        share=limit.share(state),
        words=str(limit),
        deployments=tuple(deployments_of_quota(config, limit.quota)),
    )


def _shown(limit: QuotaLimit, amount: int) -> int | str:
    return shown_nano(amount) if limit.unit == QuotaUnit.AMOUNT else amount
