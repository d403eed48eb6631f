"""Lenient JSON: invalid JSON that vendors send, and readers that never raise."""

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.json_values import (
    JsonError,
    as_list,
    as_map,
    dumps,
    dumps_text,
    dumps_texts,
    embed_object,
    exceeds_outside_strings,
    loads,
    loads_text,
    read_count,
    read_float,
    read_int,
    read_list,
    read_map,
    read_str,
    repair_surrogates,
    split_high_surrogate,
    with_exact_integers,
)
from tests.kit.case_files import cases
from tests.kit.chat_strategies import json_values, unhurried
from tests.kit.example_counts import examples

any_text = st.text(st.characters() | st.sampled_from("\ud83d\ude00\ud800\udfff\n\ufeff"))


@unhurried
@given(json_values)
def test_written_json_is_read_back_unchanged(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert loads(dumps_text(value)) == value
    assert loads(bytearray(dumps(value))) == loads(memoryview(dumps(value))) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":"\\ud83d"}', {"a": "\ud83d"}),
        ('"\ud83d"', "\ud83d"),
        ('{"p":NaN,"q":[Infinity,-Infinity]}', {"p": None, "q": [None, None]}),
        ("[1e999, -1e999, 1e3, 2.5, NaN]", [None, None, 1000.0, 2.5, None]),
        ('{"id":9007199254740993}', {"id": 9007199254740993}),
        ('{"a":1,"a":2}', {"a": 2}),
        (' \n{"a": "\u2028"} ', {"a": "\u2028"}),
    ],
)
def test_json_of_vendors_is_parsed(text: str, value: object) -> None:
    assert loads_text(text) == loads(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"n":618970019642690137449562111}', {"n": 618970019642690137449562111}),
        ('{"n":[-18446744073709551616,1e30,NaN,1e999,2.5]}', {"n": [-(2**64), 1e30, None, None, 2.5]}),
        ('{"s":"00000000000000000000\\ud83d"}', {"s": "00000000000000000000\ud83d"}),
        ('\ufeff{"n":618970019642690137449562111}', {"n": 618970019642690137449562111}),
        ('{"n":18446744073709551615}', {"n": 2**64 - 1}),
    ],
)
def test_numbers_beyond_64_bits_are_as_they_were_written(text: str, value: object) -> None:
    data = text.encode()
    read = with_exact_integers(as_map(loads(data)), data)
    assert repr(read) == repr(value)


def test_value_without_an_exact_integer_form_is_unchanged() -> None:
    rounded = {"n": 1e30}
    assert with_exact_integers(rounded, b'{"n":' + b"9" * 5000 + b"}") is rounded
    assert with_exact_integers(rounded, b'{"n":1}') is rounded


def test_refused_value_is_not_parsed_again() -> None:
    # Refused JSON, such as that with millions of values, must not be parsed again.
    assert with_exact_integers({}, b'{"n":618970019642690137449562111}') == {}


def test_byte_order_mark_is_ignored() -> None:
    assert loads(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"{'a':1}",
        b"<html>",
        b'{"a":1}{"b":2}',
        b"\xff",
        b'"\xed\xa0\x80"',
        b"nan",
        b"[1,]",
        b"[" * 200_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_invalid_json_raises_a_json_error(data: bytes) -> None:
    with pytest.raises(JsonError):
        loads(data)


def test_error_does_not_quote_invalid_json() -> None:
    with pytest.raises(JsonError) as caught:
        loads(b'{"prompt": "my diagnosis"')
    assert "diagnosis" not in str(caught.value)


@settings(unhurried, max_examples=examples(300))
@given(st.binary() | any_text | st.builds(lambda value, at: json.dumps(value)[at:], json_values, st.integers(-9, 3)))
def test_invalid_bytes_raise_only_json_errors(data: bytes | str) -> None:
    try:
        value = loads(data)
    except JsonError:
        return
    assert loads(dumps_text(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, None, True, "é"]}, '{"a":[1,null,true,"é"]}'),
        ({"a": "\ud83d"}, '{"a":"\\ud83d"}'),
        ({"a": 2**70}, '{"a":1180591620717411303424}'),
        (math.nan, "null"),
    ],
)
def test_parsed_value_can_always_be_written(value: object, text: str) -> None:
    assert dumps_text(value) == text


def test_too_deeply_nested_value_raises_a_json_error() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(JsonError):
        dumps_text(value)


@pytest.mark.parametrize(
    ("text", "embedded"),
    [
        ('{"a":1}', '[{"a":1}]'),
        ('{"id":123456789012345678901234567890}', '[{"id":123456789012345678901234567890}]'),
        ('{ "a" : 1.50 }', '[{ "a" : 1.50 }]'),
        ("[1]", None),
        ("1", None),
        ("{", None),
        ("", None),
        ('{"a":"\ud83d"}', None),
        ('{"a":NaN}', None),
    ],
)
def test_arguments_are_set_in_as_they_are_or_not_at_all(text: str, embedded: str | None) -> None:
    fragment = embed_object(text)
    assert (None if fragment is None else dumps([fragment]).decode()) == embedded


# --- lenient readers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3),
        (-3, -3),
        (3.0, 3),
        ("3", 3),
        ("003", 3),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, None),
        (1e30, None),
        (3.5, None),
        (math.inf, None),
        (math.nan, None),
        (True, None),
        (None, None),
        ("", None),
        ("3.0", None),
        ("-3", None),
        ("٣", None),
        ("9" * 19, None),
        ("9" * 5000, None),
        ([3], None),
    ],
)
def test_whole_numbers(value: object, number: int | None) -> None:
    found = read_int({"n": value}, "n")
    assert found == number
    assert type(found) is type(number)


@pytest.mark.parametrize(
    ("value", "number"), [(1, 1.0), (1.5, 1.5), (True, None), ("1", None), (None, None), (10**400, None), ([], None)]
)
def test_numbers(value: object, number: float | None) -> None:
    found = read_float({"n": value}, "n")
    assert found == number
    assert type(found) is type(number)


def test_member_of_another_type_is_treated_as_missing() -> None:
    for value in (None, True, 5, 1.5, "text", [1], {"a": 1}):
        source = {"k": value}
        assert read_str(source, "k") == (value if isinstance(value, str) else None)
        assert read_map(source, "k") == as_map(value) == (value if isinstance(value, dict) else {})
        assert list(read_list(source, "k")) == list(as_list(value)) == (value if isinstance(value, list) else [])
    assert read_str({"k": ""}, "k") == ""
    for reader in (read_str, read_int, read_float, read_map, read_list):
        assert not reader({}, "k")


@settings(unhurried, max_examples=examples(300))
@given(st.dictionaries(st.just("k"), json_values | st.floats() | st.integers() | any_text))
def test_readers_never_raise(source: dict[str, Any]) -> None:
    for reader in (read_str, read_int, read_float, read_map, read_list):
        reader(source, "k")


# --- surrogates -----------------------------------------------------------------------------------


def mended(text: str) -> str:
    """Return the reference result: surrogate pairs joined, every other surrogate replaced."""
    joined = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]",
        lambda pair: chr(0x10000 + ((ord(pair[0][0]) & 0x3FF) << 10) + (ord(pair[0][1]) & 0x3FF)),
        text,
    )
    return re.sub("[\ud800-\udfff]", "\ufffd", joined)


@settings(unhurried, max_examples=examples(300))
@given(any_text)
def test_pairs_are_joined_and_lone_surrogates_replaced(text: str) -> None:
    assert repair_surrogates(text) == mended(text)
    assert json.loads(dumps(repair_surrogates(text))) == mended(text)


@settings(unhurried, max_examples=examples(300))
@given(st.lists(any_text))
def test_pieces_with_joined_surrogates_equal_the_whole_text_with_joined_surrogates(pieces: list[str]) -> None:
    out, rest = "", ""
    for piece in pieces:
        text, rest = split_high_surrogate(rest + piece)
        assert not rest or "\ud800" <= rest <= "\udbff"
        out += repair_surrogates(text)
    assert out + ("\ufffd" if rest else "") == mended("".join(pieces))


def test_line_break_is_not_a_surrogate() -> None:
    assert split_high_surrogate("\ud83d\n") == ("\ud83d\n", "")
    assert split_high_surrogate("\n") == ("\n", "")
    assert split_high_surrogate("a\ud83d") == ("a", "\ud83d")
    for high in "\ud800\udbff":
        assert split_high_surrogate(f"a{high}") == ("a", high)
    for other in "\ud7ff\udc00\ude00\ue000":
        assert split_high_surrogate(other) == (other, "")
    assert split_high_surrogate("") == ("", "")


@settings(unhurried, max_examples=examples(300))
@given(
    st.lists(
        st.text('",\\\n a', max_size=4) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=1
    )
)
def test_texts_are_written_together_as_they_are_one_by_one(texts: list[str]) -> None:
    """Also texts that end like the separator between two strings: a model that writes JSON often writes `",`."""
    for each in (texts, [*texts, '",', *texts]):
        assert dumps_texts(each, b"\n").split(b"\n") == [dumps(text)[1:-1] for text in each]


@cases("value", "counted")
def test_implausible_count_is_ignored(value: object, counted: int) -> None:
    assert read_count({"n": value}, "n") == counted


UNITS = [b"[],", b"{},", b"1,", b'"",', b'"a",', rb'"\\",', rb'"\"",', b'{"a":1},', b" "]
MOST = 10_000


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("text", [b"", b"\xc3\xa9[{,", rb"\"", rb"\\", rb"\\\"[", b"x" * MOST])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, bytes.decode])
def test_number_of_values_is_checked_before_parsing(kind: Any, text: bytes, unit: bytes) -> None:
    assert exceeds_outside_strings(kind(b'["%b",%b0]' % (text, unit * (3 * MOST // len(unit)))), MOST)


@pytest.mark.parametrize("unit", [b"[],", b'"",', b"x", rb"\\", rb"\"", rb"\\\"", rb"\"[1],[2]\",", b"\xc3\xa9"])
def test_string_counts_as_one_value(unit: bytes) -> None:
    text = json.dumps([(unit * (3 * MOST // len(unit))).decode()])
    assert not exceeds_outside_strings(text.encode(), MOST)
    assert not exceeds_outside_strings(text, MOST)


@given(json_values, st.integers(0, 60))
def test_bytes_outside_strings_are_those_that_remain_without_the_strings(value: object, most: int) -> None:
    data = json.dumps(value)
    without = re.sub(r'"(?:[^"\\]|\\.)*"', '""', data)
    assert exceeds_outside_strings(data, most) is (len(data.encode()) > most and len(without) + 1 > most)


def test_answer_with_millions_of_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.json_values._MAX_BYTES_OUTSIDE_STRINGS", MOST)
    with pytest.raises(JsonError, match="too many values"):
        loads(b"[%b0]" % (b"[]," * MOST))
    assert loads(b'["%b"]' % (b"[]," * MOST)) == ["[]," * MOST]
