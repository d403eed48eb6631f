"""A gateway with a state directory, which the next gateway may take over."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.state.lock import holder_of
from tests.kit.reloading_gateway import LIMIT_S, Operator, operated
from tests.kit.waiting import eventually

__all__ = ["end", "pid_of", "restartable"]


def pid_of(state: Path) -> int:
    holder = holder_of(state)
    return int(str(holder["pid"]))


def end(state: Path) -> None:
    """End the gateway that has taken over last, and wait for its end.

    The process is read again until the lock is free: the file may name none yet, or one that is about to hand over.
    """

    def has_ended() -> bool:
        holder = holder_of(state)
        if holder is not None and "pid" in holder:
            with suppress(ProcessLookupError):
                os.kill(int(str(holder["pid"])), signal.SIGTERM)
        return holder is None

    eventually(has_ended, LIMIT_S)


@contextmanager
def restartable(path: Path, workers: int = 1, **environ: str) -> Iterator[tuple[Operator, Path]]:
    state = path.parent / "state"
    with operated(path, workers, GATEWAY_STATE_DIR=str(state), **environ) as operator:
        eventually(lambda: bool((holder_of(state) or {}).get("restarts")), LIMIT_S)
        try:
            yield operator, state
        finally:
            end(state)
