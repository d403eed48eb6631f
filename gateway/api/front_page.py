"""The plain page at `/` for browsers: the name, the version and the documentation. No configuration, no state."""

from __future__ import annotations

from typing import Any

from gateway import __version__
from gateway.api.raw_responses import Probe, RawResponse

_PAGE = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Assistant gateway</title>
</head>
<body>
<main>
<h1>Assistant gateway {__version__}</h1>
<p>One address for every model, in the form of OpenAI's, Anthropic's or Gemini's API, such as
<code>POST /v1/chat/completions</code>.</p>
<ul>
<li><a href="/docs">Documentation of the API</a></li>
<li><a href="/openapi.json">OpenAPI document</a></li>
</ul>
<p>The documentation for operators and developers is in the folder <code>docs</code> of the source: start with
<code>docs/index.md</code>.</p>
</main>
</body>
</html>
"""
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


FRONT_PAGE = Probe(_respond)
"""The endpoint of `/` for browsers. HEAD is answered for every client: SDKs check with it that the gateway is there."""
