"""The lock of the gate's file, and the operations of this process that wait for it in the event loop.

The kernel releases the lock (flock) when its process ends. An operation under it takes a few microseconds and never
waits. If the lock is not free, operations queue, and a timer of the event loop tries again. All that queue run under
one lock, in order.
"""

from __future__ import annotations

import asyncio
import fcntl
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from gateway.usage.gate import GateUnavailable
from gateway.usage.gate_memory import COMMIT, GateMemory

WAIT_S = 1.0
"""The time that an operation waits for the lock, unless it must not be lost."""

_PAUSE_S = 0.0005
_SETTLE_PAUSE_S = 0.01
_TRIES_AT_ONCE = 5
_MOST_AT_ONCE = 256
_LOCKED = "another process has locked the counters for more than a second; it may be stopped"

_T = TypeVar("_T")


class _Queued(NamedTuple):
    """An operation that waits for the lock. Its future is done when it has run or has given up."""

    operation: Callable[[], object]
    future: asyncio.Future[object]
    until_s: float | None


class GateLock:
    """The lock of one process, and its queue. Every method that takes the lock raises GateUnavailable.

    Args:
        descriptor: The open file. Two descriptors exclude each other, also in one process.
        memory: The mapped file. An operation that the last holder did not complete is completed.

    Attributes:
        queue: The operations that wait. While it is not empty, another operation must queue too.
    """

    def __init__(self, descriptor: int, memory: GateMemory) -> None:
        self.queue: deque[_Queued] = deque()
        self._memory = memory
        self._timer: asyncio.TimerHandle | None = None
        self._try_lock = partial(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.release = partial(fcntl.flock, descriptor, fcntl.LOCK_UN)

    def take(self) -> bool:
        """Take the lock if it is free, and complete what its last holder left. Raises GateUnavailable."""
        try:
            self._try_lock()
        except BlockingIOError:
            if not self._try_lock_again():
                return False
        if self._memory.cells[COMMIT]:
            try:
                self._memory.redo()
            except BaseException:
                self.release()
                raise
        return True

    def _try_lock_again(self) -> bool:
        """Try a few times at once: an operation of another process takes only a few microseconds."""
        for _ in range(_TRIES_AT_ONCE):
            try:
                self._try_lock()
            except BlockingIOError:
                continue
            return True
        return False

    def run_now(self, operation: Callable[[], _T], wait_s: float = WAIT_S) -> _T:
        """Run an operation when there is no event loop to wait in. Raises GateUnavailable after the wait."""
        until_s = time.monotonic() + wait_s
        while not self.take():
            if time.monotonic() > until_s:
                raise GateUnavailable(_LOCKED)
            time.sleep(_PAUSE_S)
        try:
            return operation()
        finally:
            self.release()

    async def run(self, operation: Callable[[], _T]) -> _T:
        """Run an operation under the lock. Raises GateUnavailable after a second."""
        if not self.queue and self.take():
            try:
                return operation()
            finally:
                self.release()
        return await self.enqueue(operation, WAIT_S)

    def enqueue(self, operation: Callable[[], _T], wait_s: float | None) -> asyncio.Future[_T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        until_s = None if wait_s is None else loop.time() + wait_s
        self.queue.append(_Queued(operation, future, until_s))  # type: ignore[arg-type]
        if self._timer is None:
            self._timer = loop.call_later(_PAUSE_S, self._poll, loop)
        return future

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run what is queued if the lock is free. Otherwise end what has waited too long, and try again later."""
        self._timer = None
        try:
            if self.take():
                try:
                    self.run_queued()
                finally:
                    self.release()
        except GateUnavailable as error:
            self.fail(str(error), lambda queued: queued.until_s is not None)
        now_s = loop.time()
        self.fail(_LOCKED, lambda queued: queued.until_s is not None and queued.until_s <= now_s)
        if self.queue:
            hurries = any(queued.until_s is not None for queued in self.queue)
            self._timer = loop.call_later(_PAUSE_S if hurries else _SETTLE_PAUSE_S, self._poll, loop)

    def run_queued(self) -> None:
        """Run queued operations under the lock, but not so many that the event loop waits."""
        for _ in range(min(len(self.queue), _MOST_AT_ONCE)):
            operation, future, until_s = self.queue.popleft()
            if future.done() and until_s is not None:
                continue
            try:
                result = operation()
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
                continue
            if not future.done():
                future.set_result(result)

    def fail(self, message: str, which: Callable[[_Queued], bool]) -> None:
        failing = [queued for queued in self.queue if which(queued)]
        if failing:
            self.queue = deque(queued for queued in self.queue if not which(queued))
        for queued in failing:
            if not queued.future.done():
                queued.future.set_exception(GateUnavailable(message))

    def close(self) -> None:
        """Run the operations that must not be lost if the lock is free, and end the others."""
        if self._timer is not None:
            self._timer.cancel()
        self.fail("the gate is closed", lambda queued: queued.until_s is not None)
        try:
            self.run_now(self.run_queued)
        finally:
            for queued in self.queue:
                queued.future.cancel()
            self.queue.clear()
