"""The protocol of systemd: sockets by name, readiness, reloads and heartbeats.

The protocols are those of systemd's manual pages sd_listen_fds(3) and sd_notify(3), November 2026. Without systemd,
nothing is sent and no socket is taken.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, MutableMapping

_FIRST_DESCRIPTOR = 3
_MICROSECONDS = 1_000_000


def sockets_by_name(environ: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """Return the listening sockets that the service manager opened, by their names, and forget them.

    Their variables are removed from the environment, so that no child takes the sockets too.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    sockets = {}
    for index in range(int(count)):
        listener = socket.socket(fileno=_FIRST_DESCRIPTOR + index)
        listener.set_inheritable(False)
        listener.setblocking(False)
        sockets[names[index] if index < len(names) else ""] = listener
    return sockets


class ServiceManager:
    """The connection to the service manager that started this process, if there is one.

    With the variables of `environment`, the next process of the service reaches it.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        # Children must not speak for the service.
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watched_pid, interval = environ.pop("WATCHDOG_PID", ""), environ.pop("WATCHDOG_USEC", "")
        is_watched = interval.isdecimal() and watched_pid in ("", str(os.getpid()))
        self._heartbeat_s = int(interval) / _MICROSECONDS / 2 if is_watched else None
        variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": interval if is_watched else ""}
        self.environment = {name: value for name, value in variables.items() if value}
        self._is_reloading = self._is_stopping = False

    def note_ready(self, version: str) -> None:
        """Report that the gateway serves a config version, or that a reload has ended."""
        self._is_reloading = False
        # A heartbeat too: after a handover, the last one may be long ago.
        beat = ["WATCHDOG=1"] if self._heartbeat_s is not None else []
        self._send("READY=1", f"STATUS=serves config {version}", *beat)

    def reloading(self, reload: Callable[[], None]) -> Callable[[], None]:
        """Return a function that requests a reload and reports its begin. `note_change` reports its end."""

        def requested() -> None:
            self._is_reloading = True
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            reload()

        return requested

    def note_change(self, version: str) -> None:
        """Report the active version after an attempt to change it."""
        if self._is_reloading:
            self.note_ready(version)
        else:
            self._send(f"STATUS=serves config {version}")

    def note_stopping(self) -> None:
        """Report that the gateway begins to drain or to stop."""
        if not self._is_stopping:
            self._is_stopping = True
            self._send("STOPPING=1", "STATUS=finishes running requests")

    def hand_over(self, pid: int) -> None:
        """Report the process that is the service from now on. This one reports nothing more."""
        self._send(f"MAINPID={pid}")
        self._address, self._heartbeat_s = "", None

    async def beat(self) -> None:
        """Send heartbeats until it is cancelled, if the service manager asked for them."""
        while self._heartbeat_s is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._heartbeat_s)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                # The manager is gone or busy, and decides what that means. Requests are served all the same.
                return
