"""Large blocks of memory, which are given back to the system as soon as they are free.

glibc learns from the first large block that is freed to take others from its heap, where what is free between two that
are in use stays the process's own: after a flood of large bodies a worker would keep half a gigabyte. What is free at
the heap's end is another matter: it is needed again by the next requests, and each page of it that was given back costs
a fault.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_LARGE_BYTES = 4 * 1024 * 1024
"""What a body of 600 KB needs while it is read and written is less: a block by itself costs a fault for each page."""
_KEPT_BYTES = 8 * _LARGE_BYTES
"""At the heap's end, for the bodies that usually come at the same time."""
# Of malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def give_back_large_blocks(environ: Mapping[str, str] = os.environ) -> bool:
    """From now on, for this process; whether it is so. What an operator has said to glibc stays."""
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in environ) or "GLIBC_TUNABLES" in environ:
        return False
    try:
        # Here, since a Python that was built without libffi lacks it, and serves as well as any.
        import ctypes

        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    except (ImportError, OSError):
        return False
    # Other C libraries have no such thing.
    return (
        mallopt is not None
        and mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) == 1
        and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES) == 1
    )
