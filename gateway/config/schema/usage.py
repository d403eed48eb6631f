"""Shape of `projects`, `usage`, `stores` and `keys`, and of the budgets of clients."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from gateway.config.field_types import CurrencyCode, ExchangeRate, Name, OneOrTwo, Section, TimeZone
from gateway.model.budget import BudgetRule, LedgerRetention, MoneyAmount
from gateway.model.quota import AudioSection, CountedSection, Keep, SpentSection
from gateway.model.section import Sensitive, UnitError
from gateway.model.units import Day, Seconds

_VERSIONS = "Its password: ${NAME} or ${file:/path}; a list of two, the new one first, while it is replaced."
_WHERE = "Where the server, its replicas and its backups are: an ISO 3166 code such as DE."


def _one_or_list(value: object) -> object:
    """Read a single mapping as a list with one item."""
    return [value] if isinstance(value, dict) else value


Budgets = Annotated[list[BudgetRule], Field(min_length=1)]
OneOrMoreBudgets = Annotated[Budgets, BeforeValidator(_one_or_list, json_schema_input_type=BudgetRule | Budgets)]


class ProjectSection(Section):
    """A group of clients that share budgets."""

    budgets: list[BudgetRule] = Field([], description="The budgets that its clients share.")


class MaxRequestSection(Section):
    """The most that one request may cost."""

    amount: MoneyAmount = Field(description="The amount for all calls of the request together, in `usage.currency`.")


class RatesSection(Section):
    """Exchange rates: units of `usage.currency` for one unit of each other currency."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, hide_input_in_errors=True, defer_build=True)
    __pydantic_extra__: dict[CurrencyCode, ExchangeRate] = Field(init=False)

    as_of: Day | None = Field(None, description="The day of the rates.")

    @property
    def by_currency(self) -> dict[str, Any]:
        """The rates as decimal text, by currency."""
        return dict(self.__pydantic_extra__ or {})


class OnLossSection(Section):
    """The amount that each instance may spend while the shared store cannot be asked."""

    allow: MoneyAmount = Field(
        description="The amount for each instance and outage, in `usage.currency`: what calls cost, and open holds."
    )


class WebhookSection(Section):
    """The address that gets each alert."""

    # An address that often contains a token.
    url: Annotated[str, Sensitive(is_secret=False)] = Field(description="Its https URL.", repr=False)
    territory: str = Field(description="Where the alerts are stored: an ISO 3166 code such as DE.")


class AlertsSection(Section):
    """When a budget raises an alert: a log event, a metric, and a call of the webhook."""

    at: Annotated[list[Annotated[int, Field(ge=1, le=100)]], Field(min_length=1)] = Field(
        description="The used percentages of a budget, such as [80, 100]."
    )
    webhook: WebhookSection | None = Field(None, description="The address that gets each alert. Default: none.")


def _on_loss(value: object) -> object:
    if value == "deny" or isinstance(value, dict | OnLossSection):
        return None if value == "deny" else value
    raise UnitError("must be the word deny, or a mapping of its key", "write `deny`, or {allow: 5 EUR}")


class UsageSection(Section):
    """How usage is counted, in which currency, and what happens without the store that counts it."""

    currency: CurrencyCode | None = Field(
        None, description="Your currency (ISO 4217), of budgets and reports. Default: amounts are not converted."
    )
    rates: RatesSection | None = Field(None, description="Exchange rates of the currencies that vendors use.")
    timezone: TimeZone | None = Field(
        None, description="The time zone (IANA) of days, weeks and months, such as Europe/Berlin. Default: UTC."
    )
    on_loss: Annotated[
        OnLossSection | None, BeforeValidator(_on_loss, json_schema_input_type=Literal["deny"] | OnLossSection)
    ] = Field(
        None,
        description="The treatment of requests with a budget while the shared store cannot be asked: `deny`, or "
        "{allow: 5 EUR}. Default: deny.",
    )
    retention: LedgerRetention = Field(LedgerRetention(), description="How long rows are kept.")
    alerts: AlertsSection | None = Field(None, description="When a budget raises an alert. Default: never.")
    internal_project: Name | None = Field(
        None,
        description="The project that pays for calls that no client asked for: shadow, evaluation, playground, probes.",
    )


class QuotaSection(Section):
    """One limit of a vendor, which deployments share: so many calls, tokens or so much money of one account."""

    requests: CountedSection | None = Field(None, description="Calls.")
    tokens: CountedSection | None = Field(None, description="Tokens, input and output.")
    input_tokens: CountedSection | None = Field(None, description="Tokens of input.")
    output_tokens: CountedSection | None = Field(None, description="Tokens of output.")
    seconds: AudioSection | None = Field(None, description="Seconds of audio.")
    amount: SpentSection | None = Field(None, description="Money. The price of each model must be known.")
    timezone: TimeZone | None = Field(
        None, description="The time zone of its windows, such as America/Los_Angeles. Default: `usage.timezone`."
    )
    keep: Keep = Field(
        Keep(),
        description="The part that stays free of clients with a lower priority. Default: {low: 20%, normal: 0%}.",
    )
    burst: Seconds = Field(
        60.0,
        description="For `requests` in a minute: the size of the bucket is the refill of this time, from 1s to 60s.",
        json_schema_extra={"default": "60s"},
    )
    count_cached: bool = Field(True, description="false: input that the vendor read from its cache does not count.")
    reserve: Literal["usual", "cap"] = Field(
        "usual",
        description="The tokens that are held for the output of a call: the `usual` number, or its `cap`, which is "
        "the longest answer of the model where the request has none.",
    )
    output_weight: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="How often each token of output counts in `tokens`."
    )


class StoreSection(Section):
    """A server that the instances of the cell share."""

    url: str
    password: Annotated[OneOrTwo | None, Sensitive("`password`")] = Field(None, description=_VERSIONS, repr=False)
    territory: str = Field(description=_WHERE)


class DatabaseSection(StoreSection):
    """The PostgreSQL server that keeps the ledger, keys and budgets of the cell."""

    url: str = Field(
        description="Its address, without a password: postgresql://USER@HOST/NAME. Another machine is called with TLS, "
        "and its certificate is verified; `sslrootcert` names a file with its certificate authorities.",
        repr=False,
    )


class ValkeySection(StoreSection):
    """The Valkey server that counts the limits and budgets of the cell."""

    url: str = Field(
        description="Its address, without a password: rediss://HOST:6379, or redis:// for this machine. "
        "`ssl_ca_certs` names a file with its certificate authorities.",
        repr=False,
    )


class StoresSection(Section):
    """The stores that all instances of the cell share. Without it: SQLite and a file in the state directory."""

    database: DatabaseSection | None = Field(None, description="PostgreSQL, for the ledger, keys and budgets.")
    valkey: ValkeySection | None = Field(None, description="Valkey, for counting limits and budgets.")
