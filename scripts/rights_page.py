"""Generate the page of the rights by role from the document of the admin API (OpenAPI)."""

from __future__ import annotations

from gateway.console.rights_view import rights_of
from gateway.model.stored_client import Role, may_act
from scripts.admin_page import admin_document

_HEAD = """\
# Rights by role

The actions of the [admin listener](../operate/admin-listener.md) with the roles that may do them. The commands with
`--admin` and the [console](../operate/console.md), which has this table as `/rights`, act by these requests.
[Where a role comes from](../operate/admin-listener.md#rights-by-role).

`GET /readyz`, `/metrics` and `/events` need the role viewer, `/healthz` none. Budgets and reports of an end user
(`user`, `by=user`) need the role admin.

"""


def rights_page() -> str:
    """Return docs/reference/rights.md."""
    roles = [*Role]
    head = f"| action | request | {' | '.join(roles)} |\n|---|---|{'---|' * len(roles)}\n"
    return f"{_HEAD}{head}" + "".join(
        f"| {right.action} | `{right.request}` | "
        f"{' | '.join('yes' if may_act(role, right.role) else '–' for role in roles)} |\n"
        for right in rights_of(admin_document())
    )
