"""Take over from a running gateway: its listening sockets, the lock of the state directory.

The other side is `gateway.server.handover`, which describes the order. The running gateway gives this process one end
of a socket pair. Messages are lines of JSON: one to this process with the numbers of the open files, and one back.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

from gateway.operator_errors import CommandError
from gateway.release import release_name
from gateway.server.service_manager import ServiceManager
from gateway.state.lock import refuse_upgrades

VARIABLE = "GATEWAY_TAKEOVER"
"""The variable that names the descriptor of the socket pair."""

PROTOCOL = 2
"""It changes with the files in which a running gateway counts. Release 0.2.0 had 1."""

_OTHER_PROTOCOL = "the running gateway counts budgets in another place than this release: stop and start"
_MOST_BYTES = 65_536


class Takeover:
    """The connection to the running gateway, and what it has given. See `gateway.server.handover.Given`.

    `lock` is the descriptor of the locked file of the state directory, or None. The service manager accepts messages of
    this process after the handover.
    """

    def __init__(self, pair_end: socket.socket) -> None:
        self._pair_end = pair_end
        self._reader = pair_end.makefile("rb")
        # One call, because release 0.2.0 ends its message without a line end.
        first = json.loads(pair_end.recv(_MOST_BYTES))
        if first["protocol"] != PROTOCOL:
            self.report_failure(_OTHER_PROTOCOL)
            raise CommandError(_OTHER_PROTOCOL)
        files: dict[str, int] = first["files"]
        for descriptor in (pair_end.fileno(), *files.values()):
            os.set_inheritable(descriptor, False)
        # Until here, errors are written to a file of the running gateway, which reports them if this process ends.
        os.dup2(files["stderr"], 2)
        self.sockets = {name: socket.socket(fileno=files[name]) for name in first["listeners"]}
        for listener in self.sockets.values():
            listener.setblocking(False)
        self.lock = files.get("lock")
        self.consent_key = bytes.fromhex(first["consent_key"])
        self.service = ServiceManager(first["service"])
        refuse_upgrades()

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Takeover | None:
        """Return the takeover that this process was started for, or None. The variable is removed.

        Raises CommandError if the running gateway has another protocol. It knows the reason.
        """
        descriptor = environ.pop(VARIABLE, "")
        return cls(socket.socket(fileno=int(descriptor))) if descriptor.isdecimal() else None

    def report_failure(self, reason: str) -> None:
        """Report why this process cannot serve."""
        self._send({"failed": reason})

    async def report_ready(self, version: str) -> None:
        """Report that this process serves a config version, and return when the other one has handed over."""
        self._send({"ready": version, "release": release_name()})
        await asyncio.to_thread(self._reader.read)
        self._reader.close()
        self._pair_end.close()

    def _send(self, message: Mapping[str, object]) -> None:
        with suppress(OSError):  # the other process has ended; then this one goes on alone
            self._pair_end.sendall(json.dumps(message).encode() + b"\n")
