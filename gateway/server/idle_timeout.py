"""A client's connection while nothing moves on it: for how long it may idle, and whether its client is still there.

Who is not read isn't heard to leave, and who doesn't read keeps its answer in our memory.
"""

from __future__ import annotations

import asyncio
import select

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.line import NOT_TAKEN, Line

_LOOK_S = 1.0
# Of these only the end of the other direction has a name of its own, which not every system knows.
_LEFT = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class WatchedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which ends where its client has idled, has taken nothing for as long, or has left unheard.

    idle_since: None while there is something to do.
    """

    _line: Line
    idle_since: float | None = None
    _leaving_timer: asyncio.TimerHandle | None = None
    _taking_timer: asyncio.TimerHandle | None = None
    _untaken_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        for timer in (self.timeout_keep_alive_task, self._leaving_timer, self._taking_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    # For how long it may idle.

    def idle_again(self) -> None:
        """There is nothing to do from now on.

        One timer runs from the first of these moments on and looks again when it fires: one that is set and taken back
        for each request costs as much as parsing its JSON.
        """
        self.idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idling(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for all of the time."""
        self.timeout_keep_alive_task = None
        if self.idle_since is None:
            return
        left_s = self.idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._watch_idling(left_s)
        elif self.transport.get_write_buffer_size() > 0:
            # It doesn't read its answer: a close would wait for it, with the answer in our memory.
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _watch_idling(self, for_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(for_s, self.timeout_keep_alive_handler)

    # Whether its client is there.

    def has_left(self) -> bool:
        """Whether the client's end is known to the system, though nobody may have read as far."""
        sock = self.transport.get_extra_info("socket")
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), _LEFT)
        return bool(poll.poll(0))

    def watch_for_leaving(self) -> None:
        """Look from time to time, as long as requests wait and reading may stand still."""
        if self._leaving_timer is None:
            self._leaving_timer = self.loop.call_later(_LOOK_S, self._look_for_leaving)

    def _look_for_leaving(self) -> None:
        self._leaving_timer = None
        if self.has_left():
            self.transport.abort()
        elif self.has_waiting():
            self.watch_for_leaving()

    def has_waiting(self) -> bool:
        """Whether requests wait for the answer to the one before."""
        raise NotImplementedError

    # Whether it takes its answer.

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def _watch_taking(self) -> None:
        self._untaken_bytes = self.transport.get_write_buffer_size()
        self._taking_timer = self.loop.call_later(self.timeout_keep_alive, self._look_at_taking)

    def _look_at_taking(self) -> None:
        if self.transport.get_write_buffer_size() < self._untaken_bytes:
            self._watch_taking()
        else:
            self._line.why_lost = NOT_TAKEN
            self.transport.abort()
