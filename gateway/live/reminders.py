"""Reminds the log of approvals and models that end soon, or are over: once for each day, as long as the gateway serves.

What a start or a reload finds is told by the compile; this is for a config that nobody touches for months.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from gateway.model.approval import days_at, terms_of
from gateway.model.retirement import farewells_of
from gateway.model.table import Table
from gateway.telemetry.log import logger

__all__ = ["LOOK_S", "remind"]

LOOK_S = 600.0
"""How long after its last day begins to end something is told of as over, at the most."""

_URGENT_DAYS = 7


async def remind(
    current: Callable[[], Table],
    *,
    clock: Callable[[], float] = time.time,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look at the date from time to time, without end; when it has changed, log what must be renewed or replaced."""
    told = days_at(clock())
    while True:
        await wait(LOOK_S)
        days = days_at(clock())
        if days.last == told.last:
            continue
        told, table = days, current()
        for term in terms_of(table.approvals, days):
            if term.warned_days is not None:
                log = logger().error if term.days_left <= _URGENT_DAYS else logger().warning
                told_of = {"deployment": term.deployment, "region": term.region, "days_left": term.days_left}
                log("approval_ending" if term.days_left >= 0 else "approval_ended", **told_of, detail=str(term))
        for farewell in farewells_of(table.deployments.values(), days):
            if farewell.warned_days is not None:
                log = logger().error if farewell.days_left <= _URGENT_DAYS else logger().warning
                about = {"deployment": farewell.deployment, "model": farewell.model, "days_left": farewell.days_left}
                log("model_retired" if farewell.is_over else "model_retiring", **about, detail=str(farewell))
