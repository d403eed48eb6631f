"""No object of a body has a name twice, however the body is written."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.body import check_names, read_request
from gateway.api.errors import ApiError

SPELT = [r"\u003a", r"\\u003A"]
ODD = ["a", "b", ":", '"', "\\", '\\"', '":', "é", "", *SPELT]
NAMES = st.sampled_from(ODD) | st.text(alphabet='ab:"\\ ', max_size=4)
TEXTS = st.sampled_from(SPELT) | st.text(alphabet='a:"\\{},é\n ', max_size=12)
VALUES = st.recursive(
    st.none() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


def escaped(value: object) -> str:
    """Return JSON with every character of its strings escaped."""
    match value:
        case str():
            digits = "04x" if len(value) % 2 else "04X"
            return '"' + "".join(f"\\u{ord(character):{digits}}" for character in value) + '"'
        case dict():
            return "{" + ",".join(f"{escaped(name)}:{escaped(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(escaped, value)) + "]"
        case _:
            return json.dumps(value)


WRITERS: list[Callable[[object], str]] = [
    json.dumps,
    lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    lambda value: json.dumps(value, separators=(",  ", " \t:\n")),
    lambda value: orjson.dumps(value).decode(),
    escaped,
]


def write(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@given(value=VALUES, writer=st.sampled_from(WRITERS))
def test_body_without_duplicate_keys_is_accepted(value: object, writer: Callable[[object], str]) -> None:
    body = write(writer(value))
    check_names(body, orjson.loads(body))


@given(
    found=st.dictionaries(NAMES, VALUES, min_size=1, max_size=4),
    more=VALUES,
    data=st.data(),
    writer=st.sampled_from(WRITERS),
)
def test_body_with_a_duplicate_key_is_refused(
    found: dict[str, Any], more: object, data: st.DataObject, writer: Callable[[object], str]
) -> None:
    name = data.draw(st.sampled_from(sorted(found)))
    inner = writer(found).rstrip()[:-1] + "," + writer({name: more}).lstrip()[1:]
    body = write(f'{{"x": [{inner}]}}')
    with pytest.raises(ApiError, match="duplicate name") as raised:
        check_names(body, orjson.loads(body))
    assert raised.value.code == "invalid_request"


@pytest.mark.parametrize("place", ["model", "messages[0].content", "tools[1].function.name"])
def test_its_path_is_reported(place: str) -> None:
    bodies = {
        "model": b'{"model": "a", "messages": [{"role": "user", "content": "hi"}], "model": "b"}',
        "messages[0].content": b'{"model": "a", "messages": [{"role": "user", "content": "hi", "content": "ho"}]}',
        "tools[1].function.name": b'{"model": "a", "messages": [], "tools": [1, {"function": {"name": 1, "name": 1}}]}',
    }
    with pytest.raises(ApiError) as raised:
        read_request(bodies[place])
    assert raised.value.param == place


def test_large_body_is_not_searched_for_the_position() -> None:
    body = b'{"a": 1, "a": "' + b"x" * 1024 * 1024 + b'"}'
    with pytest.raises(ApiError, match="an object in the body has a duplicate name") as raised:
        check_names(body, orjson.loads(body))
    assert raised.value.param is None


@pytest.mark.parametrize("name", ["messages", "x"])
@pytest.mark.parametrize("levels", [70, 1000, 1020])
def test_overwritten_value_may_be_nested_to_any_depth(name: str, levels: int) -> None:
    """The parsed body hasn't got it, and so isn't too deep; to name its place, all of the body is read again."""
    messages = b'"messages":[{"role":"user","content":"hi"}]'
    later = b"" if name == "messages" else b',"x":1'
    body = b'{"model":"m","%b":%b%b,%b%b}' % (name.encode(), b"[" * levels, b"]" * levels, messages, later)
    with pytest.raises(ApiError) as raised:
        read_request(body)
    assert raised.value.code == "invalid_request"
    assert "duplicate name" in raised.value.message
