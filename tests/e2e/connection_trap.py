"""A listener that records every connection. Tests check that it received none."""

from __future__ import annotations

import http.server
from typing import Any


class Trap:
    """A server that must receive no connection."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        trap = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                trap.requests.append(self.path)
                self.send_response(200)
                self.end_headers()

            do_GET = do_CONNECT = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
