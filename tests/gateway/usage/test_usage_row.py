import json

import msgspec
import pytest
from hypothesis import given

from gateway.usage.usage_row import BudgetChange, RowKind, UsageRow, decode_row, encode_row, row_data
from tests.kit.usage_rows import NOON_NS, usage_row, usage_rows

# The contract of `gateway usage --rows --json`.
MEMBERS = (
    "kind time call request client project user assistant region territory provider site deployment processes model "
    "config_version price_version usage_source rate outcome reported_input_tokens input_tokens cached_tokens "
    "cache_write_tokens output_tokens reasoning_tokens use total_tokens amount currency vendor"
).split()


@given(usage_rows())
def test_row_round_trips(row: UsageRow) -> None:
    assert decode_row(encode_row(row)) == row


@given(usage_rows())
def test_json_of_a_row_has_the_documented_members(row: UsageRow) -> None:
    data = json.loads(json.dumps(row_data(row)))
    assert [name for name in data if name not in ("budget", "audio_seconds", "characters")] == MEMBERS
    assert ("budget" in data) is (row.budget is not None)
    assert data["total_tokens"] == row.input_tokens + row.output_tokens


def test_json_of_a_row_is_exact() -> None:
    data = row_data(
        usage_row("c1", time_ns=NOON_NS + 123_456_789, amount_nano=123_456, vendor_amount_nano=2 * 10**9 + 1)
    )
    assert data["time"] == "2026-11-24T11:00:00.123456Z"
    assert (data["amount"], data["currency"], data["vendor"]) == ("0.000123456", "EUR", {"USD": "2.000000001"})


def test_json_of_a_top_up_names_the_budget() -> None:
    change = BudgetChange("client", "day", "EUR", 5 * 10**9)
    row = UsageRow(call="t1", time_ns=NOON_NS, kind=RowKind.TOP_UP, client="ios-app", budget=change)
    assert row_data(row)["budget"] == {"of": "client", "per": "day", "unit": "EUR", "amount": "5.00"}
    tokens = msgspec.structs.replace(row, budget=BudgetChange("client", "day", "tokens", 5000))
    assert row_data(tokens)["budget"] == {"of": "client", "per": "day", "unit": "tokens", "amount": "5000"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"null", b'{"call":"","time_ns":1}', b'{"call":"a","time_ns":1,"input_tokens":-1}',
        b'{"call":"a","time_ns":1,"input_tokens":1.5}', b'{"call":"a","time_ns":1,"amount_nano":1e309}',
        b'{"call":"a","time_ns":1,"kind":"other"}', b'{"call":"a","time_ns":99999999999999999999}', b"\xff",
    ],
)  # fmt: skip
def test_data_that_is_not_a_row_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a usage row"):
        decode_row(data)


def test_row_of_a_later_version_is_read() -> None:
    later = msgspec.msgpack.encode([*msgspec.msgpack.decode(encode_row(UsageRow(call="a", time_ns=1))), {}])
    assert decode_row(later) == UsageRow(call="a", time_ns=1)


def test_row_of_audio_has_its_length_or_its_characters() -> None:
    heard, spoken = row_data(usage_row("a", audio_ms=1_234)), row_data(usage_row("b", characters=7))
    assert (heard["audio_seconds"], "characters" in heard) == ("1.234", False)
    assert (spoken["characters"], "audio_seconds" in spoken) == (7, False)
