"""Which requests of one connection are still answered where what stands behind them is no HTTP.

Nearly always that is the rest of a body whose length was counted in characters: the answer says where it was cut off.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from gateway.server.cycle import GatewayCycle

MAX_REST_BYTES = 32 * 1024 * 1024
"""As much as a body may have may be its rest. None of it is kept: it is read so that the client is heard to leave."""


def last_whole(
    running: GatewayCycle | None, waiting: deque[tuple[GatewayCycle, dict[str, Any]]]
) -> GatewayCycle | None:
    """The last request that has come whole and is still to be answered; one that waits and hasn't is forgotten."""
    while waiting and waiting[-1][0].more_body:
        waiting.pop()
    last = waiting[-1][0] if waiting else running
    return None if last is None or last.more_body or last.response_complete else last
