"""Read what is used of quotas from a gate, as operators see it."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.model.config_version import ConfigVersion
from gateway.model.quota import QuotaUnit
from gateway.model.status import QuotaUse
from gateway.usage.amounts import NANO, shown_nano
from gateway.usage.gate import Counters
from gateway.usage.quotas import QuotaLimit, QuotaState, limits_of
from gateway.usage.windows import FOREVER_NS


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
