"""The fast path for whole answers gives the same result as the general path."""

import json
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.chat import ChatCompletion, Usage
from providers.failures import FailureKind, ProviderFailed
from providers.json_values import JsonError, as_map, dumps, loads, read_int
from providers.openai_json import encode_completion
from providers.openai_json.read_answer import Answers, ChatReader, _read_plain, read_completion, read_usage
from providers.reading.assembler import MAX_CHOICES
from providers.reading.folding import fold
from providers.reading.token_counts import count_completion, count_prompt
from providers.wire import WireResponse
from tests.kit.case_files import cases

counts = st.integers(-2, 2**65) | st.sampled_from([None, True, 1.0, 2.5, "3", "x", 2**63, 2**63 - 1, -(2**63), {}])
odd = st.none() | st.just("") | st.just([]) | st.just({}) | st.integers(-1, 2) | st.just(True)
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5)
any_texts = texts | st.sampled_from(["\ud83d", "a\ude00", "\ud83d\ude00"])
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": any_texts | odd},
    optional={
        "refusal": odd | texts,
        "tool_calls": st.just([]) | st.just([{"id": "a", "function": {"name": "f", "arguments": "{}"}}]) | st.none(),
        "reasoning_content": texts | st.none(),
        "annotations": st.just([]) | st.just([{"type": "url_citation"}, 1, {}]) | odd,
        "audio": st.none(),
        "vendors_own": odd,
    },
)
choices = st.fixed_dictionaries(
    {
        "message": messages,
        "finish_reason": st.sampled_from(["stop", "length", "content_filter", "tool_calls", "eos", "?"]) | odd,
    },
    optional={"index": st.integers(0, 2) | odd, "logprobs": odd | st.just({"content": []}), "delta": odd},
)
bodies = st.fixed_dictionaries(
    {"choices": st.lists(choices, min_size=1, max_size=2)},
    optional={
        "id": any_texts | odd,
        "model": any_texts | odd,
        "created": st.integers(0, 9) | st.sampled_from([2**63 - 1, 2**63, -(2**63), 10**30]) | odd,
        "usage": st.just({"prompt_tokens": 1, "completion_tokens": 2}) | odd,
        "service_tier": any_texts | odd,
        "system_fingerprint": any_texts | odd,
    },
)

# The same with no more than one thing about it that is not as documented.
_message = {"role": "assistant", "content": "a"}
_head: dict[str, object] = {"id": "a", "model": "m", "created": 1}
documented = st.builds(
    lambda more, first, second, beside: {
        **_head,
        "choices": [
            {"index": 0, "message": {**_message, **first}, "finish_reason": "stop"},
            {"index": 1, "message": _message, "finish_reason": "length", **second},
        ],
        **more,
        "beside": beside,
    },
    st.fixed_dictionaries(
        {},
        optional={
            "id": any_texts,
            "model": any_texts,
            "created": counts,
            "service_tier": any_texts | odd,
            "system_fingerprint": any_texts | odd,
        },
    ),
    st.fixed_dictionaries({}, optional={"content": any_texts, "refusal": any_texts, "reasoning": any_texts}),
    st.fixed_dictionaries({}, optional={"index": st.sampled_from([1, 1.0, True, "1", 2, 0])}),
    # Half a character somewhere has the whole body read by the lenient reader, which knows numbers of any size.
    st.sampled_from(["\ud83d", None]),
)


def plain_completion(body: dict[str, Any]) -> ChatCompletion | None:
    return _read_plain(json.dumps(body).encode(), Answers())


def long_way(body: dict[str, Any]) -> ChatCompletion | None:
    reader = ChatReader("asked")
    reader.read_chunk(body)
    reader.end()
    try:
        return fold(reader.assembler.take())
    except ProviderFailed:
        return None


@given(bodies)
def test_fast_path_reads_the_same_request_as_the_general_path(body: dict[str, Any]) -> None:
    expected = long_way(body)
    short = plain_completion(body)
    assert short is None or short == expected


@given(bodies)
def test_fast_and_general_reader_give_the_same_answer(body: dict[str, Any]) -> None:
    try:
        read = read_completion(WireResponse(200, {}, json.dumps(body).encode(), 0), "asked")
    except ProviderFailed:
        read = None
    assert read == long_way(as_map(loads(json.dumps(body))))


@given(documented)
def test_unusual_member_is_read_the_same_by_both_readers(body: dict[str, Any]) -> None:
    """Most bodies above have many deviations, so the fast path does not accept them."""
    raw = json.dumps(body).encode()
    read, expected = read_completion(WireResponse(200, {}, raw, 0), "asked"), long_way(as_map(loads(raw)))
    assert read == expected
    dumps(encode_completion(read, read.model))


@pytest.mark.parametrize("index", [lambda n: n, lambda _: 0], ids=["apart", "all of them one"])
def test_too_many_choices_are_refused_by_both_readers(index: Callable[[int], int]) -> None:
    """Also if all have the same index: a body may contain millions, and each takes time."""
    message, count = {"content": "a"}, MAX_CHOICES + 1
    choices = [{"index": index(n), "message": message, "finish_reason": "stop"} for n in range(count)]
    body = {"id": "a", "model": "m", "created": 1, "choices": choices}
    if index(1):
        assert plain_completion({**body, "choices": choices[:-1]}) is not None
    with pytest.raises(ProviderFailed) as failed:
        read_completion(WireResponse(200, {}, dumps(body), 0), "asked")
    assert failed.value.failure.kind is FailureKind.TOO_LARGE


def test_documented_form_takes_the_fast_path() -> None:
    message = {"role": "assistant", "content": "hi", "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    frame = {"id": "a", "model": "m", "created": 1, "service_tier": "default", "system_fingerprint": "fp_1"}
    read = plain_completion({**frame, "choices": [choice]})
    assert (read.service_tier, read.system_fingerprint) == ("default", "fp_1")


@pytest.mark.parametrize("beside", [b'"\xff"', b'"\xed\xa0\x80"', b'"\\ud800"', b"01", b"tru", b"[1,]", b'"\x01"'])
def test_body_that_is_not_json_is_no_answer_wherever_the_mistake_is(beside: bytes) -> None:
    choice = b'{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}'
    body = b'{"id": "a", "model": "m", "created": 1, "choices": [%b], "beside": %b}' % (choice, beside)
    try:
        expected = long_way(as_map(loads(body)))
    except JsonError:
        with pytest.raises(ProviderFailed):
            read_completion(WireResponse(200, {}, body, 0), "asked")
    else:
        assert read_completion(WireResponse(200, {}, body, 0), "asked") == expected


@pytest.mark.parametrize("name", ["\ud83d", "a\ude00"])
def test_name_with_half_a_surrogate_pair_is_no_obstacle(name: str) -> None:
    """JSON can state one, and the struct decoder cannot look it up."""
    assert read_usage({name: 1, "prompt_tokens": 2, "completion_tokens": 3}) == Usage(2, 3)
    message = {"role": "assistant", "content": "a", name: None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", name: 1}
    body = {"id": "a", "model": "m", "created": 1, name: 1, "choices": [choice]}
    assert plain_completion(body) is None
    data = json.dumps({**body, "usage": {name: 1, "prompt_tokens": 2, "completion_tokens": 3}}).encode()
    read = read_completion(WireResponse(200, {}, data, 0), "asked")
    assert (read.choices[0].message.content, read.usage) == ("a", Usage(2, 3))


OF_PROMPT = ("cached_tokens", "cache_write_tokens", "audio_tokens")
OF_COMPLETION = ("reasoning_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens")


def details(names: tuple[str, ...]) -> st.SearchStrategy[object]:
    return odd | st.fixed_dictionaries({}, optional=dict.fromkeys(names, counts))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens": counts,
            "completion_tokens": counts,
            "total_tokens": counts,
            "prompt_tokens_details": details(OF_PROMPT),
            "completion_tokens_details": details(OF_COMPLETION),
        },
    )
)
def test_counts_are_whole_numbers_and_an_invalid_one_leaves_no_prompt(source: dict[str, Any]) -> None:
    def count(source: object, name: str) -> int:
        number = read_int(as_map(source), name) or 0
        return number if 0 <= number < 2**53 else 0

    def is_valid(source: object, name: str) -> bool:
        value, number = as_map(source).get(name), read_int(as_map(source), name)
        return value is None or (not isinstance(value, str) and number is not None and 0 <= number < 2**53)

    usage = read_usage(source)
    assert [type(number) for number in astuple(usage)] == [int] * 8 + [type(None)] + [int] * 2
    prompt, completion = count(source, "prompt_tokens"), count(source, "completion_tokens")
    in_cache = sum(count(source.get("prompt_tokens_details"), name) for name in ("cached_tokens", "cache_write_tokens"))
    reasoning = count(source.get("completion_tokens_details"), "reasoning_tokens")
    of_prompt, of_completion = source.get("prompt_tokens_details"), source.get("completion_tokens_details")
    are_valid = all(
        is_valid(part, name)
        for part, names in (
            (source, ("prompt_tokens", "completion_tokens")),
            (of_prompt, ("cached_tokens", "cache_write_tokens")),
            (of_completion, ("reasoning_tokens",)),
        )
        for name in names
    )
    assert usage == Usage(
        count_prompt(prompt, completion, in_cache, source.get("total_tokens")) if are_valid else 0,
        count_completion(prompt, completion, reasoning, source.get("total_tokens")),
        **{name: count(of_prompt, name) for name in OF_PROMPT},
        **{name: count(of_completion, name) for name in OF_COMPLETION},
    )


def xai_usage(prompt: int, completion: int, reasoning: int, total: int | None) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    return {**usage, "completion_tokens_details": {"reasoning_tokens": reasoning}}


@cases("source", "completion")
def test_reasoning_is_counted_once_whether_or_not_the_completion_includes_it(
    source: dict[str, Any], completion: int
) -> None:
    assert read_usage(source).completion_tokens == completion
    # An odd member takes the slow path, which must agree.
    assert read_usage({**source, "prompt_tokens_details": {"cached_tokens": None}}).completion_tokens == completion


def test_vendor_known_to_count_reasoning_separately_needs_no_total() -> None:
    assert read_usage(xai_usage(12, 400, 386, None), Answers(separate_reasoning=True)).completion_tokens == 786
    assert read_usage(xai_usage(12, 400, 386, 412), Answers(separate_reasoning=True)).completion_tokens == 400
