"""The headers of requests, as a server passes them on."""

from gateway.api.caller.request_headers import headers_of
from gateway.model.caller import RequestHeaders


def visit(*pairs: tuple[str, str | bytes], peer: str | None = "127.0.0.1", query: str = "") -> RequestHeaders:
    """Return the headers of a request from this address."""
    headers = [(name.encode(), value if isinstance(value, bytes) else value.encode("utf-8")) for name, value in pairs]
    return headers_of({"headers": headers, "client": (peer, 1) if peer else None, "query_string": query.encode()})


def visit_with(token: str, *more: tuple[str, str | bytes], peer: str = "10.0.0.1") -> RequestHeaders:
    """Return the headers of a request with this key or token from another machine."""
    return visit(("authorization", f"Bearer {token}"), *more, peer=peer)
