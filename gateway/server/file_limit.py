"""How many files a process may have open, of which each connection is one: as many as the system lets it.

Systems start a process with few (often 1,024), for programs that can't count further, and let it take more by itself.
Out of them, a gateway can reach no provider, and takes every provider for dead.
"""

from __future__ import annotations

import contextlib
import sys

from gateway.telemetry.log import logger

_ENOUGH = 65_536
"""More than the connections that a worker has at its own bounds."""
_FEW = 10_000


def raise_file_limit() -> None:
    """Take what may be taken; what is started from here has as many. Where that is little, the log says so."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft != resource.RLIM_INFINITY and soft < _FEW:
        detail = "each request takes two, for its client and its provider: raise the hard limit (ulimit -Hn)"
        logger().warning("few_files", limit=soft, detail=detail)
