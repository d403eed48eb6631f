"""How many calls at once a provider takes before its answers slow down: a limit that follows the latency.

A provider that has enough to do doesn't say so: it lets calls wait, and each answer begins later. So the limit is led
by how much later than in quiet, window by window (after the gradient of Netflix's concurrency-limits, 2018, and the
probes of BBR, 2016):

    what a window shows                       then
    ----------------------------------------  ------------------------------------------------------------------
    the limit was not used by half            the quiet latency is learnt, in both directions; the limit stays
    latency within `_TOLERANCE` of the quiet  the limit grows by half its root; twofold, until it was first too much
    more than that                            it shrinks in proportion, to half at most, and half of the way
    the provider refused, or stayed silent    it shrinks by a tenth, at once
    the fiftieth window under load            one window at half the limit, which teaches what quiet is now

A window is as many answers as the limit, and 20 at least, of calls that began in it: what began under another limit
says nothing of this one. Its latency is the median. The first token of a stream and the whole of a JSON answer are told
apart.
Pure: it knows no clock.
"""

from __future__ import annotations

from gateway.model.deployment import Concurrency

_TOLERANCE = 1.5
_FEWEST = 20
_REFUSED = 0.9
_STEP = 0.5
_LEAST_GRADIENT = 0.5
_PROBE_AFTER = 50
_QUIET_STEP = 0.2


class AdaptiveLimit:
    """The limit of one deployment, between the rule's `least` and `limit`.

    window: the number of the current one, which a call that begins keeps and brings back with its latency.
    """

    __slots__ = (
        "_is_probing",
        "_is_starting",
        "_limit",
        "_loaded_windows",
        "_most_in_use",
        "_quiet_s",
        "_rule",
        "_samples",
        "_unprobed",
        "window",
    )

    def __init__(self, rule: Concurrency) -> None:
        self.window = 0
        self._rule = rule
        self._limit = self._unprobed = float(rule.least)
        self._quiet_s: list[float | None] = [None, None]
        self._samples: tuple[list[float], list[float]] = ([], [])
        self._most_in_use = 0
        self._loaded_windows = 0
        self._is_starting = True
        self._is_probing = False

    @property
    def limit(self) -> int:
        """How many calls may run now."""
        return int(self._limit)

    def follow(self, rule: Concurrency) -> None:
        """Keep to these bounds from now on."""
        self._rule = rule
        self._set(self._limit)
        self._unprobed = self._bounded(self._unprobed)

    def began(self, in_use: int) -> int:
        """A call begins, so many now run: the window that it belongs to."""
        self._most_in_use = max(self._most_in_use, in_use)
        return self.window

    def answered(self, window: int, latency_s: float, *, whole: bool) -> None:
        """A call of that window was answered: a stream's first word came, or a whole answer."""
        if window != self.window:
            return
        self._samples[whole].append(latency_s)
        if sum(map(len, self._samples)) >= max(_FEWEST, self.limit):
            self._close()

    def refused(self, window: int) -> None:
        """The provider said that it has too much to do, or nothing at all."""
        if window != self.window:
            return
        self._is_starting = False
        if self._is_probing:
            self._end_probe()
        self._set(self._limit * _REFUSED)
        self._open()

    def _close(self) -> None:
        """The window is full: learn from it, and begin the next one."""
        # Here and not at the top: most configs bound nothing by latency, and the library of fractions is large.
        from statistics import median

        whole = len(self._samples[True]) > len(self._samples[False])
        latency_s = median(self._samples[whole])
        quiet_s = self._quiet_s[whole]
        if quiet_s is None:
            self._quiet_s[whole] = quiet_s = latency_s
        if self._is_probing:
            self._quiet_s[whole] = latency_s
            self._end_probe()
        elif 2 * self._most_in_use < self.limit:
            self._quiet_s[whole] = quiet_s + _QUIET_STEP * (latency_s - quiet_s)
        else:
            self._quiet_s[whole] = quiet_s = min(quiet_s, latency_s)
            self._lead(latency_s, quiet_s)
        self._open()

    def _lead(self, latency_s: float, quiet_s: float) -> None:
        """Follow what a window under load has shown."""
        gradient = min(1.0, max(_LEAST_GRADIENT, _TOLERANCE * quiet_s / latency_s)) if latency_s > 0 else 1.0
        if gradient < 1:
            self._is_starting = False
        if self._is_starting:
            self._set(2 * self._limit)
        else:
            room = max(1.0, self._limit**0.5 / 2)
            self._set(self._limit + _STEP * (self._limit * (gradient - 1) + room))
        self._loaded_windows += 1
        if self._loaded_windows >= _PROBE_AFTER:
            self._loaded_windows = 0
            self._is_probing = True
            self._unprobed = self._limit
            self._set(self._limit / 2)

    def _end_probe(self) -> None:
        self._is_probing = False
        self._set(self._unprobed)

    def _open(self) -> None:
        self.window += 1
        self._samples = ([], [])
        self._most_in_use = 0

    def _set(self, limit: float) -> None:
        self._limit = self._bounded(limit)

    def _bounded(self, limit: float) -> float:
        return min(max(limit, self._rule.least), self._rule.limit)
