"""The static files of the console: the style sheet, the script, the icon and the silhouette of land."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from providers.value import Value

_FOLDER = Path(__file__).parent / "static"
_KINDS: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
STATIC = "/console/static/"


class Asset(Value, frozen=True):
    """A static file with its content type."""

    body: bytes
    kind: str


@cache
def assets() -> Mapping[str, Asset]:
    """Return every static file by its name. They are read once, so a request reads no file."""
    return {
        path.name: Asset(path.read_bytes(), _KINDS[path.suffix])
        for path in sorted(_FOLDER.iterdir())
        if path.suffix in _KINDS
    }


@cache
def asset_url(name: str) -> str:
    """Return the address of a file. It changes with the content, so browsers may keep the file."""
    return f"{STATIC}{name}?{hashlib.sha256(assets()[name].body).hexdigest()[:12]}"
