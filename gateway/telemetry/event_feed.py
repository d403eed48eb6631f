"""The events of a running gateway, for operators: a new configuration, a rejected one, a breaker, a simulated fault."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from gateway.model.status import Event, EventKind

_MOST_WAITING = 64
MOST_SUBSCRIBERS = 100
"""The most subscriptions at the same time."""


class TooManySubscribers(RuntimeError):
    """There are as many subscriptions as are allowed."""


class EventFeed:
    """Passes each event to every subscription. It never waits: a slow subscriber loses its oldest events."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._is_closed = False

    def has_subscribers(self, kind: EventKind) -> bool:
        """Return whether there is a subscription to events of this kind now."""
        return any(subscription.wants(kind) for subscription in self._subscriptions)

    def publish(self, kind: EventKind, detail: Mapping[str, object]) -> None:
        """Publish an event that happened now."""
        if self._subscriptions:
            event = Event(kind, datetime.now(UTC), detail)
            for subscription in self._subscriptions:
                if subscription.wants(kind):
                    subscription.put(event)

    def subscribe(self) -> Subscription:
        """Return a subscription to all later events; raises TooManySubscribers. It must be closed."""
        if len(self._subscriptions) >= MOST_SUBSCRIBERS:
            raise TooManySubscribers(f"there are {MOST_SUBSCRIBERS} subscriptions to events already")
        subscription = Subscription(self._subscriptions.discard)
        self._subscriptions.add(subscription)
        if self._is_closed:
            subscription.close()
        return subscription

    def close(self) -> None:
        """End all subscriptions, because the process is about to end."""
        self._is_closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()


class Subscription:
    """The events of one subscriber, of these kinds or of all. After it is closed, no further event follows."""

    def __init__(self, leave: Callable[[Subscription], None]) -> None:
        self._waiting: deque[Event] = deque(maxlen=_MOST_WAITING)
        self._is_news = asyncio.Event()
        self._leave = leave
        self.is_closed = False
        self.kinds: frozenset[EventKind] = frozenset()

    def wants(self, kind: EventKind) -> bool:
        """Return whether it gets events of this kind."""
        return not self.kinds or kind in self.kinds

    def put(self, event: Event) -> None:
        """Add an event."""
        self._waiting.append(event)
        self._is_news.set()

    async def next_event(self, limit_s: float) -> Event | None:
        """Return the next event. None if there is none within the time, or if the subscription is closed."""
        if not self._waiting and not self.is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._is_news.wait()
        self._is_news.clear()
        return self._waiting.popleft() if self._waiting else None

    def close(self) -> None:
        """End the subscription."""
        self.is_closed = True
        self._is_news.set()
        self._leave(self)
