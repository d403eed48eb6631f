"""Something that is loaded from elsewhere and kept: an issuer's keys, a database. Nobody who uses it waits, as a rule.

A use of what has grown old starts a load behind it; a use of what nobody has used for long waits for that load, so that
a key that was withdrawn meanwhile isn't believed once more. Loads never overlap and never follow each other too soon,
however many requests ask: nobody can make the gateway hammer the place that it loads from. While loading fails, what
was loaded before stays in use for a bounded time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")


class LoadFailed(Exception):
    """It can't be loaded now; the message says why, and is fit for a log."""


@dataclass(frozen=True, slots=True)
class Pace:
    """refresh_s: from this age on, a use starts a load. pause_s: between the beginnings of two loads, at least.
    keep_s: how long it may be used after the last load that succeeded. stale_s: from this age on, a use waits for the
    load that is under way, unless the one before it has failed."""

    refresh_s: float
    pause_s: float
    keep_s: float
    stale_s: float


class Kept(Generic[_T]):
    """Keeps what `load` gives; it gets what is held, and may give the same back.

    name: what a log calls it. note: takes a line for the log, when loading begins to fail or to succeed again.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[_T | None], Awaitable[_T]],
        pace: Pace,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._load = load
        self._pace = pace
        self._note = note
        self._clock = clock
        self._held: _T | None = None
        self._loaded_at = self._tried_at = float("-inf")
        self._trouble = ""
        self._loading: asyncio.Task[None] | None = None

    def now(self) -> _T | None:
        """What may be used, without waiting; None if there is nothing, or only what is stale."""
        age_s = self._clock() - self._loaded_at
        if age_s >= self._pace.refresh_s:
            self._start()
            if age_s >= self._pace.stale_s and self._loading is not None and not self._trouble:
                return None
        return self._held if age_s < self._pace.keep_s else None

    async def wait(self) -> _T | None:
        """What may be used; where there is nothing, after the load that is under way, or may begin now."""
        held = self.now()
        if held is None and self._loading is not None:
            await asyncio.shield(self._loading)
            held = self.now()
        return held

    async def newer(self, than: _T) -> _T | None:
        """What may be used after another load, for one who misses something in `than`; the same if it was loaded just
        now, None if it can't be loaded."""
        if self._held is than:
            self._start()
            if self._loading is not None:
                await asyncio.shield(self._loading)
        return None if self._trouble else self.now()

    async def aclose(self) -> None:
        """Stop loading."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])

    def _start(self) -> None:
        now = self._clock()
        if self._loading is None and now - self._tried_at >= self._pace.pause_s:
            self._tried_at = now
            self._loading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        try:
            self._held = await self._load(self._held)
        except LoadFailed as failure:
            self._tell(str(failure))
        else:
            self._loaded_at = self._clock()
            self._tell("")
        finally:
            self._loading = None

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._note(f"{self._name} {trouble or 'can be read again'}")
        self._trouble = trouble
