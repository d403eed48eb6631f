"""Publish finished requests as events while there are subscribers: a sample of each second, and the rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from gateway.telemetry.event_feed import EventFeed
from gateway.telemetry.recent_requests import MOST_REQUESTS

EVERY_S = 1.0
MOST_IN_EVENT = 20
"""The most requests of one event, which is sent every second."""
_Documents = list[dict[str, object]]


async def publish_requests(feed: EventFeed, recent: Callable[[], Awaitable[_Documents]]) -> None:
    """Publish the requests that have finished since the last event, without end. Costs nothing without subscribers."""
    known: set[object] | None = None
    while True:
        await asyncio.sleep(EVERY_S)
        if not feed.has_subscribers("requests"):
            known = None
            continue
        documents = await recent()
        if known is None:
            # A subscription began after the last look: requests of this second may have finished since then.
            last_look = datetime.fromtimestamp(time.time() - EVERY_S, UTC).isoformat(timespec="milliseconds")
            known = {document["request_id"] for document in documents if str(document["at"]) < last_look}
        ids = {document["request_id"] for document in documents}
        if news := [one for one in documents if one["request_id"] not in known]:
            feed.publish("requests", {"per_s": _rate(news), "requests": _sample(news)})
        known = ids


def _rate(news: _Documents) -> float:
    """Return the requests per second. If more have finished than are kept, the kept ones give the rate."""
    if len(news) < MOST_REQUESTS:
        return round(len(news) / EVERY_S, 1)
    newest, oldest = (datetime.fromisoformat(str(news[place]["at"])) for place in (0, -1))
    return round(len(news) / max((newest - oldest).total_seconds(), 0.001), 1)


def _sample(news: _Documents) -> _Documents:
    """Return at most `MOST_IN_EVENT` requests, evenly spread over the second, the oldest first."""
    if len(news) <= MOST_IN_EVENT:
        return news[::-1]
    step = len(news) / MOST_IN_EVENT
    return [news[int(number * step)] for number in reversed(range(MOST_IN_EVENT))]
