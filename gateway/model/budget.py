"""Budgets of clients, projects and end users, the rules of usage and money, and the stores of a cell: the values.

Amounts of money are integers of billionths of a currency's unit ("nano"). They are exact, and never floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import Annotated, Literal

from gateway.model.permit import ServicePermit
from gateway.model.section import FileForm, PlainSection, UnitError, key, section, word_of
from gateway.model.units import AgeSeconds, Seconds
from providers.auth import Secret
from providers.value import Value

_MONEY = r"^(0|[1-9][0-9]{0,9})(\.[0-9]{1,9})? [A-Z]{3}$"
_MOST_UNITS = 9_000_000_000
MOST_TOKENS = 2**53
"""Up to this number, every store counts exactly."""

NANO = 1_000_000_000
"""The number of nano-units in one unit of a currency."""

TOKENS = "tokens"
"""The unit of budgets in tokens."""

CALENDAR_WINDOWS = frozenset({"day", "week", "month"})
"""The words of the windows whose bounds depend on the time zone."""


class Window(StrEnum):
    """The time for which a budget holds. The values are the words of the config file."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


class Money(Value, frozen=True):
    """An amount of one currency (ISO 4217), in billionths of its unit."""

    nano: int
    currency: str

    def __str__(self) -> str:
        return f"{shown_amount(self.nano)} {self.currency}"


def shown_amount(nano: int) -> str:
    """Format nano-units as decimal text with at least two decimals: `0.000123456`, `5.00`."""
    whole, rest = divmod(nano, NANO)
    return f"{whole}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"


def _money(value: object) -> Money:
    """Return an amount such as `0.50 EUR`. A number without a currency, or in another form, is refused."""
    such_as = "such as 20 EUR or 0.50 EUR"
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_usable = isfinite(value) and 0 <= value <= _MOST_UNITS
        raise UnitError("an amount needs a currency", f"such as {value:.9g} EUR" if is_usable else such_as)
    if not isinstance(value, str):
        raise UnitError("must be an amount with its currency", such_as)
    if re.fullmatch(_MONEY, value):
        number, currency = value.split(" ")
        if Decimal(number) > _MOST_UNITS:
            raise UnitError(f"must be at most {_MOST_UNITS:,}", such_as)
        return Money(int(Decimal(number) * NANO), currency)
    if value.strip().startswith("-"):
        raise UnitError("an amount must not be negative", such_as)
    if re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,9})?", value):
        raise UnitError("an amount needs a currency", f"such as {value} EUR")
    if re.fullmatch(r"[0-9]+\.[0-9]{10,} ?[A-Z]{3}", value):
        raise UnitError("must have at most nine decimals", such_as)
    raise UnitError("must be a decimal number, one space and the code of a currency (ISO 4217)", such_as)


MoneyAmount = Annotated[
    Money, FileForm(_money, {"type": "string", "pattern": _MONEY, "examples": ["20 EUR", "0.50 EUR"]})
]


@section
class BudgetRule(PlainSection):
    """The most that may be spent in a window: `amount` or `tokens`."""

    amount: MoneyAmount | None = key(
        "The amount, in `usage.currency`. The price of each model must be known.", default=None
    )
    tokens: int | None = key(
        "The tokens: all that the provider counts (input, cached, output, reasoning).",
        default=None,
        ge=0,
        le=MOST_TOKENS,
    )
    per: Annotated[Window, word_of(Window, "the window of the budget")] = key(
        "The window: aligned with the calendar of `usage.timezone`. Weeks begin on Monday.", kw_only=True
    )

    @property
    def is_money(self) -> bool:
        """Whether it limits money, so that the price of each model must be known."""
        return self.amount is not None

    @property
    def unit(self) -> str:
        """The currency, or `tokens`."""
        return TOKENS if self.amount is None else self.amount.currency

    @property
    def limit(self) -> int:
        """Nano-units of the currency, or tokens."""
        return (self.tokens or 0) if self.amount is None else self.amount.nano

    def __str__(self) -> str:
        amount = self.amount or f"{self.tokens} {TOKENS}"
        return f"{amount} in total" if self.per is Window.TOTAL else f"{amount} per {self.per}"


class Project(Value, frozen=True):
    """A group of clients that share budgets."""

    name: str
    budgets: tuple[BudgetRule, ...] = ()


class SpendingRules(Value, frozen=True):
    """The limits of a client in tokens and money, in the order in which they refuse, and the project of the client.

    `max_request` is the most that all calls of one request may cost. `show_cost`: its answers state what they cost.
    """

    project: Project | None = None
    budgets: tuple[BudgetRule, ...] = ()
    user_budgets: tuple[BudgetRule, ...] = ()
    max_request: Money | None = None
    show_cost: bool = False

    @property
    def all_budgets(self) -> tuple[BudgetRule, ...]:
        """The budgets that apply to its requests: its own, those of its project, those of each end user."""
        shared = self.project.budgets if self.project is not None else ()
        return (*self.budgets, *shared, *self.user_budgets)

    @property
    def is_bounded(self) -> bool:
        """Whether any budget or limit of a request applies."""
        return self.max_request is not None or bool(self.all_budgets)

    @property
    def limits_money(self) -> bool:
        """Whether a limit of money applies, so that the price of each model must be known."""
        return self.max_request is not None or any(budget.is_money for budget in self.all_budgets)


NO_SPENDING_RULES = SpendingRules()


@dataclass(frozen=True, slots=True)
class AlertWebhook:
    """The address that gets an alert of a budget. The path may be a secret."""

    permit: ServicePermit
    path: str = field(repr=False)
    territory: str


class Alerts(Value, frozen=True):
    """When an alert of a budget is sent: at ascending percentages of it.

    It goes to the webhook, or is a log event and a metric only.
    """

    at: tuple[int, ...]
    webhook: AlertWebhook | None = None


@section
class LedgerRetention(PlainSection):
    """How long rows are kept. Totals by hour and day are always kept."""

    ledger_s: AgeSeconds = key(
        "How long each row of the ledger is kept, in hours or days.",
        default=400 * 86_400.0,
        name="ledger",
        written="400d",
    )


DEFAULT_RETENTION = LedgerRetention()


class UsageRules(Value, frozen=True):
    """How usage is counted."""

    currency: str | None = None
    """The operator's currency, of budgets and reports, or None if amounts are not converted."""
    rates: Mapping[str, str] = {}
    """Units of `currency` for one unit of another currency, as exact decimal text."""
    rates_as_of: date | None = None
    timezone: str = "UTC"
    """The IANA time zone of days, weeks and months."""
    on_loss: Money | None = None
    """The amount that each instance may spend while the shared store cannot be asked, or None for nothing."""
    retention: LedgerRetention = DEFAULT_RETENTION
    """How long rows are kept."""
    alerts: Alerts | None = None
    """When an alert of a budget is sent, or None."""
    internal_project: str | None = None
    """The project that pays for calls that no client asked for, or None: they have no budget."""

    def knows(self, currency: str) -> bool:
        """Return whether amounts of a currency can be converted into the operator's."""
        return self.currency is not None and (currency == self.currency or currency in self.rates)


NO_USAGE_RULES = UsageRules()


@section
class KeyRules(PlainSection):
    """The API keys of clients while the key store cannot be asked."""

    max_stale_s: Seconds = key(
        "How long keys that were seen keep working while the key store cannot be asked.",
        default=300.0,
        name="max_stale",
        written="5m",
    )


DEFAULT_KEY_RULES = KeyRules()


StoreKind = Literal["database", "valkey"]


class StoreServer(Value, frozen=True):
    """A server that keeps state for all instances of a cell."""

    kind: StoreKind
    host: str
    """The name or address of the server."""
    port: int
    territory: str
    """Where the server, its replicas and its backups are."""
    database: str = ""
    """The name of the database, or its number in Valkey. Empty for the server's default."""
    user: str = ""
    """The name to log in with. Empty for the server's default."""
    passwords: tuple[Secret | None, ...] = (None,)
    """The passwords to try, in this order. None stands for a login without one."""
    uses_tls: bool = True
    """Whether the connection is encrypted and the server's certificate is verified."""
    ca_file: str = ""
    """The file with the certificate authorities of the server. Empty for those of the system."""


class Stores(Value, frozen=True):
    """The shared stores of a cell: PostgreSQL for the ledger, keys and budgets, and Valkey.

    Without one, its data are in SQLite and a memory-mapped file of the state directory.
    """

    database: StoreServer | None = None
    valkey: StoreServer | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the stores that there are."""
        return tuple(kind for kind in ("database", "valkey") if getattr(self, kind) is not None)


ClientsSource = Literal["file", "database"]
"""Where clients, keys, projects and budgets are: in the config file or in the database."""
