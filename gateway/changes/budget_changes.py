"""Describe the changes of budgets for a plan: each change as text, and the counters that begin anew. Pure.

Counters belong to a kind, a name, a unit and a window. With another name or unit they begin anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.limits_report import listed_budgets
from gateway.model.config_version import ConfigVersion


def budget_changes(old: ConfigVersion, new: ConfigVersion) -> Iterator[tuple[str, str, str]]:
    """Yield each client, project and quota whose limits change: its name, the limits before, and the limits after."""
    before, after = _budgets(old), _budgets(new)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield name, before.get(name, "none"), after.get(name, "none")


def _budgets(config: ConfigVersion) -> Mapping[str, str]:
    """Return the text of the budgets, by the text for their owner. Owners without budgets are left out."""
    found = {f"project {name}": listed_budgets(project.budgets) for name, project in config.projects.items()}
    for client in config.clients.values():
        spending = client.spending
        found[f"client {client.name}"] = listed_budgets(spending.budgets)
        found[f"each end user of {client.name}"] = listed_budgets(spending.user_budgets)
        found[f"each request of {client.name}"] = listed_budgets(filter(None, [spending.max_request]))
    found |= {f"quota {name}": str(quota) for name, quota in config.quotas.items()}
    return {name: text for name, text in found.items() if text}


def budget_notes(old: ConfigVersion, new: ConfigVersion) -> Iterator[str]:
    """Yield a note for each client and project that was renamed, and for another currency."""
    moved = [(client, new.clients[digest]) for digest, client in old.clients.items() if digest in new.clients]
    renamed = [(one, other) for one, other in moved if one.name != other.name]
    with_counters = [it for it in renamed if any(one.limits is not None or one.spending.all_budgets for one in it)]
    for before, after in dict.fromkeys((one.name, other.name) for one, other in with_counters):
        yield f"the client {before!r} is now named {after!r} (same key): its limits and budgets begin anew"
    for before, after in dict.fromkeys(
        (one.spending.project.name, other.spending.project.name)
        for one, other in moved
        if one.spending.project is not None and other.spending.project is not None
    ):
        if before != after and before not in new.projects and after not in old.projects:
            yield f"the project {before!r} is now named {after!r} (same clients): its budgets begin anew"
    currency = old.usage.currency
    of_projects = any(budget.is_money for it in old.projects.values() for budget in it.budgets)
    limits_money = of_projects or any(it.spending.limits_money for it in old.clients.values())
    if currency is not None and currency != new.usage.currency and limits_money:
        after_text = new.usage.currency or "none"
        yield f"`usage.currency` changes from {currency} to {after_text}: all budgets of money begin anew"
