"""HTTP responses as bytes: those that every client accepts, those that none may accept, and those that only this client
refuses. The file of data next to this module has them, but for the large ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.kit.case_files import tables_of

__all__ = ["LEGAL", "NO_SECOND", "REFUSED", "STRICTER", "Wire"]

_OK = b"HTTP/1.1 200 OK\r\n"
_HI = b"content-length: 2\r\n\r\nhi"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Wire:
    """The bytes of a response. `then` is what the server does after them: `keep`, `close` or `reset`."""

    data: bytes
    then: str = "keep"


def _wires(name: str) -> dict[str, Wire]:
    rows = {what: row if isinstance(row, list) else [row] for what, row in _TABLES[name].items()}
    return {what: Wire(text.encode("latin-1"), *then) for what, (text, *then) in rows.items()}


_TABLES = tables_of(__file__)
LEGAL = {**_wires("legal"), "a head of 60 KB": Wire(_OK + b"x: " + b"a" * 60_000 + b"\r\n" + _HI)}
"""Responses that both clients accept, with the same result."""

NO_SECOND = _wires("no_second")
"""A complete answer, followed by bytes that must not become the answer to the next request."""

STRICTER = {
    **{what: (Wire(text.encode("latin-1")), why) for what, (text, why) in _TABLES["stricter"].items()},
    "a head of 90 KB": (
        Wire(_OK + b"x: " + b"a" * 90_000 + b"\r\n" + _HI),
        "the limit is 64 KB here and 100 KB in httpx",
    ),
    "endless interim responses": (
        Wire(b"HTTP/1.1 103 E\r\n\r\n" * 30_000 + _OK + _HI),
        "they count as one head, which has a limit",
    ),
}
"""Responses that httpx accepts and this client refuses, with the reason."""

REFUSED = {
    **_wires("refused"),
    "40,000 headers": Wire(_OK + b"".join(b"x-%d: y\r\n" % i for i in range(40_000)) + b"\r\n"),
    "a header of 400 KB": Wire(_OK + b"x: " + b"a" * 400_000 + b"\r\n" + _HI),
    "an endless header": Wire(_OK + b"x: " + b"a" * 400_000),
    "an endless reason": Wire(b"HTTP/1.1 200 " + b"a" * 400_000),
    "an endless trailer": Wire(_CHUNKED + b"2\r\nhi\r\n0\r\nx: " + b"a" * 600_000),
    "an endless chunk extension": Wire(_CHUNKED + b"2;x=" + b"a" * 600_000),
}
"""Responses that neither client accepts."""
