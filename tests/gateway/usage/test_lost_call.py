"""The charge of a lost call: input and the rule of time until the last sign of life, at most its hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage.amounts import MOST_NANO, NANO
from gateway.usage.lost_call import LostUsage, RunningCost, lost_usage
from gateway.usage.usage_row import CallOutcome, UsageRow, UsageSource, decode_row, encode_row
from tests.kit.usage_rows import NOON_NS, usage_row

HELD_TOKENS, HELD_NANO = 5_000, 9_200_000


def held_row(**fields: object) -> UsageRow:
    """A call that holds 1,000 tokens of input and 4,000 of output, for 10 USD of a thousand million in EUR at 0.92."""
    held: dict[str, object] = {
        "input_tokens": 1_000,
        "output_tokens": 4_000,
        "vendor_amount_nano": 10_000_000,
        "amount_nano": HELD_NANO,
        "usage_source": UsageSource.ESTIMATED,
        "outcome": CallOutcome.LOST,
    }
    return usage_row("call", **{**held, **fields})


COST = RunningCost(input_tokens=300, tokens_per_s=40.0, input_pico=400_000, output_pico=2_000_000, fees_pico=5_000)


def lost(row: UsageRow, cost: RunningCost | None, alive_s: float | None) -> LostUsage:
    alive_ns = None if alive_s is None else NOON_NS + int(alive_s * NANO)
    return lost_usage(encode_row(row), HELD_TOKENS, HELD_NANO, cost, alive_ns)


def test_lost_call_is_charged_its_input_and_the_output_of_its_time() -> None:
    found = lost(held_row(), COST, 10.0)
    row = decode_row(found.row)
    assert (row.input_tokens, row.output_tokens, row.outcome) == (300, 401, "lost")
    pico = 300 * 400_000 + 401 * 2_000_000 + 5_000
    assert row.vendor_amount_nano == pico // 1000
    assert row.amount_nano == -(-pico * 92 // 100_000)
    assert found.used == (701, row.amount_nano), "budgets count what the row states"


@pytest.mark.parametrize(
    ("alive_s", "output"),
    [(-5.0, 1), (0.0, 1), (0.49, 20), (99.0, 3_961), (100.0, 4_000), (86_400.0, 4_000)],
    ids=["clock set back", "no time", "half a second", "just below", "the hold", "a day"],
)
def test_output_grows_with_time_up_to_the_hold(alive_s: float, output: int) -> None:
    assert decode_row(lost(held_row(), COST, alive_s).row).output_tokens == output


@pytest.mark.parametrize(("cost", "alive_s"), [(None, 1.0), (COST, None)], ids=["cost", "last sign of life"])
def test_unknown_parts_charge_the_whole_hold(cost: RunningCost | None, alive_s: float | None) -> None:
    assert lost(held_row(), cost, alive_s) == LostUsage(encode_row(held_row()), HELD_TOKENS, HELD_NANO)


def test_call_that_had_not_begun_costs_nothing() -> None:
    assert lost_usage(b"", HELD_TOKENS, HELD_NANO, COST, NOON_NS).used == (0, 0)


def test_call_without_a_price_has_tokens_and_no_amount() -> None:
    unpriced = held_row(vendor_amount_nano=None, vendor_currency=None, amount_nano=None, rate=None)
    found = lost_usage(encode_row(unpriced), HELD_TOKENS, 0, RunningCost(300, 40.0), NOON_NS + NANO)
    row = decode_row(found.row)
    assert (row.input_tokens, row.output_tokens, row.vendor_amount_nano, row.amount_nano) == (300, 41, None, None)
    assert found.used == (341, 0)


@given(
    st.builds(
        RunningCost,
        input_tokens=st.integers(0, 10**6),
        tokens_per_s=st.floats(0, 1e6),
        input_pico=st.integers(0, 10**12),
        output_pico=st.integers(0, 10**12),
        fees_pico=st.integers(0, MOST_NANO),
    ),
    st.floats(-1e6, 1e6),
    st.sampled_from([None, "0.92", "1", "7.1"]),
)
def test_lost_call_is_never_charged_more_than_it_held(cost: RunningCost, alive_s: float, rate: str | None) -> None:
    held = held_row(rate=rate, amount_nano=None if rate is None else HELD_NANO)
    found = lost(held, cost, alive_s)
    row = decode_row(found.row)
    assert 0 <= row.total_tokens == found.tokens <= HELD_TOKENS
    assert 0 <= (row.vendor_amount_nano or 0) <= (held.vendor_amount_nano or 0)
    assert 0 <= found.amount_nano <= HELD_NANO
    assert rate is None or row.amount_nano == found.amount_nano
