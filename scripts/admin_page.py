"""Generate the page of the admin API from its own document (OpenAPI)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from gateway.api.admin_control import Control
from gateway.api.admin_guard import Guard
from gateway.api.admin_routes import PATH, build_admin_routes
from tests.kit.console_pages import control_of, demo_config

_HEAD = f"""\
# Admin API

The paths below `{PATH}` of the [admin listener](../operate/admin-listener.md), as `GET {PATH}/openapi.json` describes
them: the members of a body, or of the query (`?`), and the [role](../operate/admin-listener.md#tokens-with-a-role)
that is needed at least. A client and a project have the members of `clients.NAME` and `projects.NAME` in the
[configuration](config.md#clientsname).

| path | does | takes | role |
|---|---|---|---|
"""


def admin_document() -> dict[str, Any]:
    """Return the document of the admin API."""
    return build_admin_routes(cast("Control", control_of(demo_config())), Guard(), {}).openapi()


def admin_page() -> str:
    """Return docs/reference/admin-api.md."""
    paths = admin_document()["paths"]
    return _HEAD + "".join(
        f"| `{method.upper()} {path.removeprefix(PATH)}` | {about.get('description', about['summary'])} | "
        f"{', '.join(_members(about))} | {about['security'][0]['token'][0]} |\n"
        for path, methods in paths.items()
        if path.startswith(PATH)
        for method, about in methods.items()
    )


def _members(about: Mapping[str, Any]) -> Iterator[str]:
    for parameter in about.get("parameters", ()):
        if parameter["in"] == "query":
            yield f"`?{parameter['name']}`"
    body = about.get("requestBody", {"content": {"application/json": {"schema": {}}}})
    for name in body["content"]["application/json"]["schema"].get("properties", ()):
        yield f"`{name}`"
