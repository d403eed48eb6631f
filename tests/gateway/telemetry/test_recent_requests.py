"""The last requests in memory, and the feed of events."""

import asyncio
from dataclasses import replace

import pytest

from gateway.telemetry.event_feed import MOST_SUBSCRIBERS, EventFeed, TooManySubscribers
from gateway.telemetry.recent_requests import MOST_REQUESTS, RecentRequests
from tests.kit.request_records import answered, attempt, failed_attempt


def test_last_requests_are_kept_with_their_attempts() -> None:
    recent = RecentRequests()
    record = answered()
    record.attempts[:] = [failed_attempt("house"), attempt("spare", 0.3, record.started_at + 0.5)]
    record.abandoned = (replace(attempt("last", 0.1, record.started_at + 0.9), is_abandoned=True),)
    recent.add([(record, 1_795_132_800.0)] * (MOST_REQUESTS + 5))
    documents = recent.documents()
    assert len(documents) == MOST_REQUESTS
    shown = documents[0]
    assert (shown["request_id"], shown["at"]) == (record.request_id, "2026-11-20T00:00:00.000+00:00")
    attempts = shown["attempts"]
    assert isinstance(attempts, list)
    assert [one["deployment"] for one in attempts] == ["house", "spare", "last"]
    assert (attempts[1]["start_ms"], attempts[1]["ms"], attempts[1]["outcome"]) == (500.0, 300.0, "ok")
    assert attempts[2]["outcome"] == "abandoned"


def test_latest_request_is_first_also_after_they_were_described() -> None:
    recent = RecentRequests()
    for number in range(3):
        record = answered()
        record.request_id = str(number)
        recent.add([(record, float(number))])
        recent.settle()
    assert [one["request_id"] for one in recent.documents()] == ["2", "1", "0"]


async def test_every_subscriber_gets_each_event_in_order() -> None:
    feed = EventFeed()
    feed.publish("config", {"config_version": "before"})
    subscriptions = [feed.subscribe(), feed.subscribe()]
    feed.publish("config", {"config_version": "a"})
    feed.publish("faults", {"sites": []})
    for one in subscriptions:
        first, second = await one.next_event(5), await one.next_event(5)
        assert (first.kind, first.detail, second.kind) == ("config", {"config_version": "a"}, "faults")
        assert await one.next_event(0.001) is None


async def test_slow_subscriber_loses_only_its_oldest_events() -> None:
    feed = EventFeed()
    slow = feed.subscribe()
    for number in range(1000):
        feed.publish("health", {"number": number})
    seen = []
    while (event := await slow.next_event(0.001)) is not None:
        seen.append(event.detail["number"])
    assert seen[-1] == 999
    assert len(seen) < 100


async def test_subscriptions_are_bounded_and_end_with_the_process() -> None:
    feed = EventFeed()
    all_of_them = [feed.subscribe() for _ in range(MOST_SUBSCRIBERS)]
    with pytest.raises(TooManySubscribers):
        feed.subscribe()
    all_of_them[0].close()
    waiting = asyncio.create_task(feed.subscribe().next_event(60))
    await asyncio.sleep(0)
    feed.close()
    assert await waiting is None
    assert all(one.is_closed for one in all_of_them)
    assert feed.subscribe().is_closed
