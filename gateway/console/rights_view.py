"""The view Rights by role: each action of the admin API with the role that it needs, as the API itself states it.

The role in the document is the one that the route checks, so that neither this view nor the page of the documentation,
which is generated from the same rows, can differ from what the gateway does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.console.texts import _
from gateway.console.views import ConsoleView, ViewAnswer, Visit
from gateway.model.stored_client import Role
from providers.value import Value

PATH = "/rights"


class Right(Value, frozen=True):
    """An action."""

    action: str
    request: str
    """Its method and path."""
    role: Role
    """The weakest role that may do it."""


def rights_of(document: Mapping[str, Any]) -> list[Right]:
    """Return the rights that an OpenAPI document of the admin API describes: what fewer roles may do comes last."""
    rights = [
        Right(
            about.get("description", about["summary"]),
            f"{method.upper()} {path}",
            Role(about["security"][0]["token"][0]),
        )
        for path, methods in document["paths"].items()
        for method, about in methods.items()
    ]
    return sorted(rights, key=lambda right: [*Role].index(right.role))


async def show(visit: Visit) -> ViewAnswer:
    """Show the table of roles and actions."""
    document = await visit.admin.get("/v1/admin/openapi.json")
    return ViewAnswer("rights.html", {"rights": rights_of(document)})


VIEW = ConsoleView(PATH, _("Rights by role"), show, in_footer=True)
