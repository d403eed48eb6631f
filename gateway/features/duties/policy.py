"""Count the time of a user, and judge a chat by it. Pure.

A session has no pause of `gap` or more. Its length is the time from its beginning to the end of the user's time, with
the pauses. A session ends by the longest gap of the regions in which it ran, that of the chat that arrives included. A
day is what was used since its own midnight, whatever region it was used in. A record never runs backwards: an instant
before the end of the user's time counts as that end.

`EXTEND` in `shared_times.py` does what `extended` does, in Valkey.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gateway.features.duties.model import KEPT_MS, UsedDay, UseRecord, UseRule, UseRules
from gateway.model.age import AgeBand, UseLimits
from gateway.model.decision import Refusal, RefusalCode
from gateway.model.units import at_second
from gateway.policy.labels import Notice
from providers.value import Value

_HOUR_MS = 3_600_000
_UNKNOWN = "the time of this age band is limited in this region, and the request names no end user: send a signed claim"
_UNKNOWN_FIX = "with a subject, or `x-gateway-user` with a key that may assert it"


class CalendarDay(NamedTuple):
    """A day of a time zone, from its first instant to that of the next one."""

    date: str
    start_ms: int
    end_ms: int

    def part_of(self, began_ms: int, ended_ms: int) -> int:
        """Return how long a time lies on this day."""
        # Comparisons, because calls of `min` and `max` would be a third of those that count the time of a chat.
        start_ms = began_ms if began_ms > self.start_ms else self.start_ms
        end_ms = ended_ms if ended_ms < self.end_ms else self.end_ms
        return end_ms - start_ms if end_ms > start_ms else 0

    def used_of(self, pieces: tuple[int, ...]) -> int:
        """Return how long the pieces of a record lie on this day."""
        # The last piece alone is the common case.
        used_ms = self.part_of(pieces[-2], pieces[-1])
        if len(pieces) > 2:
            used_ms += sum(map(self.part_of, pieces[:-2:2], pieces[1:-2:2]))
        return used_ms


def day_at(now_ms: int, timezone: str) -> CalendarDay:
    """Return the calendar day of an instant."""
    # Each zone in use differs from UTC by whole quarters of an hour, so a quarter lies on one day.
    return _day_at(now_ms // (_HOUR_MS // 4), timezone)


@lru_cache(maxsize=256)
def _day_at(quarter: int, timezone: str) -> CalendarDay:
    zone = ZoneInfo(timezone)
    today = datetime.fromtimestamp(quarter * _HOUR_MS / 4000, UTC).astimezone(zone).date()
    starts = [datetime(day.year, day.month, day.day, tzinfo=zone) for day in (today, today + timedelta(days=1))]
    start_ms, end_ms = (round(start.timestamp() * 1000) for start in starts)
    return CalendarDay(today.isoformat(), start_ms, end_ms)


class Arrival(Value, frozen=True):
    """A chat that arrives, by the clock of the record, with the time of its user at that moment.

    The session has lasted for `session_ms`, and ends after `gap_ms`. `day_seen_ms` is the time of the day without the
    running pause.
    """

    at_ms: int
    record: UseRecord | None
    is_new: bool
    session_ms: int
    day: CalendarDay
    day_ms: int
    day_seen_ms: int
    gap_ms: int

    @property
    def noticed_ms(self) -> int:
        """When the label with `repeat` was last shown in this session. 0: it was not."""
        return 0 if self.is_new or self.record is None else self.record.noticed_ms


def arrival(record: UseRecord | None, now_ms: int, rules: UseRules) -> Arrival:
    """Return the time of a user whose chat arrives now."""
    gap_ms = rules.gap_ms
    if record is None:
        return Arrival(now_ms, None, True, 0, day_at(now_ms, rules.timezone), 0, 0, gap_ms)
    _, longest_ms, _, pieces = record
    began_ms, seen_ms = pieces[-2:]
    if now_ms < seen_ms:
        now_ms = seen_ms
    if gap_ms < longest_ms:
        gap_ms = longest_ms
    day = day_at(now_ms, rules.timezone)
    used_ms = day.used_of(pieces)
    if now_ms - seen_ms >= gap_ms:
        return Arrival(now_ms, record, True, 0, day, used_ms, used_ms, gap_ms)
    day_ms = used_ms + day.part_of(seen_ms, now_ms)
    return Arrival(now_ms, record, False, now_ms - began_ms, day, day_ms, used_ms, gap_ms)


def extended(
    record: UseRecord | None, at_ms: int, until_ms: int, rules: UseRules, *, is_noticed: bool = False
) -> UseRecord:
    """Return the record with the time of a chat, which arrived at `at_ms` and counts until `until_ms`.

    Other chats of the user may have changed the record since this one arrived. `is_noticed`: its answer has shown the
    label with `repeat`.
    """
    # Comparisons, as in `part_of`.
    if until_ms < at_ms:
        until_ms = at_ms
    if record is None:
        return UseRecord(rules.timezone, rules.gap_ms, until_ms if is_noticed else 0, (at_ms, until_ms))
    _, gap_ms, noticed_ms, earlier = record
    if gap_ms < rules.gap_ms:
        gap_ms = rules.gap_ms
    is_new = at_ms - earlier[-1] >= gap_ms
    if is_new:
        gap_ms, noticed_ms = rules.gap_ms, 0
    if is_noticed and noticed_ms < until_ms:
        noticed_ms = until_ms
    if not is_new:
        began_ms, seen_ms = earlier[-2:]
        earlier = earlier[:-2]
        if began_ms < at_ms:
            at_ms = began_ms
        if until_ms < seen_ms:
            until_ms = seen_ms
    while earlier and earlier[-1] > at_ms:  # a chat of a session that had ended still runs
        at_ms = min(at_ms, earlier[-2])
        earlier = earlier[:-2]
    while earlier and earlier[1] <= until_ms - KEPT_MS:
        earlier = earlier[2:]
    return UseRecord(rules.timezone, gap_ms, noticed_ms, (*earlier, at_ms, until_ms))


def merged(one: UseRecord, other: UseRecord, gap_ms: int = 0) -> UseRecord:
    """Return the record of a user whose time was kept in two.

    A session of one and a session of the other are one session if there was no pause of the longest gap between them.
    `gap_ms` is that of the chat that arrives.
    """
    first, last = sorted((one, other), key=lambda record: record.seen_ms)
    gap_ms = max(one.gap_ms, other.gap_ms, gap_ms)
    sessions: list[tuple[int, int, UseRecord]] = []
    for began_ms, seen_ms, of in sorted(
        ((*piece, record) for record in (first, last) for piece in zip(*[iter(record.pieces)] * 2, strict=True)),
        key=lambda it: it[:2],
    ):
        if not sessions:
            sessions.append((began_ms, seen_ms, of))
            continue
        since_ms, until_ms, of_last = sessions[-1]
        # In one record, a pause had the gap of its time.
        if began_ms >= until_ms + (gap_ms if of is not of_last else 0):
            sessions.append((began_ms, seen_ms, of))
        else:
            sessions[-1] = (since_ms, seen_ms, of) if seen_ms > until_ms else (since_ms, until_ms, of_last)
    began_ms = sessions[-1][0]
    noticed_ms = max(one.noticed_ms, other.noticed_ms)
    return UseRecord(
        last.timezone,
        gap_ms if began_ms <= first.seen_ms else last.gap_ms,
        noticed_ms if noticed_ms >= began_ms else 0,
        tuple(chain.from_iterable(it[:2] for it in sessions if it[1] > last.seen_ms - KEPT_MS)),
    )


def used_day(record: UseRecord) -> UsedDay:
    """Return the time of a user on the last day, in the time zone of the last chat."""
    day = day_at(record.seen_ms, record.timezone)
    return UsedDay(day.date, record.began_ms, record.seen_ms, day.used_of(record.pieces), record.noticed_ms)


class LimitHit(Value, frozen=True):
    """A limit that a user has reached: its length in seconds, and when a chat is answered again."""

    rule: UseRule
    limit_s: int
    allowed_ms: int


def limit_reached(now: Arrival, limits: UseLimits) -> LimitHit | None:
    """Return the limit that refuses a chat, or None. Of both limits, it is the one that refuses for longer."""
    hit = None
    after_gap_ms = (now.record.pieces[-1] if now.record is not None else now.at_ms) + now.gap_ms
    if limits.session_s is not None and not now.is_new and now.session_ms >= limits.session_s * 1000:
        hit = LimitHit("session", limits.session_s, after_gap_ms)
    if limits.day_s is not None and now.day_ms >= limits.day_s * 1000:
        # A new session does not contain the running pause.
        is_spent = now.day_seen_ms >= limits.day_s * 1000
        allowed_ms = now.day.end_ms if is_spent else min(after_gap_ms, now.day.end_ms)
        if hit is None or hit.allowed_ms < allowed_ms:
            hit = LimitHit("day", limits.day_s, allowed_ms)
    return hit


def notice_due(now: Arrival, repeat_s: float) -> Notice | None:
    """Return how the label with `repeat` is due in an answer that is not the first one of its conversation."""
    noticed_ms = now.noticed_ms
    if not noticed_ms:
        return "text"
    return "repeated" if now.at_ms - noticed_ms >= repeat_s * 1000 else None


def shown_use(now: Arrival, limits: UseLimits) -> str:
    """Return the value of `x-gateway-use`."""
    session = f"session={now.session_ms // 1000}; session-limit={limits.session_s}"
    day = f"day={now.day_ms // 1000}; day-limit={limits.day_s}"
    if limits.session_s is None:
        return day if limits.day_s is not None else ""
    return session if limits.day_s is None else f"{session}; {day}"


def refuse_use(band: AgeBand, hit: LimitHit, now: Arrival, rules: UseRules) -> Refusal:
    """Return the refusal of a chat whose user has reached a limit."""
    at = at_second(math.ceil(hit.allowed_ms / 1000))
    span = "a session" if hit.rule == "session" else "a day"
    message = f"the age band {band.name!r} may chat for {hit.limit_s} s {span} in this region: send the request at {at}"
    age = {"rule": hit.rule, "limit_s": hit.limit_s, "allowed_at": at}
    wait_s = math.ceil((hit.allowed_ms - now.at_ms) / 1000)
    return Refusal(RefusalCode.AGE_RESTRICTED, message, retry_after_s=wait_s, age=age, sentences=rules.pause)


def refuse_unknown() -> Refusal:
    """Return the refusal of a chat whose user is not known, and whose age band has limits."""
    age = {"rule": "user_unknown", "limit_s": None, "allowed_at": None}
    return Refusal(RefusalCode.AGE_RESTRICTED, f"{_UNKNOWN} {_UNKNOWN_FIX}", age=age)
