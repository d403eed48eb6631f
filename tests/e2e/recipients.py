"""A recipient of requests in a thread: a test reads all that it has received."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Recipient(BaseHTTPRequestHandler):
    """Answers the requests of one connection. A test writes `do_POST`, which notes each in `received`."""

    protocol_version = "HTTP/1.1"
    received: list[tuple[str, bytes]]

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        """Write a whole answer."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def receiving(recipient: type[Recipient], **members: object) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Run a recipient with these further members, and yield its origin and all that it receives."""
    received: list[tuple[str, bytes]] = []
    handler = type("This" + recipient.__name__, (recipient,), {"received": received, **members})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
