"""Timers of a connection: how long it may be idle, whether its client is there, and whether it reads its answer.

A connection that is not read does not report that its client has left, and a client that does not read keeps its
answer in the memory of the gateway. Both are found here by looking from time to time.
"""

from __future__ import annotations

import asyncio
import select

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.connection import NOT_TAKEN, ClientConnection

_CHECK_INTERVAL_S = 1.0
# POLLRDHUP reports that the client has closed its direction only. Not every system has it.
_LEFT = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class IdleTimeoutProtocol(HttpToolsProtocol):
    """uvicorn's protocol with three more reasons to end a connection.

    It closes a connection that is idle for `timeout_keep_alive`, aborts one whose client takes no byte of its answer
    for as long, and aborts one whose client has left while requests wait and reading is paused.
    """

    _line: ClientConnection
    idle_since: float | None = None
    """The loop's time since which there is nothing to do; None while there is."""
    _leaving_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None
    _unread_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.timeout_keep_alive_task, self._leaving_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # Idle connections.

    def start_idling(self) -> None:
        """Note that there is nothing to do from now on.

        One timer runs from the first such moment on, and checks again when it fires. To set and cancel a timer for
        each request costs as much as parsing its JSON.
        """
        self.idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._check_idle_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for the whole time."""
        self.timeout_keep_alive_task = None
        if self.idle_since is None:
            return
        remaining_s = self.idle_since + self.timeout_keep_alive - self.loop.time()
        if remaining_s > 0:
            self._check_idle_in(remaining_s)
        elif self.transport.get_write_buffer_size() > 0:
            # The client does not read its answer. A close would wait for that and keep the answer in memory.
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _check_idle_in(self, delay_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(delay_s, self.timeout_keep_alive_handler)

    # Clients that have left while the connection is not read.

    def has_left(self) -> bool:
        """Whether the operating system knows that the client has closed its end, read or not."""
        sock = self.transport.get_extra_info("socket")
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), _LEFT)
        return bool(poll.poll(0))

    def watch_for_leaving(self) -> None:
        """Check from time to time as long as requests wait, because reading may be paused meanwhile."""
        if self._leaving_timer is None:
            self._leaving_timer = self.loop.call_later(_CHECK_INTERVAL_S, self._check_leaving)

    def _check_leaving(self) -> None:
        self._leaving_timer = None
        if self.has_left():
            self.transport.abort()
        elif self.has_waiting():
            self.watch_for_leaving()

    def has_waiting(self) -> bool:
        """Whether requests wait for the response to an earlier one."""
        raise NotImplementedError

    # Clients that do not read their answer.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _watch_reading(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(self.timeout_keep_alive, self._check_reading)

    def _check_reading(self) -> None:
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_reading()
        else:
            self._line.why_lost = NOT_TAKEN
            self.transport.abort()
