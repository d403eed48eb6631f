"""File descriptors: each connection takes one, and without any the system's library closes new connections silently."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable

from gateway.occasional_count import OccasionalCount
from gateway.telemetry.log import logger

_WANTED_FILES = 65_536
"""More than a worker needs at its connection limits."""
_FEW_FILES = 10_000
_TELL_S = 60.0
_REMEDY = "raise the hard limit (ulimit -Hn)"


def raise_file_limit() -> None:
    """Raise the limit of open files for this process and its children. Log a warning if the limit stays low."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than their hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft != resource.RLIM_INFINITY and soft < _FEW_FILES:
        detail = f"each request takes two, for its client and its provider: {_REMEDY}"
        logger().warning("few_files", limit=soft, detail=detail)


class DescriptorWatch:
    """Counts the seconds in which this process had no descriptor left, and closed new connections.

    libuv reports no failed `accept`: it gives up a spare descriptor, accepts the connection, and closes it.
    """

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        self.seconds_without = 0
        self._untold = OccasionalCount(_TELL_S, ticks)

    def look(self) -> None:
        """Try to get a descriptor. Call it each second."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                return
            self.seconds_without += 1
            if seconds := self._untold.add():
                detail = f"all file descriptors are in use, so new connections are closed: {_REMEDY} or add workers"
                logger().warning("no_descriptors", seconds=seconds, detail=detail)
