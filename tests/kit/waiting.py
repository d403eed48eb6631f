"""Wait until a condition of another process or thread holds."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], limit_s: float = 90) -> None:
    """Wait for a condition. After a while it is asked less often, because a question may cost more than the answer."""
    began = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - began
        assert waited_s < limit_s, "the condition did not become true in time"
        time.sleep(min(max(0.01, waited_s / 20), 0.25))
