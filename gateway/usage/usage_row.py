"""The usage row: what one call to a provider used and cost, as it is written to the journal and to the ledger.

Amounts are integers in units of 1e-9 of their currency (`…_nano`). Times are Unix times in nanoseconds.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from gateway.usage.amounts import MOST_NANO, NANO, CallAmount, shown_nano
from providers.catalogue.prices import NO_CURRENCY

MOST_TOKENS = 10**12
"""The highest accepted number of tokens of one call. Usage above it is not plausible, and counts as absent."""

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
_Nano = Annotated[int, msgspec.Meta(ge=0, le=MOST_NANO)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Id = Annotated[str, msgspec.Meta(min_length=1)]
TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")

_SHOWN = (
    "call", "request", "client", "project", "user", "assistant", "region", "territory", "provider", "site",
    "deployment", "processes", "model", "config_version", "price_version", "usage_source", "rate", "outcome",
    "reported_input_tokens", *TOKENS, "use",
)  # fmt: skip


class RowKind(StrEnum):
    """The kind of event that a row records."""

    USAGE = "usage"
    """One call to a provider."""
    TOP_UP = "top_up"
    """An operator raised a budget for its open window."""
    RESET = "reset"
    """An operator set the spent amount of a budget to 0."""


class UsageSource(StrEnum):
    """Where the numbers of a row come from."""

    PROVIDER = "provider"
    """The provider counted the tokens."""
    ESTIMATED = "estimated"
    """The gateway estimated the tokens."""
    NONE = "none"
    """The provider answered with an error status, which costs nothing."""


class CallOutcome(StrEnum):
    """How a call to a provider ended."""

    ANSWERED = "answered"
    """The answer was complete."""
    FAILED = "failed"
    """The call ended with an error status, or the answer broke off."""
    DISCONNECTED = "disconnected"
    """The client left."""
    CANCELLED = "cancelled"
    """The gateway stopped it, for example because it needs no more of the answer."""
    LOST = "lost"
    """The process that made the call ended before the call did."""


class BudgetChange(msgspec.Struct, frozen=True):
    """A change of a budget by an operator. The row names the client, the project or the end user.

    The amount was added by a top-up or removed by a reset: tokens, or nano-units of the currency that is the unit.
    """

    of: Literal["client", "project", "user"]
    per: str
    unit: str
    amount: Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class UsageRow(msgspec.Struct, kw_only=True, array_like=True, gc=False):
    """One row of the ledger. It is stored as an array: a new field is added at the end, with a default."""

    call: _Id
    """The gateway's own id of the call. The ledger has one row for each id."""
    time_ns: _Time
    """When the call was admitted. It decides the window, the hour and the day to which the call belongs."""
    kind: RowKind = RowKind.USAGE
    request: str | None = None
    """The id of the request that needed the call."""
    client: str | None = None
    """The client's name, or None if no client asked for the call."""
    project: str | None = None
    user: str | None = None
    """The pseudonym of the end user."""
    region: str | None = None
    territory: str | None = None
    assistant: str | None = None
    """The assistant that the call was for. It is None without one."""
    provider: str | None = None
    site: str | None = None
    deployment: str | None = None
    model: str | None = None
    """The provider's name of the model."""
    config_version: str | None = None
    price_version: str | None = None
    """The version of the price list that gave the amounts."""
    vendor_currency: str | None = None
    currency: str | None = None
    input_tokens: _Tokens = 0
    """Tokens of the prompt, with `cached_tokens` and `cache_write_tokens`."""
    cached_tokens: _Tokens = 0
    cache_write_tokens: _Tokens = 0
    output_tokens: _Tokens = 0
    """Generated tokens, with `reasoning_tokens`."""
    reasoning_tokens: _Tokens = 0
    usage_source: UsageSource | None = None
    vendor_amount_nano: _Nano | None = None
    """The amount in the vendor's currency, or None if the price is unknown. It is 0 for a call that costs nothing
    (`UsageSource.NONE`), also without a price."""
    amount_nano: _Nano | None = None
    """The amount in `usage.currency`, or None if there is no such currency or no rate for it."""
    rate: str | None = None
    """The decimal text of the exchange rate that was used: units of `currency` for one of `vendor_currency`."""
    outcome: CallOutcome | None = None
    """How the call ended. None in rows that do not record a call."""
    budget: BudgetChange | None = None
    """The changed budget. None in rows that do not record a change."""
    processes: str | None = None
    """Where the deployment processes data, in words, as the configuration of the call had it. It is None in rows that
    do not record a call."""
    reported_input_tokens: _Tokens | None = None
    """The input that the provider counted, if it is too high to be true. Then the numbers of the row are estimates."""
    audio_ms: _Tokens | None = None
    """The length of the audio that was written down, in milliseconds, before the price rounds it."""
    characters: _Tokens | None = None
    """The characters that were spoken, as the price counts them."""
    use: str | None = None
    """The kind of request that the call was: `chat`, `speech` and so on. It is None in rows that do not record a call.
    `assistant`, `processes` and `use` are None in rows that release 0.2 wrote too."""

    @property
    def total_tokens(self) -> int:
        """The provider's total. The other kinds of tokens are parts of these two."""
        return self.input_tokens + self.output_tokens

    def charge(self, amount: CallAmount) -> None:
        """Set the amounts and the rate."""
        self.vendor_amount_nano, self.rate = amount.vendor_nano, amount.rate
        self.amount_nano = amount.own_nano if self.currency is not None else None


encode_row = msgspec.msgpack.Encoder().encode

_DECODER = msgspec.msgpack.Decoder(UsageRow)


def decode_row(data: bytes) -> UsageRow:
    """Return the row that `encode_row` wrote. Raises ValueError."""
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"it is not a usage row: {error}") from error


def json_line(row: UsageRow, *, shows_user: bool = True) -> str:
    """Return the row as a line of JSON: `gateway usage --rows --json`. The end user is null if it is not shown."""
    data = row_data(row)
    return json.dumps(data if shows_user else {**data, "user": None}, separators=(",", ":"), ensure_ascii=False) + "\n"


def shown_seconds(milliseconds: int) -> str:
    """Format a length as decimal text in thousandths of a second."""
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"


def row_data(row: UsageRow) -> dict[str, object]:
    """Return the row as JSON data for people and programs."""
    time = datetime.fromtimestamp(row.time_ns // NANO, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    data: dict[str, object] = {
        "kind": row.kind,
        "time": f"{time}.{row.time_ns % NANO // 1000:06d}Z",
        **{name: getattr(row, name) for name in _SHOWN},
        "total_tokens": row.total_tokens,
        "amount": None if row.amount_nano is None else shown_nano(row.amount_nano),
        "currency": row.currency,
        "vendor": {},
    }
    if row.vendor_amount_nano is not None and row.vendor_currency not in (None, NO_CURRENCY):
        data["vendor"] = {str(row.vendor_currency): shown_nano(row.vendor_amount_nano)}
    if row.audio_ms is not None:
        data["audio_seconds"] = shown_seconds(row.audio_ms)
    if row.characters is not None:
        data["characters"] = row.characters
    if row.budget is not None:
        amount = row.budget.amount
        data["budget"] = {
            "of": row.budget.of,
            "per": row.budget.per,
            "unit": row.budget.unit,
            "amount": str(amount) if row.budget.unit == "tokens" else shown_nano(amount),
        }
    return data
