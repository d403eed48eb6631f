"""How often two things happened lately: a sliding window in slices, so that counting costs the same at any traffic."""

from __future__ import annotations

_SLICES = 10


class Window:
    """Two counts over the last `span_s`, exact to a tenth of it. Times are monotonic seconds, and the caller's."""

    __slots__ = ("_current", "_past", "_slice_s", "_turn_at")

    def __init__(self, span_s: float) -> None:
        self._slice_s = span_s / _SLICES
        self._turn_at = float("-inf")
        self._past: list[list[int]] = []
        self._current = [0, 0]

    @property
    def totals(self) -> tuple[int, int]:
        """Both counts."""
        slices = [self._current, *self._past]
        return sum([first for first, _ in slices]), sum([second for _, second in slices])

    def count(self, which: int, now: float) -> None:
        """One more of the first (0) or the second (1)."""
        if now >= self._turn_at:
            self.turn(now)
        self._current[which] += 1

    def turn(self, now: float) -> None:
        """Forget the slices that are over."""
        if now < self._turn_at:
            return
        since_s = now - self._turn_at
        if since_s >= self._slice_s * (_SLICES - 1):
            self._past = []
            self._turn_at = now + self._slice_s
        else:
            over = int(since_s / self._slice_s) + 1
            self._past += [self._current, *([0, 0] for _ in range(over - 1))]
            self._past = self._past[-(_SLICES - 1) :]
            self._turn_at += over * self._slice_s
        self._current = [0, 0]
