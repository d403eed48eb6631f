"""The ASGI scope of a request, made from its head or from the equal head of the request before it.

A client that keeps its connection open sends the same head with each request, except for the digits of
`content-length`. `RepeatedHead` recognises such a head without parsing it again.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.body import announces_body
from gateway.api.connection import HEAD, SameHead

_CACHED_TARGET_BYTES = 256
_LENGTH = b"content-length"
_VERSIONS = ("1.1", "1.0")
_FRAMING = (_LENGTH, b"transfer-encoding")
_LENGTH_LINE = b"\r\ncontent-length: "
# Matches both usual spellings of the name. Few heads contain it anywhere else.
_LENGTH_LINE_END = b"ength: "
_MAX_LENGTH_DIGITS = 15
# Each connection, idle or not, keeps one head, twice: a client must not decide how much memory that takes.
_MAX_HEAD_BYTES = 4096
_LONG_BYTES = 4096
_MAX_UNMATCHED = 8
"""After so many different heads in a row, the client is taken for a proxy that passes on requests of others."""


class RepeatedHead:
    """The head of the last request on a connection, to recognise it in the next one without the parser."""

    __slots__ = ("_after", "_before", "_headers", "_length_index", "_scope", "_unmatched")

    def __init__(self) -> None:
        # The head before and after the digits of its length. No data is matched while `_before` is empty.
        self._before = self._after = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._length_index = 0
        self._scope: dict[str, Any] = {}
        self._unmatched = 0

    def forget(self) -> None:
        """Match no head until another is remembered."""
        self._before = b""
        self._scope = {}

    def remember(self, data: bytes, headers: list[tuple[bytes, bytes]], scope: dict[str, Any]) -> None:
        """Remember the head of an HTTP/1.1 request that the parser has read, if it can be recognised safely.

        `data` begins with this head, or is empty if it came in pieces or after other data.
        """
        self.forget()
        if not data or self._unmatched >= _MAX_UNMATCHED:
            return
        self._unmatched += 1
        head = data[: data.find(b"\r\n\r\n", 0, _MAX_HEAD_BYTES) + 4]
        start = head.find(_LENGTH_LINE_END) + len(_LENGTH_LINE_END)
        end = head.find(b"\r\n", start)
        length = _LENGTH, head[start:end]
        # One line for each header, one for the request line and an empty one: no header is folded over two lines, and
        # no line ends with a line feed alone.
        if (
            head[max(start - len(_LENGTH_LINE), 0) : start].lower() == _LENGTH_LINE
            and length in headers
            and head.count(b"\n") == head.count(b"\r\n") == len(headers) + 2
        ):
            self._before, self._after = head[:start], head[end:]
            self._headers, self._length_index = headers.copy(), headers.index(length)
            self._scope = {**scope, "extensions": {**scope["extensions"], HEAD: SameHead()}}

    def match(self, data: bytes) -> tuple[dict[str, Any], int, int] | None:
        """Recognise one request, or the beginning of one, with the remembered head and any length.

        Return None if `data` is anything else. Otherwise return the request's scope without `state`, the index at which
        its body begins, and the number of bytes of the body that are still to come.
        """
        before, after = self._before, self._after
        if not before or not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r\n", start, start + _MAX_LENGTH_DIGITS + 2)
        if end < 0 or not data.startswith(after, end) or not (digits := data[start:end]).isdigit():
            return None
        body_start = end + len(after)
        missing_bytes = body_start + int(digits) - len(data)
        if missing_bytes < 0:
            return None
        self._unmatched = 0
        headers = self._headers.copy()
        headers[self._length_index] = _LENGTH, digits
        scope = self._scope.copy()
        scope["headers"] = headers
        return scope, body_start, missing_bytes


def connection_scope(connection: HttpToolsProtocol, extensions: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the ASGI scope that all requests of this connection share."""
    return {
        "type": "http",
        "asgi": {"version": connection.asgi_version, "spec_version": "2.3"},
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "root_path": connection.root_path,
        "extensions": extensions,
    }


def request_scope(shared: dict[str, Any], version: str, method: str, target: bytes) -> dict[str, Any]:
    """Return the shared scope with the contents of a request line; raise HttpParserInvalidURLError."""
    path, raw_path, query = (_split_cached if len(target) <= _CACHED_TARGET_BYTES else _split)(target)
    scope = shared.copy()
    scope["http_version"] = version
    scope["method"] = method
    scope["path"] = shared["root_path"] + path
    scope["raw_path"] = raw_path
    scope["query_string"] = query
    return scope


def head_error(headers: list[tuple[bytes, bytes]], names: list[bytes], version: str) -> str | None:
    """Return why a head that the parser accepts is refused, or None. `names` are the names of its headers."""
    if version not in _VERSIONS:
        return f"HTTP/{version} is not supported: send the request as HTTP/1.1"
    if b"transfer-encoding" in names:
        codings = [value.strip(b" \t").lower() for name, value in headers if name == b"transfer-encoding"]
        if codings != [b"chunked"]:
            # A proxy may not know the coding, and then look for the end of the body in another place.
            return "only `chunked` is a supported transfer coding: send `transfer-encoding: chunked` or a length"
    hosts = names.count(b"host")
    if hosts != 1 and (hosts or version == "1.1"):
        # RFC 9112, section 3.2. Two servers may pick different ones of two `host` headers.
        return "an HTTP/1.1 request has exactly one `host` header"
    return None


def names_other_protocol(data: bytes | bytearray, head: bytes, method: str, target: bytes) -> bool:
    """Return whether the request line in `data`, or in the same `head`, names RTSP or ICE, which look like HTTP."""
    if len(data) > _LONG_BYTES and (head := head.lstrip(b"\r\n")):
        data = head[: head.find(b"\n") + 1]  # what comes after it may be much of a body
    if b" RTSP/" not in data and b" ICE/" not in data:
        return False
    # The line ends after the version. JSON has no line break in a string, so a body does not contain such a line.
    line = rb"%b +%b +(?:RTSP|ICE)/\d\.\d\r?\n" % (method.encode(), re.escape(target))
    return re.search(line, data) is not None


def framing_lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the header lines that determine where the body ends; empty if there is no body."""
    if not announces_body(dict(headers)):
        return b""
    return b"".join(b"%b: %b\r\n" % pair for pair in headers if pair[0] in _FRAMING)


def body_parser(connection: HttpToolsProtocol, framing: bytes) -> httptools.HttpRequestParser:
    """Return a parser that has read a head with these framing lines and reports only the body to the connection.

    The parser that has read a head with `upgrade` takes the bytes after it for another protocol. A client may offer an
    upgrade with any request (RFC 9110, section 7.8); Java's HTTP client does so over plain HTTP.
    """
    parser = httptools.HttpRequestParser(_BodyCallbacks(connection))
    parser.feed_data(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b\r\n" % framing)
    return parser


class _BodyCallbacks:
    # The parser takes the callbacks from this object once, when it is made.
    def __init__(self, connection: HttpToolsProtocol) -> None:
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


def _split(target: bytes) -> tuple[str, bytes, bytes]:
    """Return path, raw path and query of a request's target."""
    parsed = httptools.parse_url(target)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


# Nearly all requests of a gateway have the same target.
_split_cached = lru_cache(maxsize=1024)(_split)
