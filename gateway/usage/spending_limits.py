"""The limits of a client's calls: its budgets, those of its project and of its end user, and its tokens per minute."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gateway.model.budget import NO_SPENDING_RULES, BudgetRule, Project
from gateway.model.config_version import Client, ConfigVersion, remember
from gateway.model.quota import Priority
from gateway.usage.amounts import ExchangeRates
from gateway.usage.gate import TOKENS, BudgetLimit, Counter, CounterKind, RatePerMinute
from gateway.usage.windows import WindowCalendar


class SpendingLimits(msgspec.Struct, frozen=True):
    """The limits of the calls of a client, ready for the gate."""

    client: str | None = None
    project: str | None = None
    budgets: tuple[BudgetLimit, ...] = ()
    """The budgets of the client and of its project, in the order in which they refuse."""
    rates: tuple[RatePerMinute, ...] = ()
    """The tokens per minute."""
    user_budgets: tuple[BudgetRule, ...] = ()
    """The budgets of each end user."""
    max_request_nano: int | None = None
    """The most that one request may cost, or None."""
    limits_money: bool = False
    shows_cost: bool = False
    """Whether the client sees costs."""

    @property
    def are_none(self) -> bool:
        """Whether no limit applies."""
        return not (self.budgets or self.rates or self.user_budgets) and self.max_request_nano is None


class Terms(NamedTuple):
    """The terms of the calls for one client under one config version: limits, and the priority where a quota is full.

    The limits of an end user are added for each request.
    """

    config: ConfigVersion
    limits: SpendingLimits
    conversion: ExchangeRates
    calendar: WindowCalendar
    priority: Priority = Priority.NORMAL


def terms_of(config: ConfigVersion, client: Client | None) -> Terms:
    """Return the terms of the calls that a client asks for. A client without a name is None."""
    key = "terms_of", client.name if client is not None else None
    known: Terms | None = config.memo.get(key)
    if known is not None:
        return known
    priority = client.priority if client is not None else Priority.NORMAL
    return remember(config, key, lambda: _terms(config, limits_of(client), priority))


def internal_terms(config: ConfigVersion) -> Terms:
    """Return the terms of calls that no client asked for, with the limits of `usage.internal_project`."""
    return remember(config, ("internal_terms",), lambda: _terms(config, _internal_limits(config), Priority.LOW))


def _terms(config: ConfigVersion, limits: SpendingLimits, priority: Priority) -> Terms:
    rates = ExchangeRates(config.usage.currency, config.usage.rates)
    return Terms(config, limits, rates, calendar_of(config), priority)


def limits_of(client: Client | None) -> SpendingLimits:
    """Return the limits of the calls that a client asks for, or of those that no client asks for."""
    if client is None:
        return SpendingLimits()
    spending = client.spending
    tpm = client.limits.tpm if client.limits is not None else None
    rates = () if tpm is None else (RatePerMinute(CounterKind.CLIENT, client.name, TOKENS, tpm),)
    return SpendingLimits(
        client=client.name,
        project=spending.project.name if spending.project is not None else None,
        budgets=(*limits_from(CounterKind.CLIENT, client.name, spending.budgets), *_project_limits(spending.project)),
        rates=rates,
        user_budgets=spending.user_budgets,
        max_request_nano=spending.max_request.nano if spending.max_request is not None else None,
        limits_money=spending is not NO_SPENDING_RULES and spending.limits_money,
        shows_cost=spending.show_cost,
    )


def _internal_limits(config: ConfigVersion) -> SpendingLimits:
    name = config.usage.internal_project
    project = config.projects.get(name) if name is not None else None
    if project is None:
        return SpendingLimits()
    is_money = any(budget.is_money for budget in project.budgets)
    return SpendingLimits(project=project.name, budgets=_project_limits(project), limits_money=is_money)


def _project_limits(project: Project | None) -> tuple[BudgetLimit, ...]:
    return limits_from(CounterKind.PROJECT, project.name, project.budgets) if project is not None else ()


def limits_from(kind: CounterKind, name: str, rules: Iterable[BudgetRule], client: str = "") -> tuple[BudgetLimit, ...]:
    """Return the budgets of an owner as limits of the gate. An end user's belong to a client too."""
    return tuple(BudgetLimit(Counter(kind, name, rule.unit, rule.per, client), rule.limit) for rule in rules)


@lru_cache(maxsize=16_384)
def user_limits(client: str, pseudonym: str, rules: tuple[BudgetRule, ...]) -> tuple[BudgetLimit, ...]:
    """Return the budgets that an end user has with a client."""
    return limits_from(CounterKind.USER, pseudonym, rules, client)


def counted_budgets(config: ConfigVersion) -> dict[Counter, int]:
    """Return the counters of all clients and projects, with the limits of their budgets."""
    found: dict[Counter, int] = {}
    for client in config.clients.values():
        found |= {one.counter: one.limit for one in terms_of(config, client).limits.budgets}
    for project in config.projects.values():
        found |= {one.counter: one.limit for one in _project_limits(project)}
    return found


def has_budget(config: ConfigVersion) -> Callable[[Counter], bool]:
    """Return a function: whether a counter belongs to a budget of the config."""
    owners = counted_budgets(config)
    users = {
        (client.name, rule.unit, rule.per)
        for client in config.clients.values()
        for rule in client.spending.user_budgets
    }

    def is_of_budget(counter: Counter) -> bool:
        if counter.kind is CounterKind.USER:
            return (counter.client, counter.unit, counter.window) in users
        return counter in owners

    return is_of_budget


def calendar_of(config: ConfigVersion) -> WindowCalendar:
    """Return the calendar of the windows of budgets."""
    return remember(config, ("calendar_of",), lambda: WindowCalendar(ZoneInfo(config.usage.timezone)))
