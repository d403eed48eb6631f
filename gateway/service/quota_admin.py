"""Show quotas: what is used of each limit, who used it, and when it is free. For the admin API and for commands."""

from __future__ import annotations

import time
from collections.abc import Iterable

from gateway.model.config_version import ConfigVersion
from gateway.service.budget_admin import in_gate
from gateway.service.client_admin import ClientAdmin, Json
from gateway.usage.installation import usage_reader
from gateway.usage.quota_sums import HOUR_NS, PartsByCaller, used_of
from gateway.usage.quota_uses import read_uses
from gateway.usage.quotas import QuotaLimit, limits_of_quota

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


def _shares(limit: QuotaLimit, last_hour: PartsByCaller, deployments: Iterable[str]) -> dict[str, float]:
    """Return the share of each client in what was used of a limit."""
    used = used_of(limit, last_hour, frozenset(deployments))
    total = sum(used.values())
    return {name or _NO_CLIENT: round(part / total, 4) for name, part in sorted(used.items()) if part}
