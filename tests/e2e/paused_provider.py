"""A provider whose answer the test holds back, so that a request runs for as long as it must."""

from __future__ import annotations

import json
import socket
import threading

WORDS = "one two three four five six seven eight"
LIMIT_S = 90


class PausedProvider:
    """A provider that sends half of its text, and the rest when the test sets `goes_on`."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            half = len(WORDS) // 2
            connection.sendall(head + _event({"role": "assistant", "content": WORDS[:half]}))
            self.goes_on.wait(LIMIT_S)
            connection.sendall(_event({"content": WORDS[half:]}) + _event({}, "stop") + b"data: [DONE]\n\n")

    def close(self) -> None:
        self.goes_on.set()
        self._thread.join(LIMIT_S)
        self._listener.close()


def _event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()
