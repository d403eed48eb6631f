"""The static files of the console: the style sheet, the script, the icon and the silhouette of land."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from gateway.api.raw_responses import RawResponse

_FOLDER = Path(__file__).parent / "static"
_KINDS: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
STATIC = "/console/static/"
_KEPT = {"cache-control": "public, max-age=31536000, immutable"}


@cache
def assets() -> Mapping[str, RawResponse]:
    """Return the response with each static file, by its name. They are read once, so a request reads no file."""
    return {
        path.name: RawResponse(path.read_bytes(), headers=_KEPT, kind=_KINDS[path.suffix])
        for path in sorted(_FOLDER.iterdir())
        if path.suffix in _KINDS
    }


@cache
def asset_url(name: str) -> str:
    """Return the address of a file. It changes with the content, so browsers may keep the file."""
    return f"{STATIC}{name}?{hashlib.sha256(assets()[name].body).hexdigest()[:12]}"
