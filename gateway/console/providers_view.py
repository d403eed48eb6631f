"""The view Providers: the health, latency, errors, approvals, retirement and facts of each deployment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gateway.console.texts import _
from gateway.console.views import ConsoleView, ViewAnswer, Visit

PATH = "/providers"
STATES = {"off": _("off"), "unavailable": _("unavailable"), "failing": _("with errors"), "in_use": _("in use")}
"""The states of deployments, the worst first."""


async def show(visit: Visit) -> ViewAnswer:
    """Show all deployments, or those that the filters name. Those that need a look are first."""
    document = await visit.admin.get("/v1/admin/deployments")
    quotas = (await visit.admin.get("/v1/admin/quotas"))["quotas"] if document["has_quotas"] else []
    everything = [{**one, "state": _state_of(one)} for one in document["deployments"]]
    wanted = {name: visit.query.get(name, "") for name in ("deployment", "provider", "state")}
    shown = [
        one
        for one in everything
        if wanted["deployment"] in ("", one["name"])
        and wanted["provider"] in ("", one["provider"])
        and wanted["state"] in ("", one["state"])
    ]
    worst = ["unavailable", "failing", "in_use", "off"]
    choices = {
        "deployment": sorted(one["name"] for one in everything),
        "provider": sorted({one["provider"] for one in everything}),
    }
    values = {
        "deployments": sorted(shown, key=lambda one: worst.index(one["state"])),
        "states": STATES,
        "barriers": document["barriers"],
        "laws": document["laws"],
        "quotas": quotas,
        "read_at": time.time(),
    }
    return ViewAnswer("providers.html", values | {"wanted": wanted, "choices": choices})


def _state_of(deployment: Mapping[str, Any]) -> str:
    """Return the state of a deployment. One failed call of a hundred makes it `failing`."""
    if deployment["off"]:
        return "off"
    if deployment["unavailable"] or deployment["breaker"] != "closed":
        return "unavailable"
    errors = sum(deployment["errors"].values())
    return "failing" if errors * 100 >= max(deployment["calls"], 1) else "in_use"


VIEW = ConsoleView(PATH, _("Providers"), show)
