"""The worker's memory for the bodies of requests: small ones are counted, large ones have room before they are read."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from gateway.api.errors import ApiError
from gateway.execution.deadline import Deadline
from gateway.undo import undone_on_failure
from providers.transport.pacing import Pacer

MAX_BODIES_BYTES = 256 * 1024 * 1024
SMALL_BODY_BYTES = 256 * 1024
"""A body up to this size never waits. One read from a socket may bring as much."""
ROOM_TIME_S = 10.0
MOST_WAITING = 64
"""How many bodies of a client wait unread. The connection of each may have as many bytes as a small body has."""
_SMALL_SHARE, _CLIENT_SHARE = 8, 4


class BodyLimits:
    """Counts the bytes of all bodies that this worker holds, and bounds them. Its pacer lets one large body bring more.

    These hold for everything that clients send, also very slowly:

    - All bodies together have at most `most_bytes`. Large ones leave an eighth of them to small ones.
    - A large body has room for all of it before more of it is read, so nothing that has room waits for further room.
    - While a client waits for room, another one gets none beyond a quarter. If it has more, its bodies that still
      arrive are refused until there is room, beginning with the one that has been silent for longest.
    - A wait ends: with room, with an error, or with the client.
    """

    def __init__(self, most_bytes: int = MAX_BODIES_BYTES) -> None:
        self._most_bytes = most_bytes
        self._most_large_bytes = most_bytes - most_bytes // _SMALL_SHARE
        self._most_of_client_bytes = most_bytes // _CLIENT_SHARE
        self._held_bytes = 0
        self._bytes_of: Counter[str] = Counter()
        # Those that still arrive. The one that has been silent for longest comes first.
        self._arriving: dict[BodyRoom, None] = {}
        # By client, without empty queues.
        self._waiting: dict[str, deque[BodyRoom]] = {}
        self.pacer = Pacer()

    def take(self, count: int, client: str | None = None) -> None:
        """Count further bytes of a small body; raises ApiError (overloaded) beyond the bound.

        client: The owner of the body, if it is still arriving.
        """
        while self._held_bytes + count > self._most_bytes:
            if not self._evict_for(client):
                raise no_room()
        self._held_bytes += count

    def give_back(self, count: int) -> None:
        """Stop counting bytes that are no longer held."""
        self._held_bytes -= count
        if self._waiting:
            self._admit()

    def _enqueue(self, room: BodyRoom) -> None:
        """Let a room wait. It may have what it needs at once; raises ApiError (overloaded) if too many wait."""
        queue = self._waiting.setdefault(room.client, deque())
        queue.append(room)
        self._admit()
        is_within_share = self._bytes_of[room.client] + room.most_bytes <= self._most_of_client_bytes
        while not room.is_large and is_within_share and self._evict_for(room.client):
            pass
        if not (room.is_large or room.held_bytes) and len(queue) > MOST_WAITING:
            raise no_room()

    def _leave(self, room: BodyRoom) -> None:
        queue = self._waiting.get(room.client, deque())
        if room in queue:
            queue.remove(room)
            if not queue:
                del self._waiting[room.client]
            self._admit()

    def _admit(self) -> None:
        """Give room to those that wait, as far as there is any."""
        while (room := self._next()) is not None:
            queue = self._waiting[room.client]
            queue.popleft()
            if not queue:
                del self._waiting[room.client]
            room.begin()

    def _next(self) -> BodyRoom | None:
        """Return the next one that gets room. The first that is within its share is not overtaken by smaller ones."""
        for client, queue in self._waiting.items():
            room = queue[0]
            if len(self._waiting) == 1 or self._bytes_of[client] + room.most_bytes <= self._most_of_client_bytes:
                is_free = self._held_bytes - room.held_bytes + room.most_bytes <= self._most_large_bytes
                return room if is_free else None
        return None

    def _evict_for(self, client: str | None) -> bool:
        """Refuse a body of another client that has more than its share; return whether there was one."""
        for room in self._arriving:
            if room.client != client and self._bytes_of[room.client] > self._most_of_client_bytes:
                room.evict()
                return True
        return False


class BodyRoom:
    """The part of `BodyLimits` that one body has while it arrives and is read, and then until its answer begins.

    All requests without a key are one client. If it `is_large`, it has room for `most_bytes`. If it `is_evicted`, it
    was refused while it arrived, in favour of another client.
    """

    __slots__ = ("_admitted", "_end_reading", "_limits", "client", "held_bytes", "is_evicted", "is_large", "most_bytes")

    def __init__(self, limits: BodyLimits, client: str, most_bytes: int) -> None:
        self._limits = limits
        self._admitted: asyncio.Future[None] | None = None
        self._end_reading: Callable[[], None] | None = None
        self.client = client
        self.most_bytes = most_bytes
        self.held_bytes = 0
        self.is_large = self.is_evicted = False

    async def hold(self, size: int, deadline: Deadline) -> None:
        """Have room for this much of the body; raises ApiError (overloaded).

        For more than a small body it waits for room for all of it, for `ROOM_TIME_S` at most.
        """
        limits = self._limits
        limits._arriving.pop(self, None)  # while it waits, it is not evicted
        if not self.is_large:
            if size > SMALL_BODY_BYTES:
                await self._wait(deadline)
            else:
                self.take(size)
        if self._end_reading is not None:
            limits._arriving[self] = None

    def take(self, size: int) -> None:
        """Have room for this much of a small body at once; raises ApiError (overloaded)."""
        self._limits.take(size - self.held_bytes, self.client)
        self._count(size)

    async def _wait(self, deadline: Deadline) -> None:
        admitted = self._admitted = asyncio.get_running_loop().create_future()
        with undone_on_failure(lambda: self._limits._leave(self)):
            self._limits._enqueue(self)
            try:
                with deadline.limit(min(ROOM_TIME_S, deadline.left_s(committed=True))):
                    await admitted
            except TimeoutError:
                raise no_room() from None

    def begin(self) -> None:
        """Have the room that it waits for."""
        self._limits._held_bytes += self.most_bytes - self.held_bytes
        self._count(self.most_bytes)
        self.is_large = True
        if self._admitted is not None and not self._admitted.done():
            self._admitted.set_result(None)

    async def hold_further(self, count: int, deadline: Deadline) -> None:
        """Have room for this much more, which waits as a body of that size does; raises ApiError (overloaded)."""
        further = BodyRoom(self._limits, self.client, count)
        await further.hold(count, deadline)
        self._count(self.held_bytes + count)
        further._count(0)

    async def turn(self) -> None:
        """Wait until more of this large body may be read: other requests run before."""
        await self._limits.pacer.turn()

    def begin_reading(self, end: Callable[[], None]) -> None:
        """Note that the body arrives. `end` ends the reading when it is evicted."""
        self._end_reading = end
        self._limits._arriving[self] = None

    def end_reading(self) -> None:
        """Note that nothing more of the body arrives."""
        self._end_reading = None
        self._limits._arriving.pop(self, None)

    def evict(self) -> None:
        """Refuse the body while it arrives."""
        self.is_evicted, end = True, self._end_reading
        self.release()
        if end is not None:
            end()

    def settle(self, size: int) -> None:
        """Keep room for a body of this size, which is complete."""
        self.give_back(self.held_bytes - size)

    def release(self) -> None:
        """Hold nothing any more."""
        self.end_reading()
        self.settle(0)

    def give_back(self, count: int) -> None:
        """Stop counting bytes that are no longer held."""
        self._count(self.held_bytes - count)
        self._limits.give_back(count)

    def _count(self, size: int) -> None:
        counts = self._limits._bytes_of
        counts[self.client] += size - self.held_bytes
        if not counts[self.client]:
            del counts[self.client]
        self.held_bytes = size


def no_room() -> ApiError:
    """Return the error for a body for which there is no room."""
    message = "the gateway's memory for request bodies is full: repeat the request later"
    return ApiError("overloaded", message, retry_after_s=1)
