"""Quotas: what the account of a vendor still takes, and who gets what is left. The values of the configuration."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from gateway.model.budget import MOST_TOKENS, MoneyAmount, Window, shown_amount
from gateway.model.section import PlainSection, key, section
from gateway.model.units import PartialPercent
from providers.value import Value

MOST_QUOTAS = 3

DEFAULT_LOW = 20
"""The percentage of a quota that stays free of clients with the priority `low`, if the quota states none."""

_ARTICLES = {Window.HOUR: "an hour", Window.TOTAL: "in total"}


class Priority(StrEnum):
    """The order in which clients get the rest of a quota and a place in a queue, by the words of the config file."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """The place of the priority: the lowest number is served first."""
        return _RANKS[self]


_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


class QuotaUnit(StrEnum):
    """The unit of a limit of a quota. The values are the keys of the config file."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    SECONDS = "seconds"
    AMOUNT = "amount"


@section
class CountedSection(PlainSection):
    """Limits of a quota by window. That of a minute refills evenly; the others begin with the calendar."""

    minute: int | None = key("The most in a minute.", default=None, ge=1, le=MOST_TOKENS)
    hour: int | None = key("The most in an hour.", default=None, ge=1, le=MOST_TOKENS)
    day: int | None = key("The most in a day.", default=None, ge=1, le=MOST_TOKENS)
    month: int | None = key("The most in a month.", default=None, ge=1, le=MOST_TOKENS)


@section
class AudioSection(PlainSection):
    """Limits of a quota in seconds of audio, by window."""

    hour: int | None = key("The most in an hour.", default=None, ge=1, le=MOST_TOKENS)
    day: int | None = key("The most in a day.", default=None, ge=1, le=MOST_TOKENS)


@section
class SpentSection(PlainSection):
    """Limits of a quota in `usage.currency`, by window."""

    day: MoneyAmount | None = key("The most in a day.", default=None)
    week: MoneyAmount | None = key("The most in a week, which begins on Monday.", default=None)
    month: MoneyAmount | None = key("The most in a month.", default=None)
    total: MoneyAmount | None = key("The most over all time.", default=None)


@section
class Keep(PlainSection):
    """The part of a limit that stays free of clients with a lower priority."""

    low: PartialPercent | None = key(
        "The part that clients with the priority `low` leave free. Default: 20%, at least that of `normal`.",
        default=None,
    )
    normal: PartialPercent | None = key(
        "The part that clients with the priority `normal` leave free. Default: 0%.", default=None
    )

    def percent(self, priority: Priority, default_low: int = 0) -> int:
        """Return the percentage that a priority leaves free. `default_low` is that of `low` if none is stated."""
        normal = self.normal or 0
        if priority is Priority.LOW:
            return max(default_low, normal) if self.low is None else self.low
        return normal if priority is Priority.NORMAL else 0


KEEP_NOTHING = Keep()


class QuotaEntry(Value, frozen=True):
    """One limit of a quota: requests, tokens or seconds; of an amount, nano-units of `usage.currency`."""

    unit: QuotaUnit
    window: Window
    limit: int

    def words(self, currency: str) -> str:
        """Return the limit in words: `500 requests a minute`."""
        return f"{self.shown(self.limit, currency)} {_ARTICLES.get(self.window, f'a {self.window}')}"

    def shown(self, amount: int, currency: str) -> str:
        """Return an amount of its unit as text."""
        if self.unit is not QuotaUnit.AMOUNT:
            return f"{amount} {self.unit.replace('_', ' ')}"
        return f"{shown_amount(amount).removesuffix('.00')} {currency}"


class Quota(Value, frozen=True):
    """The limits that a vendor gives to one account, which deployments share."""

    name: str
    entries: tuple[QuotaEntry, ...]
    """The limits, in the order of the units and windows of the file."""
    timezone: str
    """The IANA time zone of the windows."""
    keep: Keep = KEEP_NOTHING
    """The parts that stay free of lower priorities."""
    burst_s: float = 60.0
    """The seconds whose refill the bucket of requests holds."""
    count_cached: bool = True
    """Whether input that the vendor read from its cache counts."""
    reserve: Literal["usual", "cap"] = "usual"
    """The tokens that are held for the output of a call: the usual number, or its cap."""
    output_weight: int = 1
    """How often each token of output counts in `tokens`."""
    currency: str = ""
    """The currency of amounts. It is empty without one."""

    def __str__(self) -> str:
        limits = ", ".join(entry.words(self.currency) for entry in self.entries)
        kept = [(it, self.keep.percent(it, DEFAULT_LOW)) for it in (Priority.LOW, Priority.NORMAL)]
        parts = [f"{percent} % from {priority}" for priority, percent in kept if percent]
        return f"{limits} (kept: {', '.join(parts)})" if parts else limits
