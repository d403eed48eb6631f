"""Who may ask the admin listener: programs and `curl`, not pages.

A browser on the same machine is kept from it, because any page could make that browser send a request here (CWE-352),
or pass for this listener by a name of its own (DNS rebinding, CWE-350).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.api.errors import ApiError

__all__ = ["Guard"]


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask. token: what a request must bring; None where only this machine can reach the listener.

    hosts: the names by which a request without a token may call it.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset({"localhost", "127.0.0.1", "[::1]"})

    def check(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise ApiError for who may not, by the headers of an ASGI scope; of one that came twice the first counts."""
        headers: dict[str, str] = {}
        for key, value in pairs:
            headers.setdefault(key.decode("latin-1"), value.decode("latin-1"))
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise ApiError("permission_denied", "a web page may not call this listener")
        kind = headers.get("content-type")
        if kind is not None and kind.partition(";")[0].strip().lower() != "application/json":
            raise ApiError("unsupported_media_type", "send no body, or `content-type: application/json`")
        if self.token is None:
            host = headers.get("host", "").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self.hosts:
                raise ApiError("permission_denied", "call this listener by its address, such as http://127.0.0.1")
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # The bytes of a header are UTF-8 where a program writes them, and Latin-1 where a browser does.
        shown, token = given.strip(" \t"), self.token.encode("utf-8")
        is_ours = any(hmac.compare_digest(shown.encode(charset), token) for charset in ("latin-1", "utf-8"))
        if scheme.lower() != "bearer" or not is_ours:
            raise ApiError("invalid_api_key", "send the admin token: `authorization: Bearer TOKEN`")
