"""The view Providers: the health, latency, errors, approvals, retirement and facts of each deployment."""

from __future__ import annotations

from gateway.console.views import ConsoleView, ViewAnswer, Visit, _

PATH = "/providers"


async def show(visit: Visit) -> ViewAnswer:
    """Show all deployments, or those that the filters name."""
    document = await visit.admin.get("/v1/admin/deployments")
    wanted = {name: visit.query.get(name, "") for name in ("deployment", "provider")}
    everything = document["deployments"]
    shown = [
        one
        for one in everything
        if wanted["deployment"] in ("", one["name"]) and wanted["provider"] in ("", one["provider"])
    ]
    choices = {
        "deployment": sorted(one["name"] for one in everything),
        "provider": sorted({one["provider"] for one in everything}),
    }
    return ViewAnswer("providers.html", {"deployments": shown, "wanted": wanted, "choices": choices})


VIEW = ConsoleView(PATH, _("Providers"), show)
