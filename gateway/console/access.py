"""The access check of the console, and the headers of its responses.

The console of the demo needs no login. Therefore only its own pages may use it, in a browser on this machine. A host
name that is not loopback may be an attacker's name that now resolves to this machine (DNS rebinding), and a program on
another machine can send any host name. A request of another site could read the state or switch faults.
"""

from __future__ import annotations

from typing import Any

from gateway.api.caller.authentication import is_loopback_host, is_this_machine
from gateway.api.errors import ApiError

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""The headers of every response."""

_OWN = ("same-origin", "none")


def check_access(scope: Any, *, is_page: bool) -> None:
    """Raise ApiError unless a browser on this machine asks for itself or for the console, or by a link to a page."""
    headers = {name: [value.lower() for value in values] for name, values in headers_by_name(scope).items()}
    hosts, (peer, _) = headers.get("host", []), scope.get("client") or (None, 0)
    if not is_this_machine(peer) or len(hosts) != 1 or not is_loopback_host(hosts[0]):
        message = "the console serves this machine only: open it as http://127.0.0.1 or http://localhost, with its port"
        raise ApiError("permission_denied", message)
    site = headers.get("sec-fetch-site", ["none"])
    # A link opens the page in a window, not in a frame and not for a script.
    is_window = headers.get("sec-fetch-mode") == ["navigate"] and headers.get("sec-fetch-dest") in (None, ["document"])
    if is_page and scope["method"] == "GET" and "origin" not in headers and is_window:
        return
    origins = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
    if not all(one in _OWN for one in site) or not origins.issuperset(headers.get("origin", [])):
        raise ApiError("permission_denied", "other sites may only link to the page of the console")


def headers_by_name(scope: Any) -> dict[str, list[str]]:
    """Return the values of each header of a request, by its name in lower case."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return headers
