"""The plain page at `/` for browsers: the name, the version and the documentation. No configuration, no state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.api.raw_responses import Probe, RawResponse

_PAGE = Path(__file__).with_suffix(".html").read_text("utf-8").replace("VERSION", __version__)
_HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "vary": "accept",
}
HTML = "text/html; charset=utf-8"


def accepts_html(scope: Any) -> bool:
    """Return whether the client is a browser that opens a page: its `accept` header names HTML."""
    return any(name == b"accept" and b"text/html" in value.lower() for name, value in scope["headers"])


async def _respond(_: object) -> RawResponse:
    return RawResponse(_PAGE.encode(), headers=_HEADERS, kind=HTML)


HELLO_PATHS = frozenset({"/", "/api/hello"})
"""Where a client asks with HEAD whether the gateway is there. Claude Code opens its connection with the second."""
FRONT_PAGE = Probe(_respond)
"""The endpoint of `/` for browsers. HEAD is answered for every client: SDKs check with it that the gateway is there."""
