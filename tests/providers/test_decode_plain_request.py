"""The fast path and the general path read the same request, or report the same error."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.chat import Texts
from providers.failures import InvalidRequest
from providers.matching.requirements import requirements_of
from providers.openai_json import encode_request
from providers.openai_json.decode_messages import decode_any_message, decode_messages
from providers.openai_json.decode_request import MAX_MESSAGES, decode_any_request, decode_request
from providers.openai_json.plain_request import plain_message, plain_request
from tests.kit.example_counts import examples

ODD = st.sampled_from([None, True, False, 0, 1, -1, 2, 1.0, 0.5, 1e300, 2**31, 2**63, "", "x", [], {}, ["x"], [{}]])
ROLES = st.sampled_from(["system", "user", "assistant", "developer", "tool", "nobody", 1, None, []])
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": ROLES, "content": st.text(max_size=3)}),
        st.fixed_dictionaries({"role": ROLES, "content": ODD}, optional={"name": ODD, "refusal": ODD}),
        ODD,
    ),
    max_size=4,
)
PLAIN: dict[str, st.SearchStrategy[object]] = {
    "stream": st.booleans(),
    "stream_options": st.sampled_from([{"include_usage": True}, {"include_usage": False}, {"include_usage": 1}, {}]),
    "max_tokens": st.integers(1, 100),
    "max_completion_tokens": st.integers(1, 100),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0, 1),
    "presence_penalty": st.floats(-2, 2),
    "frequency_penalty": st.integers(-2, 2),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "user": st.text(max_size=3),
}
OTHERS = dict.fromkeys(("stop", "n", "tools", "tool_choice", "response_format", "functions", "store", "x"), ODD)
BODIES = st.one_of(
    st.fixed_dictionaries(
        {"model": st.just("m"), "messages": MESSAGES},
        optional={name: st.one_of(kind, ODD) for name, kind in PLAIN.items()},
    ),
    st.fixed_dictionaries(
        {"model": st.just("m"), "messages": st.just([{"role": "user", "content": "hi"}])},
        optional={**PLAIN, "user": st.one_of(st.text(max_size=3), ODD)},
    ),
    st.fixed_dictionaries({}, optional={"model": ODD, "messages": MESSAGES, **OTHERS}),
    ODD,
)


def outcome(read: Any, body: object) -> object:
    try:
        return read(body)
    except InvalidRequest as error:
        return str(error), error.param


@settings(max_examples=examples(600))
@given(BODIES)
def test_both_ways_mean_the_same(body: object) -> None:
    general = outcome(decode_any_request, body)
    assert outcome(decode_request, body) == general
    short = plain_request(body, MAX_MESSAGES)
    assert short is None or repr(short) == repr(general)


@settings(max_examples=examples(300))
@given(MESSAGES)
def test_both_ways_to_read_a_message_mean_the_same(entries: list[object]) -> None:
    for entry in entries:
        short = plain_message(entry)
        assert short is None or short == decode_any_message(entry, "messages[0]")
    read = outcome(decode_messages, entries)
    assert (type(read) is Texts) == (entries != [] and all(map(plain_message, entries)))


@settings(max_examples=examples(300))
@given(BODIES)
def test_requirements_of_texts_equal_those_of_the_same_messages(body: object) -> None:
    if (short := plain_request(body, MAX_MESSAGES)) is not None:
        assert isinstance(short.messages, Texts)
        general = replace(short, messages=tuple(short.messages))
        assert short == general
        assert requirements_of(short) == requirements_of(general)
        assert encode_request(short, "m") == encode_request(general, "m")
        assert [plain_message(entry) for entry in short.messages.entries] == list(short.messages)


def test_usual_chat_request_takes_the_fast_path() -> None:
    body = {
        "model": "assistant",
        "messages": [{"role": role, "content": "hi"} for role in ("system", "user", "assistant", "user")],
        "temperature": 1,
        "max_completion_tokens": 256,
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u",
        "seed": None,
    }
    assert plain_request(body, MAX_MESSAGES) == decode_any_request(body)
    assert plain_request(orjson.loads(orjson.dumps(body)), MAX_MESSAGES) is not None
    assert plain_request(body, 3) is None


@pytest.mark.parametrize("name", ["stop", "tools", "response_format", "store", "functions", "nonsense"])
def test_request_with_other_fields_takes_the_general_path(name: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], name: "x"}
    assert plain_request(body, MAX_MESSAGES) is None
