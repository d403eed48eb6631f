"""Wait until a condition of another process or thread holds."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], limit_s: float = 90) -> None:
    """Wait for a condition, and no longer than needed."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        time.sleep(0.01)
