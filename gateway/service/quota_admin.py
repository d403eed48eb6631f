"""Show quotas: what is used of each limit, who used it, and when it is free. For the admin API and for commands."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from gateway.model.config_version import ConfigVersion
from gateway.model.quota import QuotaUnit
from gateway.model.status import QuotaUse
from gateway.service.budget_admin import in_gate
from gateway.service.client_admin import ClientAdmin, Json
from gateway.usage.amounts import NANO, shown_nano
from gateway.usage.gate import QuotaCounters
from gateway.usage.installation import usage_reader
from gateway.usage.quota_sums import HOUR_NS, PartsByCaller, deployments_of_quota, used_of
from gateway.usage.quotas import QuotaLimit, QuotaState, limits_of_quota
from gateway.usage.windows import FOREVER_NS

_NO_CLIENT = "no client"


class QuotaAdmin:
    """The actions on quotas.

    Args:
        admin: The actions on clients, which know the state directory.
        config: The active config version.
    """

    def __init__(self, admin: ClientAdmin, config: ConfigVersion) -> None:
        self._directory = admin.directory
        self._config = config

    def show(self) -> Json:
        """Return each limit of each quota."""
        config = self._config
        uses = in_gate(config, self._directory, lambda gate: read_uses(config, gate))
        with usage_reader(config.stores, self._directory) as reader:
            last_hour = reader.parts_since(time.time_ns() - HOUR_NS)
        limits = [limit for quota in config.quotas.values() for limit in limits_of_quota(quota)]
        return {
            "quotas": [
                {**use.data(), "clients": _shares(limit, last_hour, use.deployments), "vendor": None}
                for limit, use in zip(limits, uses, strict=True)
            ]
        }


async def read_uses(config: ConfigVersion, gate: QuotaCounters) -> tuple[QuotaUse, ...]:
    """Return what is used of each limit of each quota. Raises GateUnavailable."""
    limits = [limit for quota in config.quotas.values() for limit in limits_of_quota(quota)]
    if not limits:
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


def _shares(limit: QuotaLimit, last_hour: PartsByCaller, deployments: Iterable[str]) -> dict[str, float]:
    """Return the share of each client in what was used of a limit."""
    used = used_of(limit, last_hour, frozenset(deployments))
    total = sum(used.values())
    return {name or _NO_CLIENT: round(part / total, 4) for name, part in sorted(used.items()) if part}
