"""HTTP responses as bytes: those that every client accepts, those that none may accept, and those that only this client
refuses.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LEGAL", "NO_SECOND", "REFUSED", "STRICTER", "Wire"]

_OK = b"HTTP/1.1 200 OK\r\n"
_HI = b"content-length: 2\r\n\r\nhi"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_POISON = _OK + b"content-length: 6\r\n\r\npoison"


@dataclass(frozen=True)
class Wire:
    """The bytes of a response. `then` is what the server does after them: `keep`, `close` or `reset`."""

    data: bytes
    then: str = "keep"


LEGAL: dict[str, Wire] = {
    "a length": Wire(_OK + b"Content-Length: 5\r\n\r\nhello"),
    "a length of zero": Wire(_OK + b"content-length: 0\r\n\r\n"),
    "chunks": Wire(_CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
    "chunked in capitals": Wire(_OK + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    "chunks with extensions": Wire(_CHUNKED + b'5;a=b;c="d;e";f\r\nhello\r\n0;z\r\n\r\n'),
    "chunks with trailers": Wire(_CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nStatus: 500\r\n\r\n"),
    "sizes with leading zeros": Wire(_CHUNKED + b"0000A\r\n0123456789\r\n00\r\n\r\n"),
    "a body that looks like a head": Wire(_CHUNKED + b"11\r\nHTTP/1.1 500 X\r\n\r\r\n0\r\n\r\n"),
    "no chunks": Wire(_CHUNKED + b"0\r\n\r\n"),
    "100 before": Wire(b"HTTP/1.1 100 Continue\r\n\r\n" + _OK + _HI),
    "102 and 103 before": Wire(b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + _OK + _HI),
    "100 with a length before": Wire(b"HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\n" + _OK + _HI),
    "to the close, HTTP/1.0": Wire(b"HTTP/1.0 200 OK\r\n\r\nhello", "close"),
    "to the close, HTTP/1.1": Wire(_OK + b"content-type: text/plain\r\n\r\nhello", "close"),
    "an empty body, ended by the close": Wire(_OK + b"\r\n", "close"),
    "a length, HTTP/1.0": Wire(b"HTTP/1.0 200 OK\r\n" + _HI, "close"),
    "kept alive, HTTP/1.0": Wire(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + _HI),
    "connection: close": Wire(_OK + b"Connection: close\r\n" + _HI),
    "connection: close, among others": Wire(_OK + b"Connection: x, Close\r\n" + _HI),
    "204": Wire(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": Wire(b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n"),
    "304 with a length": Wire(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
    "an error": Wire(b"HTTP/1.1 503 Busy\r\nretry-after: 2\r\n" + _HI),
    "an unregistered status": Wire(b"HTTP/1.1 599 X\r\n" + _HI),
    "no reason": Wire(b"HTTP/1.1 200 \r\n" + _HI),
    "no reason and no space": Wire(b"HTTP/1.1 200\r\n" + _HI),
    "a reason beyond ASCII": Wire(b"HTTP/1.1 200 \xe6\x9c\x89\r\n" + _HI),
    "repeated headers": Wire(_OK + b"Set-Cookie: a=1\r\nset-cookie: b=2\r\n" + _HI),
    "white space around a value": Wire(_OK + b"x-y: \t v w \t \r\nempty:\r\nblank: \r\n" + _HI),
    "a value beyond ASCII": Wire(_OK + b"x-y: \xe6\x9c\x89\r\n" + _HI),
    "an offered upgrade": Wire(_OK + b"Upgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\n" + _HI),
    "a head of 60 KB": Wire(_OK + b"x: " + b"a" * 60_000 + b"\r\n" + _HI),
}
"""Responses that both clients accept, with the same result."""

NO_SECOND: dict[str, Wire] = {
    "a byte too many": Wire(_OK + _HI + b"!"),
    "the first letter of another": Wire(_OK + _HI + b"H"),
    "an unrequested response": Wire(_OK + _HI + _POISON),
    "another response after chunks": Wire(_CHUNKED + b"2\r\nhi\r\n0\r\n\r\n" + _POISON),
    "another response after trailers": Wire(_CHUNKED + b"2\r\nhi\r\n0\r\na: b\r\n\r\n" + _POISON),
    "another response after 204": Wire(b"HTTP/1.1 204 No Content\r\ncontent-length: 80\r\n\r\n" + _POISON),
    "another response after a close": Wire(_OK + b"connection: close\r\n" + _HI + _POISON),
    "an interim response after it": Wire(_OK + _HI + b"HTTP/1.1 100 Continue\r\n\r\n"),
    "half of another response": Wire(_OK + _HI + _POISON[:-20]),
}
"""A complete answer, followed by bytes that must not become the answer to the next request."""

STRICTER: dict[str, tuple[Wire, str]] = {
    "the same length twice": (Wire(_OK + b"content-length: 2\r\n" + _HI), "llhttp accepts only one"),
    "a list of lengths": (Wire(_OK + b"content-length: 2, 2\r\n\r\nhi"), "llhttp accepts only one"),
    "a length and chunks": (
        Wire(_OK + b"content-length: 2\r\n" + _CHUNKED[len(_OK) :] + b"2\r\nhi\r\n0\r\n\r\n"),
        "RFC 9112, section 6.3: should be handled as an error",
    ),
    "chunks and a length": (
        Wire(_OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        "RFC 9112, section 6.3: should be handled as an error",
    ),
    "a space after a chunk's size": (Wire(_CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n"), "RFC 9112, section 7.1: no such space"),
    "a length among the trailers": (
        Wire(_CHUNKED + b"2\r\nhi\r\n0\r\ncontent-length: 3\r\n\r\n"),
        "RFC 9110, section 6.5.1: framing fields are not allowed in trailers",
    ),
    "a folded header": (Wire(_OK + b"x: a\r\n b\r\n" + _HI), "RFC 9112, section 5.2: obsolete"),
    "a control character in a header": (Wire(_OK + b"x: a\x01b\r\n" + _HI), "RFC 9110, section 5.5: invalid"),
    "a delete in a header": (Wire(_OK + b"x: a\x7fb\r\n" + _HI), "RFC 9110, section 5.5: invalid"),
    "line feeds alone": (Wire(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi"), "RFC 9112, section 2.2: lines end in CRLF"),
    "HTTP/1.2": (Wire(b"HTTP/1.2 200 OK\r\n" + _HI), "there is no such version"),
    "a head of 90 KB": (
        Wire(_OK + b"x: " + b"a" * 90_000 + b"\r\n" + _HI),
        "the limit is 64 KB here and 100 KB in httpx",
    ),
    "endless interim responses": (
        Wire(b"HTTP/1.1 103 E\r\n\r\n" * 30_000 + _OK + _HI),
        "they count as one head, which has a limit",
    ),
    "an interim response that closes": (
        Wire(b"HTTP/1.1 100 Continue\r\nconnection: close\r\n\r\n" + _OK + _HI),
        "bytes after a close are not read",
    ),
    "an interim response of HTTP/1.0": (
        Wire(b"HTTP/1.0 100 Continue\r\n\r\n" + _OK + _HI),
        "RFC 9110, section 15.2: HTTP/1.0 has none, and closes after each response",
    ),
}
"""Responses that httpx accepts and this client refuses, with the reason."""

REFUSED: dict[str, Wire] = {
    "two lengths": Wire(_OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhi!", "close"),
    "a length below zero": Wire(_OK + b"content-length: -2\r\n\r\nhi", "close"),
    "a length with a plus": Wire(_OK + b"content-length: +2\r\n\r\nhi", "close"),
    "a length that is not a number": Wire(_OK + b"content-length: 0x2\r\n\r\nhi", "close"),
    "an empty length": Wire(_OK + b"content-length:\r\n\r\nhi", "close"),
    "two numbers for a length": Wire(_OK + b"content-length: 2 2\r\n\r\nhi", "close"),
    "a length beyond 64 bits": Wire(_OK + b"content-length: 99999999999999999999999\r\n\r\nhi", "close"),
    "a length that is never reached": Wire(_OK + b"content-length: 18446744073709551615\r\n\r\nhi", "close"),
    "gzip as transfer-encoding": Wire(_OK + b"transfer-encoding: gzip\r\n\r\nhi", "close"),
    "gzip, chunked": Wire(_OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "close"),
    "chunked, gzip": Wire(_OK + b"transfer-encoding: chunked, gzip\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "close"),
    "chunked twice": Wire(_OK + b"transfer-encoding: chunked\r\n" + _CHUNKED[len(_OK) :] + b"0\r\n\r\n", "close"),
    "identity": Wire(_OK + b"transfer-encoding: identity\r\n\r\nhi", "close"),
    "xchunked": Wire(_OK + b"transfer-encoding: xchunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "close"),
    "an empty transfer-encoding": Wire(_OK + b"transfer-encoding:\r\n\r\nhi", "close"),
    "a chunk's size that is not a number": Wire(_CHUNKED + b"zz\r\nhi\r\n0\r\n\r\n", "close"),
    "a chunk's size below zero": Wire(_CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n", "close"),
    "a chunk's size with 0x": Wire(_CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n", "close"),
    "a chunk's size with a plus": Wire(_CHUNKED + b"+2\r\nhi\r\n0\r\n\r\n", "close"),
    "a chunk without a size": Wire(_CHUNKED + b"\r\nhi\r\n0\r\n\r\n", "close"),
    "a chunk's size beyond 64 bits": Wire(_CHUNKED + b"f" * 17 + b"\r\nhi\r\n0\r\n\r\n", "close"),
    "a chunk's size far beyond": Wire(_CHUNKED + b"f" * 40 + b"\r\nhi\r\n0\r\n\r\n", "close"),
    "a chunk longer than its size": Wire(_CHUNKED + b"2\r\nhi!\r\n0\r\n\r\n", "close"),
    "line feeds alone in chunks": Wire(_CHUNKED + b"2\nhi\n0\n\n", "close"),
    "no last chunk": Wire(_CHUNKED + b"2\r\nhi\r\n", "close"),
    "a last chunk without its end": Wire(_CHUNKED + b"2\r\nhi\r\n0\r\n", "close"),
    "a body shorter than its length": Wire(_OK + b"content-length: 5\r\n\r\nhi", "close"),
    "a body that is reset": Wire(_OK + b"content-length: 5\r\n\r\nhi", "reset"),
    "nothing": Wire(b"", "close"),
    "a reset": Wire(b"", "reset"),
    "half a head": Wire(b"HTTP/1.1 200 OK\r\ncont", "close"),
    "an interim response only": Wire(b"HTTP/1.1 100 Continue\r\n\r\n", "close"),
    "garbage": Wire(b"garbage\r\n\r\n", "close"),
    "another protocol": Wire(b"SSH-2.0-OpenSSH_9.9\r\n", "close"),
    "another protocol like HTTP": Wire(b"RTSP/1.0 200 OK\r\n" + _HI, "close"),
    "a page without a head": Wire(b"<html>hi</html>", "close"),
    "a request": Wire(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "close"),
    "a version of one digit": Wire(b"HTTP/2 200 OK\r\n" + _HI, "close"),
    "a version that is not a number": Wire(b"HTTP/x.y 200 OK\r\n" + _HI, "close"),
    "an empty line first": Wire(b"\r\n" + _OK + _HI, "close"),
    "a status of 0": Wire(b"HTTP/1.1 000 X\r\n" + _HI, "close"),
    "a status of 99": Wire(b"HTTP/1.1 099 X\r\n" + _HI, "close"),
    "a status of two digits": Wire(b"HTTP/1.1 20 X\r\n" + _HI, "close"),
    "a status of four digits": Wire(b"HTTP/1.1 2000 X\r\n" + _HI, "close"),
    "no status": Wire(b"HTTP/1.1 OK\r\n" + _HI, "close"),
    "a NUL in a header": Wire(_OK + b"x: a\0b\r\n" + _HI, "close"),
    "a carriage return in a header": Wire(_OK + b"x: a\rb\r\n" + _HI, "close"),
    "a space before the colon": Wire(_OK + b"content-length : 2\r\n\r\nhi", "close"),
    "a space in a header's name": Wire(_OK + b"x y: 2\r\n" + _HI, "close"),
    "a space before the first header": Wire(_OK + b" x: 2\r\n" + _HI, "close"),
    "a header without a colon": Wire(_OK + b"xyz\r\n" + _HI, "close"),
    "a header without a name": Wire(_OK + b": v\r\n" + _HI, "close"),
    "101": Wire(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: ws\r\n\r\nxyz", "close"),
    "101 before a response": Wire(b"HTTP/1.1 101 Switching\r\n\r\n" + _OK + _HI, "close"),
    "40,000 headers": Wire(_OK + b"".join(b"x-%d: y\r\n" % i for i in range(40_000)) + b"\r\n"),
    "a header of 400 KB": Wire(_OK + b"x: " + b"a" * 400_000 + b"\r\n" + _HI),
    "an endless header": Wire(_OK + b"x: " + b"a" * 400_000),
    "an endless reason": Wire(b"HTTP/1.1 200 " + b"a" * 400_000),
    "an endless trailer": Wire(_CHUNKED + b"2\r\nhi\r\n0\r\nx: " + b"a" * 600_000),
    "an endless chunk extension": Wire(_CHUNKED + b"2;x=" + b"a" * 600_000),
}
"""Responses that neither client accepts."""
