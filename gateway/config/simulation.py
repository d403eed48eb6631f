"""Rehearse a real config: all of its deployments are simulated, and nothing else is called."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.credentials import SIMULATED_KEY
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from providers.value import replace

UNREAD = ("deployments", "exporters", "stores", "usage")
"""The sections whose secrets a rehearsal does not read: none of what they name is called."""


def rehearsed(deployments: Mapping[str, Deployment]) -> dict[str, Deployment]:
    """Return the deployments of a real config as simulated ones.

    Each keeps its facts, its place and its path, so that the fence and the routes decide as they do for the real ones.
    It is called directly, without its own headers, and with the key that its simulator expects, also in place of none.
    One that needs a key and has none in the config stays without.
    """
    return {
        name: replace(
            deployment,
            simulates=deployment.site,
            credentials=(SIMULATED_KEY,) if deployment.has_credential else (),
            headers=(),
            link=None,
        )
        for name, deployment in deployments.items()
    }


def without_calls(config: ConfigVersion) -> ConfigVersion:
    """Return the version without what else it calls. An alert of a budget is still logged and counted."""
    alerts = config.usage.alerts
    usage = replace(config.usage, alerts=replace(alerts, webhook=None)) if alerts is not None else config.usage
    return replace(config, exporters=(), stores=None, sign_ins={}, usage=usage)
