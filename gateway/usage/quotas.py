"""The limits of quotas as the gate counts them: what a call holds, and when it has room. Pure.

Theory of operation:

- A call is measured in `Parts`. Each limit weighs them: it holds the weighed estimate, and settles to the weighed use.
- The limit of a minute is a bucket: the time until it is full again. All others are windows: what is spent and held.
- A limit is made for one priority. A call has room if, after it, the part that is kept from this priority is free.
- The running calls of a deployment (`concurrency`, with shared stores) are one more limit, which every call gives back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.model.budget import Window
from gateway.model.config_version import ConfigVersion, remember
from gateway.model.deployment import Deployment
from gateway.model.quota import DEFAULT_LOW, Priority, Quota, QuotaEntry, QuotaUnit
from gateway.model.status import VendorLimit
from gateway.usage.amounts import NANO
from gateway.usage.counter_tags import Tag, key_of, tag_of
from gateway.usage.usage_row import UsageRow
from gateway.usage.windows import FOREVER_NS, MINUTE_NS, WindowBounds, WindowCalendar
from providers.value import Value

RUNNING = "running"
"""The unit of the limit of running calls."""

_ALWAYS_PERCENT = 5
"""The part of a window that every priority may use at any time."""

_MOST_WAIT_S = 3600

Parts = tuple[int, int, int, int, int, int, int]
"""The use of a call: calls, input, the part of it that was read from a cache, output, its cap, seconds, nano-units."""

NOTHING: Parts = (0, 0, 0, 0, 0, 0, 0)

_WEIGHTS: dict[str, Parts] = {
    QuotaUnit.REQUESTS: (1, 0, 0, 0, 0, 0, 0),
    QuotaUnit.TOKENS: (0, 1, 0, 1, 0, 0, 0),
    QuotaUnit.INPUT_TOKENS: (0, 1, 0, 0, 0, 0, 0),
    QuotaUnit.OUTPUT_TOKENS: (0, 0, 0, 1, 0, 0, 0),
    QuotaUnit.SECONDS: (0, 0, 0, 0, 0, 1, 0),
    QuotaUnit.AMOUNT: (0, 0, 0, 0, 0, 0, 1),
}


def weighed(weights: Parts, parts: Parts) -> int:
    """Return how much a limit with these weights counts of a use. It is one call for each limit of a request."""
    calls, read, cached, written, cap, seconds, nano = parts
    of_calls, of_read, of_cached, of_written, of_cap, of_seconds, of_nano = weights
    tokens = of_read * read + of_cached * cached + of_written * written + of_cap * cap
    return of_calls * calls + tokens + of_seconds * seconds + of_nano * nano


class QuotaState(NamedTuple):
    """The numbers of a limit: the use of settled calls, the holds of running calls, and the bounds of its window.

    Of a bucket, `spent` is the nanoseconds until it is full, of which the holds are a part, and both bounds are 0.
    """

    spent: int = 0
    held: int = 0
    start_ns: int = 0
    end_ns: int = 0


@dataclass(frozen=True, slots=True)
class QuotaLimit:
    """One limit of a quota for one priority, ready for the gate."""

    quota: str
    """The name of the quota, or of the deployment whose running calls it counts."""
    unit: str
    """The unit that it counts: a `QuotaUnit`, or `RUNNING`."""
    window: Window
    limit: int
    kept: int
    """The percentage that stays free of the priority."""
    holds: Parts
    """The weights of the parts of a call that begins."""
    uses: Parts
    """The weights of the parts of a call that has ended."""
    calendar: WindowCalendar = field(compare=False, repr=False)
    currency: str = ""
    """The currency of an amount, or an empty text."""
    burst_s: float = 60.0
    """The seconds whose refill a bucket of requests holds."""
    most: int = field(init=False)
    """The most that may be used at any time by the priority."""
    whole: int = field(init=False)
    """The largest call that ever fits."""
    size_ns: int = field(init=False)
    """The time in which an empty bucket is full."""
    most_ns: int = field(init=False)
    """The time until it is full after the last call that has room."""
    is_bucket: bool = field(init=False)
    """Whether it refills evenly."""
    always: int = field(init=False)
    """The part of a window that every priority may use at any time."""
    counts_calls: bool = field(init=False)
    """Whether it counts requests, each of which is used when it is admitted."""
    tag: Tag = field(init=False, compare=False, repr=False)
    """The digest by which a store finds the counter: of name, unit and window."""
    key: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        limit, size, size_ns = self.limit, self.limit, MINUTE_NS
        if self.unit == QuotaUnit.REQUESTS and self.window is Window.MINUTE:
            size = max(1, int(limit * self.burst_s / 60))
            size_ns = max(int(self.burst_s * NANO), MINUTE_NS // limit)
        kept = size * self.kept // 100
        counts_calls = self.unit == QuotaUnit.REQUESTS
        object.__setattr__(self, "always", max(limit * _ALWAYS_PERCENT // 100, int(counts_calls)))
        is_even = self.window not in (Window.MINUTE, Window.TOTAL)
        tag = tag_of("quota", self.quota, self.unit, self.window)
        for name, value in (
            ("most", limit if is_even else size - kept),
            ("whole", max(self.always, limit * (100 - self.kept) // 100) if is_even else size - kept),
            ("size_ns", size_ns),
            ("is_bucket", self.window is Window.MINUTE),
            ("counts_calls", counts_calls),
            ("most_ns", size_ns - self.duration_ns(kept)),
            ("tag", tag),
            ("key", key_of(tag)),
        ):
            object.__setattr__(self, name, value)

    def duration_ns(self, amount: int) -> int:
        """Return the time in which a bucket refills an amount."""
        return amount * MINUTE_NS // self.limit

    def hold(self, parts: Parts, now_ns: int, *, is_stated: bool) -> QuotaHold:
        """Return what a call holds that is admitted now.

        A request without a cap is at most the whole, because the client cannot make it smaller.
        """
        amount = parts[0] if self.counts_calls else weighed(self.holds, parts)
        if amount > self.whole and not is_stated and self.unit != QuotaUnit.AMOUNT:
            amount = self.whole
        bounds = None if self.is_bucket else self.calendar.at(now_ns)[self.window]
        return QuotaHold(self, amount, bounds)

    def wait_ns(self, amount: int, state: QuotaState, now_ns: int) -> int | None:
        """Return the time until an amount has room: 0 now; `FOREVER_NS` at no known time; None never."""
        spent, held, start_ns, end_ns = state
        if amount > self.whole:
            return None
        if self.is_bucket:
            return max(0, spent + self.duration_ns(amount) - self.most_ns)
        used = spent + held + amount
        if used <= self.most:
            even_ns = self._even_ns(used, end_ns - start_ns)
            if not even_ns or start_ns + even_ns <= now_ns:
                return 0
            if start_ns + even_ns < end_ns:
                return start_ns + even_ns - now_ns
        return (
            FOREVER_NS if end_ns >= FOREVER_NS else max(1, end_ns - now_ns) + self._even_ns(amount, end_ns - start_ns)
        )

    def _even_ns(self, amount: int, length_ns: int) -> int:
        """Return how long after its begin a window of this length admits so much use."""
        if not self.kept or self.window is Window.TOTAL or amount <= self.always:
            return 0
        return -(-amount * 100 * length_ns // (self.limit * (100 - self.kept)))

    def used(self, state: QuotaState) -> tuple[int, int]:
        """Return what is used, and what running calls hold in addition."""
        spent, held, *_ = state
        if self.is_bucket:
            taken = -(-spent * self.limit // MINUTE_NS)
            held = min(held, taken)
            spent = taken - held
        return (spent + held, 0) if self.unit in (QuotaUnit.REQUESTS, RUNNING) else (spent, held)

    def share(self, state: QuotaState) -> float:
        """Return which part of it is used and held, of a bucket the part that is not full."""
        if self.is_bucket:
            return min(1.0, state.spent / self.size_ns)
        return (state.spent + state.held) / self.limit

    def __str__(self) -> str:
        if self.unit == RUNNING:
            return f"{self.limit} running calls"
        return QuotaEntry(QuotaUnit(self.unit), self.window, self.limit).words(self.currency)


class QuotaHold(msgspec.Struct, frozen=True, gc=False):
    """The hold of a call in a limit. `bounds` are those of its window; None for a bucket."""

    limit: QuotaLimit
    amount: int
    bounds: WindowBounds | None


class QuotaRefusal(Value, frozen=True):
    """A call that has no room in its quotas."""

    lacking: tuple[QuotaHold, ...]
    """The holds that have no room, in the order of the request."""
    wait_ns: int | None
    """The time until all of it has room, `FOREVER_NS` if that is unknown, or None if it can never fit."""
    is_kept: bool = False
    """Whether the first of it has room, but for higher priorities."""
    is_behind: bool = False
    """Whether there may be room, and others wait for it."""
    why: str = ""
    """Another reason than a full limit, in words."""
    first_ns: int | None = None
    """The time until the first of it has room, or None if that is the time of all."""

    @property
    def limit(self) -> QuotaLimit:
        """The first limit without room."""
        return self.lacking[0].limit

    @property
    def in_s(self) -> int:
        """The whole seconds until there is room, from 1 to 3,600."""
        wait_ns = FOREVER_NS if self.wait_ns is None else self.wait_ns
        return min(max(1, math.ceil(wait_ns / NANO)), _MOST_WAIT_S)

    def __str__(self) -> str:
        limit, wait_ns = self.limit, self.wait_ns if self.first_ns is None else self.first_ns
        if self.why:
            return f"quota {limit.quota}: {self.why}"
        if wait_ns is None:
            return f"quota {limit.quota}: this call can never fit into {limit}"
        used = "spent" if limit.unit == QuotaUnit.AMOUNT else "used"
        free = f", free in {max(1, math.ceil(wait_ns / NANO))} s" if wait_ns < FOREVER_NS else ""
        kept = f"; {limit.kept} % are kept for others" if self.is_kept else ""
        return f"quota {limit.quota}: {limit} are {used}{free}{kept}"


def quota_refusal(holds: Sequence[QuotaHold], states: Sequence[QuotaState], now_ns: int) -> QuotaRefusal | None:
    """Return why a call has no room, or None if it has."""
    lacking, waits, is_kept = list[QuotaHold](), list[int | None](), False
    for one, state in zip(holds, states, strict=True):
        wait_ns = one.limit.wait_ns(one.amount, state, now_ns)
        if wait_ns == 0:
            continue
        if not lacking and one.limit.kept:
            is_kept = _has_unkept_room(one, state)
        lacking.append(one)
        waits.append(wait_ns)
    if not lacking:
        return None
    if None in waits:
        return QuotaRefusal(tuple(one for one, wait_ns in zip(lacking, waits, strict=True) if wait_ns is None), None)
    wait_ns = max(wait_ns for wait_ns in waits if wait_ns is not None)
    return QuotaRefusal(tuple(lacking), wait_ns, is_kept, first_ns=waits[0])


def _has_unkept_room(one: QuotaHold, state: QuotaState) -> bool:
    limit, amount = one.limit, one.amount
    if limit.is_bucket:
        return state.spent + limit.duration_ns(amount) <= limit.size_ns
    return state.spent + state.held + amount <= limit.limit


def quota_limits(config: ConfigVersion, deployment: Deployment, priority: Priority) -> tuple[QuotaLimit, ...]:
    """Return the limits of the quotas of a deployment for a priority, in the order in which they are asked."""
    key = ("quota_limits", deployment.name, priority)
    return remember(config, key, lambda: _limits_of(config, deployment, priority))


def _limits_of(config: ConfigVersion, deployment: Deployment, priority: Priority) -> tuple[QuotaLimit, ...]:
    found = [it for quota in deployment.quotas for it in limits_of_quota(quota, priority)]
    rule = deployment.concurrency
    if rule is not None and config.stores is not None and config.stores.valkey is not None:
        kept, weights = rule.keep.percent(priority), _WEIGHTS[QuotaUnit.REQUESTS]
        calendar = WindowCalendar(ZoneInfo(config.usage.timezone))
        limit = (deployment.name, RUNNING, Window.TOTAL, rule.limit, kept, weights, NOTHING)
        found.append(QuotaLimit(*limit, calendar))
    return tuple(found)


def limits_of_quota(quota: Quota, priority: Priority = Priority.HIGH) -> tuple[QuotaLimit, ...]:
    """Return the limits of a quota for a priority."""
    calendar = WindowCalendar(ZoneInfo(quota.timezone))
    kept = quota.keep.percent(priority, DEFAULT_LOW)
    return tuple(_limit_of(quota, entry, kept, calendar) for entry in quota.entries)


def limits_of(config: ConfigVersion) -> tuple[QuotaLimit, ...]:
    """Return each limit of each quota, as clients of high priority have it."""
    return remember(
        config, ("limits_of",), lambda: tuple(one for quota in config.quotas.values() for one in limits_of_quota(quota))
    )


def _limit_of(quota: Quota, entry: QuotaEntry, kept: int, calendar: WindowCalendar) -> QuotaLimit:
    calls, read, cached, written, cap, seconds, nano = _WEIGHTS[entry.unit]
    if not quota.count_cached:
        cached = -read
    if entry.unit is QuotaUnit.TOKENS:
        written *= quota.output_weight
    uses = holds = (calls, read, cached, written, cap, seconds, nano)
    if quota.reserve == "cap":
        holds = (calls, read, cached, 0, written, seconds, nano)
    return QuotaLimit(
        quota.name, entry.unit, entry.window, entry.limit, kept, holds, uses, calendar, quota.currency, quota.burst_s
    )


def begun_seconds(audio_ms: int) -> int:
    """Return the seconds of audio that a quota counts: each begun one."""
    return -(-audio_ms // 1000)


def row_parts(row: UsageRow, amount_nano: int) -> Parts:
    """Return what a call used by its row."""
    seconds = begun_seconds(row.audio_ms) if row.audio_ms else 0
    return 1, row.input_tokens, row.cached_tokens, row.output_tokens, 0, seconds, amount_nano


# --- the limits that vendors state ---------------------------------------------------------------

_FORMS = ("x-ratelimit-{part}-{of}", "anthropic-ratelimit-{of}-{part}", "x-ratelimit-{part}-{of}-minute")
_OTHER_WINDOWS = {"groq": QuotaUnit.REQUESTS}
"""Providers that state a unit for a day under the name of a minute (console.groq.com/docs/rate-limits, 2026-11-29)."""

StatedHeaders = Mapping[str, tuple[Mapping[str, str], float]]
"""The headers of the last answer of each deployment, and when it came (Unix time)."""


def vendor_limits(config: ConfigVersion, stated: StatedHeaders) -> dict[tuple[str, str], VendorLimit]:
    """Return what vendors stated last of each limit of a minute, by the quota and the unit."""
    found: dict[tuple[str, str], VendorLimit] = {}
    for name, (headers, at_s) in stated.items():
        if (deployment := config.deployments.get(name)) is None:  # it was removed
            continue
        for quota in deployment.quotas:
            for entry in quota.entries:
                key, is_other = (quota.name, str(entry.unit)), _OTHER_WINDOWS.get(deployment.provider) == entry.unit
                if entry.window is not Window.MINUTE or is_other or (key in found and found[key].at_s > at_s):
                    continue
                limit, remaining = (_number(headers, part, entry.unit) for part in ("limit", "remaining"))
                if limit is not None and remaining is not None:
                    found[key] = VendorLimit(limit, remaining, at_s)
    return found


def _number(headers: Mapping[str, str], part: str, unit: QuotaUnit) -> int | None:
    values = (headers.get(form.format(part=part, of=unit.replace("_", "-")), "") for form in _FORMS)
    return next((int(it) for it in values if it.isascii() and it.isdigit() and len(it) < 16), None)
