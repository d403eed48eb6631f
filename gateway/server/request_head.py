"""The head of a request: as ASGI has it, and known again without being parsed.

A client that keeps its connection sends the same head with each request, but for the digits of its length.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.body import announces_body
from gateway.api.line import HEAD, SameHead

_COMMON_URL_BYTES = 256
_LENGTH = b"content-length"
_FRAMING = (_LENGTH, b"transfer-encoding")
_LENGTH_LINE = b"\r\ncontent-length: "
# Few heads have this elsewhere, in whichever letters they are.
_LENGTH_END = b"ength: "
_MOST_DIGITS = 15
# One is remembered for each connection, idle ones among them, twice over: a caller must not choose how much that is.
_MOST_HEAD_BYTES = 4096
_MOST_STRANGERS = 8
"""Who sends so many heads in a row that were not known passes on the requests of others."""


class KnownHead:
    """The head of a connection's last request, to know it again.

    fresh: what has come and begins with a head, while the parser reads it; empty where it doesn't begin so.
    """

    __slots__ = ("_after", "_before", "_headers", "_place", "_scope", "_strangers", "fresh")

    def __init__(self) -> None:
        self.fresh = b""
        # No data begins with both.
        self._before = self._after = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._place = 0
        self._scope: dict[str, Any] = {}
        self._strangers = 0

    def forget(self) -> None:
        """There is no head to be known again."""
        self._before = b""
        self._scope = {}

    def learn(self, headers: list[tuple[bytes, bytes]], scope: dict[str, Any]) -> None:
        """The parser has read this head, of a request of HTTP/1.1 that another may follow.

        scope: its own, as ASGI has it, without headers and state.
        """
        self.forget()
        if not self.fresh or self._strangers >= _MOST_STRANGERS:
            return
        self._strangers += 1
        head = self.fresh[: self.fresh.find(b"\r\n\r\n", 0, _MOST_HEAD_BYTES) + 4]
        at = head.find(_LENGTH_END) + len(_LENGTH_END)
        end = head.find(b"\r\n", at)
        length = _LENGTH, head[at:end]
        # A line for each header, the first and the empty one: none is folded, and none ends otherwise.
        if (
            head[max(at - len(_LENGTH_LINE), 0) : at].lower() == _LENGTH_LINE
            and length in headers
            and head.count(b"\n") == head.count(b"\r\n") == len(headers) + 2
        ):
            self._before, self._after = head[:at], head[end:]
            self._headers, self._place = headers.copy(), headers.index(length)
            self._scope = {**scope, "extensions": {**scope["extensions"], HEAD: SameHead()}}

    def opens(self, data: bytes) -> tuple[dict[str, Any], int, int] | None:
        """Whether `data` is one request with this head and any length, or its beginning: its scope, without state,
        where the body begins, and how many bytes of it are missing."""
        before, after = self._before, self._after
        if not before or not data.startswith(before):
            return None
        at = len(before)
        end = data.find(b"\r\n", at, at + _MOST_DIGITS + 2)
        if end < 0 or not data.startswith(after, end) or not (digits := data[at:end]).isdigit():
            return None
        start = end + len(after)
        missing_bytes = start + int(digits) - len(data)
        if missing_bytes < 0:
            return None
        self._strangers = 0
        headers = self._headers.copy()
        headers[self._place] = _LENGTH, digits
        scope = self._scope.copy()
        scope["headers"] = headers
        return scope, start, missing_bytes


def shared_scope(connection: HttpToolsProtocol, extensions: dict[str, Any]) -> dict[str, Any]:
    """What every request of this connection has, for ASGI."""
    return {
        "type": "http",
        "asgi": {"version": connection.asgi_version, "spec_version": "2.3"},
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "root_path": connection.root_path,
        "extensions": extensions,
    }


def request_scope(shared: dict[str, Any], version: str, method: str, url: bytes) -> dict[str, Any]:
    """The same with what a request's first line says; raises HttpParserInvalidURLError."""
    path, raw_path, query = (_split_common if len(url) <= _COMMON_URL_BYTES else _split)(url)
    scope = shared.copy()
    scope["http_version"] = version
    scope["method"] = method
    scope["path"] = shared["root_path"] + path
    scope["raw_path"] = raw_path
    scope["query_string"] = query
    return scope


def why_wrong(names: list[bytes], version: str) -> str | None:
    """Why a head that is valid HTTP is refused all the same, if it is; `names` are those of its headers."""
    hosts = names.count(b"host")
    if hosts != 1 and (hosts or version == "1.1"):
        # RFC 9112, section 3.2: two are read differently by two servers.
        return "an HTTP/1.1 request has exactly one `host` header"
    return None


def framing_of(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The lines of these headers that say where the body ends; none where there is no body."""
    if not announces_body(dict(headers)):
        return b""
    return b"".join(b"%b: %b\r\n" % pair for pair in headers if pair[0] in _FRAMING)


def body_parser(connection: HttpToolsProtocol, framing: bytes) -> httptools.HttpRequestParser:
    """A parser that stands behind a head with these lines, and tells the connection of the body and nothing else.

    The one that reads a head with `upgrade` takes what follows for another protocol's. A client may offer one with any
    request (RFC 9110, section 7.8), as Java's does over plain HTTP.
    """
    parser = httptools.HttpRequestParser(_BodyAlone(connection))
    parser.feed_data(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b\r\n" % framing)
    return parser


class _BodyAlone:
    def __init__(self, connection: HttpToolsProtocol) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


def _split(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query of a request's target."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


# Nearly every request of a gateway has the same target.
_split_common = lru_cache(maxsize=1024)(_split)
