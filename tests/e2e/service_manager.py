"""The receiving end of a service manager such as systemd."""

from __future__ import annotations

import secrets
import socket
import threading


class Manager:
    """The receiving end of a service manager, at an abstract address."""

    def __init__(self) -> None:
        self.address = f"@gateway-{secrets.token_hex(8)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.address[1:]}")
        self.told: list[str] = []
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        while message := self._socket.recv(4096):
            self.told.append(message.decode())

    def has_been_told(self, words: str, times: int = 1) -> bool:
        return sum(words in message.splitlines() for message in self.told) >= times
