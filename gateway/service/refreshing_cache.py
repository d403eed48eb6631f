"""A cached value that is loaded from elsewhere and refreshed in the background: an issuer's keys, a database.

Using a value that is old starts a load and does not wait for it. Using a value that is very old waits for the load, so
that a key that was revoked meanwhile is not accepted once more. Loads never overlap and never follow each other too
soon, however many requests ask, so clients cannot make the gateway overload the source. While loading fails, the last
value stays in use for a limited time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from providers.value import Value

_T = TypeVar("_T")


class LoadFailed(Exception):
    """The value cannot be loaded now. The message is the reason, fit for a log."""


class RefreshInterval(Value, frozen=True):
    """When a value is loaded again."""

    refresh_s: float
    """From this age on, a use starts a load."""
    pause_s: float
    """The least time between the beginnings of two loads."""
    keep_s: float
    """How long the value may be used after the last load that succeeded."""
    stale_s: float
    """From this age on, a use waits for the running load, unless the load before it failed."""
    most_waiting: float = math.inf
    """The most callers that wait because they miss something in the value. Further ones are answered as if the load had
    failed, so that requests which do so on purpose do not pile up at a slow source."""


@dataclass(eq=False, repr=False)
class RefreshingCache(Generic[_T]):
    """Caches what `load` returns. `load` gets the present value, and may return it again.

    `name` is used in log lines. `note` gets a line for the log when loading starts to fail or succeeds again.
    """

    _name: str
    _load: Callable[[_T | None], Awaitable[_T]]
    _pace: RefreshInterval
    _note: Callable[[str], None]
    _clock: Callable[[], float] = time.monotonic
    _held: _T | None = None
    _loaded_at: float = float("-inf")
    _tried_at: float = float("-inf")
    _problem: str = ""
    _loading: asyncio.Task[None] | None = None
    _waiting: int = 0
    _is_due: bool = False

    def now(self) -> _T | None:
        """Return the value without waiting; None if there is none, or it is stale."""
        age_s = self._clock() - self._loaded_at
        if age_s >= self._pace.refresh_s:
            self._start()
            if age_s >= self._pace.stale_s and self._loading is not None and not self._problem:
                return None
        return self._held if age_s < self._pace.keep_s else None

    async def wait(self) -> _T | None:
        """Return the value. If there is none, wait for the load that runs or may start now."""
        held = self.now()
        while held is None and self._loading is not None:
            await asyncio.shield(self._loading)
            held = self.now()
        return held

    async def newer(self, than: _T) -> _T | None:
        """Return the value after another load, for a caller that misses something in `than`.

        It is the same value if it was loaded just now, and None if it cannot be loaded or too many wait for it.
        """
        if self._held is than:
            self._start()
            if self._loading is not None:
                if self._waiting >= self._pace.most_waiting:
                    return None
                self._waiting += 1
                try:
                    await asyncio.shield(self._loading)
                finally:
                    self._waiting -= 1
        return None if self._problem else self.now()

    def renew(self) -> None:
        """Load the value again, now or after the load that runs, because an operator has asked for it.

        A request that uses it waits for that load, unless the previous one failed. If it fails, the value is used as
        before. A value that never gets old stays.
        """
        if math.isinf(self._pace.stale_s):
            return
        self._is_due = self._loading is not None
        if self._held is not None and not self._is_due:
            self._loaded_at = min(self._loaded_at, self._clock() - self._pace.stale_s)
            self._tried_at = float("-inf")
            self._start()

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
            self._report_change(str(failure))
        else:
            self._loaded_at = self._clock()
            self._report_change("")
        finally:
            self._loading = None
        if self._is_due:
            self.renew()

    def _report_change(self, problem: str) -> None:
        if problem != self._problem:
            self._note(f"{self._name} {problem or 'can be read again'}")
        self._problem = problem
