"""A small server in a thread: a test writes its answers, and reads all that it has received."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Recipient(BaseHTTPRequestHandler):
    """Answers the requests of one connection. A test writes `do_POST`, which notes each in `received`."""

    protocol_version = "HTTP/1.1"
    received: list[tuple[str, bytes]]

    def body(self) -> bytes:
        """Read the body of the request."""
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        """Write a whole answer."""
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
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
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
