"""Return the memory that a process does not use any more to the system. Only glibc needs this."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping

_LARGE_BYTES = 4 * 1024 * 1024
"""Larger blocks get a mapping of their own, which costs a page fault per page. A body of 600 KB stays below this."""
_KEPT_BYTES = 8 * _LARGE_BYTES
"""Free memory that stays at the end of the heap, for bodies that arrive at the same time."""
_CHANGE_BYTES = 8 * 1024 * 1024
_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 320.0
# Constants of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def release_large_blocks(environ: Mapping[str, str] = os.environ) -> bool:
    """Make malloc return large free blocks to the system; return whether it does. An operator's glibc settings win."""
    mallopt = _malloc_function("mallopt", environ)
    return (
        mallopt is not None
        and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1
        and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) == 1
    )


def _malloc_function(name: str, environ: Mapping[str, str]) -> Callable[..., int] | None:
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in environ) or "GLIBC_TUNABLES" in environ:
        return None
    try:
        # Imported here: a Python that was built without libffi has no ctypes, and can serve all the same.
        import ctypes

        return ctypes.CDLL(None)[name]
    except (ImportError, OSError, AttributeError):  # AttributeError: other C libraries lack it
        return None


class HeapTrimmer:
    """Returns the free pages between used ones, which malloc keeps for as long as the process lives.

    Many bodies that arrive at the same time leave such pages. It trims the heap when the process has grown or shrunk
    since the last time and does not grow now. Memory that is freed inside the heap shows in no figure, so it tries
    again, ever more rarely while nothing comes of it. A trim takes 0.1 ms per MB that it returns.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.monotonic) -> None:
        self._trim = _malloc_function("malloc_trim", environ)
        self._clock = clock
        self._trimmed_at, self._pause_s = clock(), _LONGEST_PAUSE_S
        self._trimmed_bytes = self._last_bytes = resident_bytes()

    def look(self) -> None:
        """Trim the heap if there is a reason. Call it each second."""
        if self._trim is None:
            return
        last, resident = self._last_bytes, resident_bytes()
        self._last_bytes = resident
        is_growing = resident > last + _CHANGE_BYTES // 8
        is_changed = abs(resident - self._trimmed_bytes) >= _CHANGE_BYTES
        if is_changed:
            self._pause_s = _PAUSE_S
        if not is_growing and self._clock() - self._trimmed_at >= self._pause_s:
            self._trim(0)
            self._trimmed_at = self._clock()
            self._trimmed_bytes = self._last_bytes = resident_bytes()
            if not is_changed and resident - self._trimmed_bytes < _CHANGE_BYTES // 8:
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM; 0 if the system does not report it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0
