"""The queue of a journal: how operations of one event loop become transactions.

Theory of operation:

- An operation runs immediately if the journal is free, because a wait of its request costs more than a commit.
- It is free until two operations meet in one turn of the event loop. Then operations queue, and the next turn runs all
  of them in one transaction, because at load most of the cost is that of a commit. The journal is free again when a
  turn had one operation only.
- What is given back for a call that was not sent always queues, so that a hold in the same turn that takes its place is
  in the same transaction.
- If another process has the lock, the event loop tries again for a second. A settlement has no end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import lmdb
import msgspec

from gateway.usage.gate import GateUnavailable
from gateway.usage.journal_file import LOCKED, PAUSE_S, WAIT_S, JournalFile

_RETRY_S = 0.05
_T = TypeVar("_T")


class _Queued(msgspec.Struct, gc=False):
    """An operation that waits for the next transaction, or for the lock."""

    run: Callable[[lmdb.Transaction, Any], Any]
    argument: object
    future: asyncio.Future[Any]
    is_sure: bool
    until_s: float


class JournalQueue:
    """The operations that wait for a transaction of this file, and why those that are sure can't be done now."""

    def __init__(self, file: JournalFile) -> None:
        self._file = file
        self._queue: deque[_Queued] = deque()
        # An operation has run in this turn of the event loop; several met in this turn or the last one.
        self._has_run: list[bool] = []
        self._is_busy = False
        self._next_flush: asyncio.Handle | None = None
        self.problem = ""

    def close(self) -> None:
        """Run what is queued if the lock is free within a second. Nothing is run later."""
        if self._next_flush is not None:
            self._next_flush.cancel()
        with suppress(GateUnavailable):
            self._file.take_now()
            try:
                self.run_queued()
            finally:
                self._file.give()

    async def do(
        self,
        operation: Callable[[lmdb.Transaction, Any], _T],
        argument: object,
        *,
        is_sure: bool = False,
        queues: bool = False,
        undo: Callable[[_T], None] | None = None,
    ) -> _T:
        """Run an operation: now if the journal is free, unless it `queues`. Raises GateUnavailable.

        An operation that is sure is never given up. If it is not done after a second, it continues in the background.
        `undo` gets the result of an operation that was done when its task had been cancelled.
        """
        if not (queues or self._queue or self._has_run or self._is_busy):
            try:
                self._file.take()
            except BlockingIOError:
                pass
            else:
                self._has_run.append(True)
                asyncio.get_running_loop().call_soon(self._has_run.clear)
                try:
                    return self._file.transact(operation, argument)
                except GateUnavailable:
                    if not is_sure:
                        raise
                finally:
                    self._file.give()
        self._is_busy = self._is_busy or bool(self._has_run)
        future = self.enqueue(operation, argument, is_sure=is_sure)
        try:
            return await future  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            is_done = future.done() and not future.cancelled() and future.exception() is None
            if is_done and undo is not None:
                undo(future.result())
            raise

    def enqueue(
        self, operation: Callable[[lmdb.Transaction, Any], Any], argument: object, *, is_sure: bool
    ) -> asyncio.Future[Any]:
        """Queue an operation for the next transaction."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.append(_Queued(operation, argument, future, is_sure, loop.time() + WAIT_S))
        if self._next_flush is None:
            self._next_flush = loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        """Run what is queued if the lock is free. Try again later with what is left."""
        self._next_flush = None
        self._is_busy = len(self._queue) > 1
        try:
            self._file.take()
        except BlockingIOError:
            pass
        else:
            try:
                self.run_queued()
            finally:
                self._file.give()
        if self._queue:
            loop = asyncio.get_running_loop()
            self._end_waits(loop.time())
            self._next_flush = loop.call_later(_RETRY_S if self.problem else PAUSE_S, self._flush)

    def _end_waits(self, now_s: float) -> None:
        for one in self._queue:
            if one.until_s < now_s and not one.future.done():
                if one.is_sure:
                    one.future.set_result(None)
                else:
                    one.future.set_exception(GateUnavailable(self.problem or LOCKED))

    def run_queued(self) -> None:
        """Run what is queued under the lock, in one transaction, or in one for each operation if one of them fails.

        An operation that fails and is sure stays queued, with all after it.
        """
        queue, is_together = self._queue, True
        while queue:
            batch = [one for one in (queue if is_together else (queue[0],)) if one.is_sure or not one.future.done()]
            try:
                results = self._file.transact(_run_all, batch) if batch else []
            except Exception as error:  # the operations after it must not wait for it for ever
                if len(batch) > 1:
                    is_together = False
                    continue
                (failed,) = batch
                if failed.is_sure and isinstance(error, GateUnavailable):
                    self.problem = str(error)
                    return
                if not failed.future.done():
                    failed.future.set_exception(error)
            else:
                self.problem = ""
                for one, result in zip(batch, results, strict=True):
                    if not one.future.done():
                        one.future.set_result(result)
            if is_together:
                queue.clear()
            else:
                queue.popleft()


def _run_all(txn: lmdb.Transaction, operations: Iterable[_Queued]) -> list[Any]:
    return [one.run(txn, one.argument) for one in operations]
