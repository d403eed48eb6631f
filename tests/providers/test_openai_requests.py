"""OpenAI's chat requests are decoded and encoded without loss, and each error names its path."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CompletionUsage

from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.json_values import dumps, loads
from providers.matching.requirements import PARAMETERS, moves_data
from providers.openai_json import decode_request, encode_completion, encode_request, encode_usage
from providers.openai_json.decode_request import CHECKS, MAX_MESSAGES
from providers.openai_json.fields import describe
from providers.openai_json.misspelled_fields import FIELDS, meant_field, refuse_misspelled
from providers.registry import load_registry
from providers.value import replace
from tests.kit.case_files import cases
from tests.kit.chat_strategies import completions, json_values, requests, unhurried
from tests.kit.example_counts import examples

HI = {"role": "user", "content": "hi"}
FUNCTION = {"type": "function", "function": {"name": "f"}}
WITH_TOOLS: dict[str, Any] = {"tools": [FUNCTION]}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [HI], **fields}


def mistake(value: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode_request(value)
    return caught.value


# --- whole round trips ----------------------------------------------------------------------------


@settings(unhurried, max_examples=examples(120))
@given(requests(), st.sampled_from(["max_tokens", "max_completion_tokens"]))
def test_encoded_request_is_decoded_to_the_same_request(request: chat.ChatRequest, field: str) -> None:
    encoded = encode_request(request, request.model, max_tokens_field=field) | dict(request.extra)
    match request.messages:
        case [*before, chat.AssistantMessage(content=None | "" | (), refusal=None | "", tool_calls=())] if before:
            request = replace(request, messages=tuple(before))  # nothing to continue
    assert decode_request(loads(dumps(encoded))) == request


@pytest.mark.parametrize("before", [[HI], [HI, {**HI, "name": "n"}]], ids=["texts only", "with a name"])
def test_empty_answer_at_the_end_is_left_out(before: list[dict[str, str]]) -> None:
    messages = [*before, {"role": "assistant", "content": ""}]
    assert decode_request(body(messages=messages)) == decode_request(body(messages=before))


@unhurried
@given(requests())
def test_encoding_does_not_change_the_request(request: chat.ChatRequest) -> None:
    before = copy.deepcopy(request)
    assert encode_request(request, "m") == encode_request(request, "m")
    assert request == before


@st.composite
def bodies_with_a_slip(draw: st.DrawFn) -> Any:
    """Return a valid body in which one member has another value or is missing."""
    request = draw(requests())
    value: Any = loads(dumps(encode_request(request, request.model) | dict(request.extra)))
    holder: Any = [value]
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 4)):
        holder = holder[key]
        key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
    if draw(st.booleans()):
        holder[key] = draw(json_values | st.text(max_size=3) | st.floats())
    elif holder is not value:
        del holder[key]
    return value


@settings(unhurried, max_examples=examples(150))
@given(bodies_with_a_slip() | st.dictionaries(st.sampled_from([*body(), "tools", "stop"]), json_values) | json_values)
def test_any_body_raises_only_request_errors(value: Any) -> None:
    result = outcome(value)
    if isinstance(result, InvalidRequest | UnsupportedFeature):
        assert str(result)
        assert result.param is None or result.param in str(result)
    else:
        assert result.messages
        again = outcome(encode_request(result, result.model) | dict(result.extra))
        assert isinstance(again, chat.ChatRequest), again


def test_unanswered_tool_calls_at_the_end_are_refused_by_name() -> None:
    call = {"id": "0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    found = outcome({"model": "m", "messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]})
    assert isinstance(found, InvalidRequest)
    assert (str(found), found.param) == ("`messages` ends with tool calls that have no answer (ids: 0)", "messages")


def outcome(value: object) -> chat.ChatRequest | InvalidRequest | UnsupportedFeature:
    try:
        return decode_request(value)
    except (InvalidRequest, UnsupportedFeature) as error:
        return error


# --- valid requests -------------------------------------------------------------------------------


@cases("fields", "name", "value")
def test_valid_request_is_decoded(fields: dict[str, Any], name: str, value: object) -> None:
    found = getattr(decode_request(body(**fields)), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({}, "messages", (chat.UserMessage("hi"),)),
        ({"seed": 2**53 + 1}, "seed", 2**53 + 1),
        ({"stop": "END"}, "stop", ("END",)),
        ({"stop": ""}, "stop", ()),
        ({"tools": []}, "tools", ()),
        ({"stop": ["a", "", "b"]}, "stop", ("a", "b")),
        ({"stop": ["a"] * 4}, "stop", ("a",) * 4),
        (WITH_TOOLS, "tools", (chat.Tool("f"),)),
        (WITH_TOOLS | {"tool_choice": FUNCTION}, "tool_choice", chat.NamedTool("f")),
        (
            WITH_TOOLS
            | {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [FUNCTION]}}},
            "tool_choice",
            chat.AllowedTools("required", ("f",)),
        ),
        ({"response_format": {"type": "json_object"}}, "response_format", chat.JsonObjectFormat()),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True}}},
            "response_format",
            chat.JsonSchemaFormat("n", {}, None, True),
        ),
    ],
)
def test_value_has_its_canonical_type(fields: dict[str, Any], name: str, value: object) -> None:
    found = getattr(decode_request(body(**fields)), name)
    assert found == value
    assert type(found) in (type(value), chat.Texts)


# --- params of errors -----------------------------------------------------------------------------


@cases("fields", "param")
def test_a_mistake_names_its_place(fields: dict[str, Any], param: str) -> None:
    error = mistake(body(**fields))
    assert error.param == param
    assert f"`{param}`" in str(error)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [HI] * (MAX_MESSAGES + 1)}, "messages"),
        ({"temperature": 10**400}, "temperature"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"tools": [FUNCTION] * 513}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "n" * 129}}]}, "tools[0].function.name"),
    ],
)
def test_a_value_above_its_bound_names_its_place(fields: dict[str, Any], param: str) -> None:
    assert mistake(body(**fields)).param == param


@cases("fields", "param")
def test_unsupported_openai_field_is_named_in_the_error(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedFeature) as caught:
        decode_request(body(**fields))
    assert caught.value.param == param
    assert param.removesuffix(".type") in str(caught.value)


@cases("fields", "unread")
def test_unread_fields_are_listed(fields: dict[str, Any], unread: set[str]) -> None:
    assert decode_request(body(**fields)).unread == unread


@pytest.mark.parametrize("value", [None, [], "text", 5, True])
def test_error_of_a_body_that_is_not_an_object_has_no_param(value: object) -> None:
    assert mistake(value).param is None


@pytest.mark.parametrize(
    ("value", "word"),
    [(None, "null"), (True, "a boolean"), (1.5, "a number"), ("", "a string"), ([], "an array"), ({}, "an object")],
)
def test_error_states_the_type_that_was_found(value: object, word: str) -> None:
    assert describe(value) == word
    if value is not None and not isinstance(value, dict):
        assert str(mistake(body(messages=[value]))) == f"`messages[0]` must be an object, not {word}"


# --- encoded requests -----------------------------------------------------------------------------


def test_unset_fields_of_parts_tools_and_formats_are_omitted() -> None:
    file, form = chat.FilePart("data:a/b;base64,aGk="), chat.JsonSchemaFormat("n", {})
    messages = (chat.UserMessage((file,)), chat.AssistantMessage("a"))
    request = chat.ChatRequest("m", messages, tools=(chat.Tool("f"),), response_format=form)
    parts = [{"type": "file", "file": {"file_data": "data:a/b;base64,aGk="}}]
    assert encode_request(request, "m") == {
        "model": "m",
        "messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}],
        "tools": [FUNCTION],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    }


# --- encoded answers ------------------------------------------------------------------------------


def test_a_whole_answer_as_a_client_sees_it() -> None:
    calls = (chat.ToolCall("c", "f", "{}", "sig"), chat.ToolCall("d", "g", "[", None))
    choices = (
        chat.Choice(chat.AssistantMessage(None, None, "why", calls), "tool_calls", 0, {"content": []}),
        chat.Choice(chat.AssistantMessage("", "no"), "other", 1, raw_finish_reason="PAUSED"),
    )
    completion = chat.ChatCompletion("id", "theirs", 5, choices, chat.Usage(3, 4, 1, 2))
    assert encode_completion(completion, "shown") == {
        "id": "id",
        "object": "chat.completion",
        "created": 5,
        "model": "shown",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "annotations": (),
                    "reasoning_content": "why",
                    "tool_calls": [
                        {"id": "c~sig~sig", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                        {"id": "d", "type": "function", "function": {"name": "g", "arguments": "["}},
                    ],
                },
                "logprobs": {"content": []},
                "finish_reason": "tool_calls",
            },
            {
                "index": 1,
                "message": {"role": "assistant", "content": None, "refusal": "no", "annotations": ()},
                "logprobs": None,
                "finish_reason": "length",
            },
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
    }
    assert "usage" not in encode_completion(chat.ChatCompletion("id", "m", 5, ()), "m")


def test_rarer_counts_stand_where_there_is_something_to_count() -> None:
    written = encode_usage(chat.Usage(30, 9, 4, 2, cache_write_tokens=7, audio_tokens=5))
    assert written["prompt_tokens_details"] == {"cached_tokens": 4, "cache_write_tokens": 7, "audio_tokens": 5}
    assert written["completion_tokens_details"] == {"reasoning_tokens": 2}
    predicted = encode_usage(chat.Usage(30, 9, rejected_prediction_tokens=6))
    assert predicted["prompt_tokens_details"] == {"cached_tokens": 0}
    assert predicted["completion_tokens_details"] == {
        "reasoning_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 6,
    }
    assert CompletionUsage.model_validate(predicted, strict=True).total_tokens == 39


@pytest.mark.parametrize(("content", "text"), [("Well.", "Well."), ("", None), (None, None)])
def test_text_with_a_refusal_is_kept_and_missing_text_is_null(content: str | None, text: str | None) -> None:
    choices = (chat.Choice(chat.AssistantMessage(content, "I won't."), "stop"),)
    written: Any = encode_completion(chat.ChatCompletion("id", "m", 5, choices))
    assert written["choices"][0]["message"] == {
        "role": "assistant",
        "content": text,
        "refusal": "I won't.",
        "annotations": (),
    }


def test_other_fields_of_an_answer_are_shown_only_with_its_model() -> None:
    cited = ({"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 2}},)
    choices = (chat.Choice(chat.AssistantMessage("Hi", annotations=cited), "stop"),)
    completion = chat.ChatCompletion("id", "m", 5, choices, None, "flex", "fp_1")
    shown: Any = loads(dumps(encode_completion(completion)))
    assert (shown["model"], shown["service_tier"], shown["system_fingerprint"]) == ("m", "flex", "fp_1")
    assert shown["choices"][0]["message"]["annotations"] == list(cited)
    hidden: Any = loads(dumps(encode_completion(completion, "assistant")))
    assert hidden["model"] == "assistant"
    assert not {"service_tier", "system_fingerprint"} & hidden.keys()
    assert hidden["choices"] == shown["choices"]


@unhurried
@given(completions())
def test_every_answer_can_be_written_and_counts_add_up(completion: chat.ChatCompletion) -> None:
    written: Any = loads(dumps(encode_completion(completion, "m")))
    assert [choice["index"] for choice in written["choices"]] == [choice.index for choice in completion.choices]
    assert all(choice["finish_reason"] != "other" for choice in written["choices"])
    if completion.usage is not None:
        counted: Any = encode_usage(completion.usage)
        assert counted["total_tokens"] == counted["prompt_tokens"] + counted["completion_tokens"]


@pytest.mark.parametrize("place", ["top", "message"])
def test_number_and_length_of_unknown_field_names_are_limited(place: str) -> None:
    """The names are in the log, in the receipt and in the answer: 32 MB of names would fill all three."""

    def ask(names: list[str]) -> chat.ChatRequest:
        unknown = dict.fromkeys(names, 1)
        message = {"role": "user", "content": "hi", **(unknown if place == "message" else {})}
        return decode_request({"model": "m", "messages": [message], **(unknown if place == "top" else {})})

    taken = ask([f"x{number}" for number in range(128)])
    assert len(taken.extra) + len(taken.unread) == 128
    with pytest.raises(InvalidRequest, match="129 fields"):
        ask([f"x{number}" for number in range(129)])
    with pytest.raises(InvalidRequest, match="longer than 128") as raised:
        ask(["y" * 10_000])
    assert len(str(raised.value)) < 300
    assert len(raised.value.param or "") < 200


def test_objects_in_unknown_fields_are_limited() -> None:
    """Each object in it is searched for data-moving fields, and a body may contain millions."""
    taken = decode_request(body(more=[[{"a": [1, "b"]}]] * 3_332))
    assert len(taken.extra) == 1
    for field in ([[]] * 10_001, {"a": [{}] * 10_001}, [[{"a": []}]] * 4_000):
        assert "contain more than 10000 objects" in str(mistake(body(more=field)))


def test_error_for_a_long_token_is_short() -> None:
    error = mistake(body(logit_bias={"7" * 100_000: 1000}))
    assert len(str(error)) < 300
    assert len(error.param or "") < 200


# --- misspelled fields ----------------------------------------------------------------------------

LETTERS = "abcdefghijklmnopqrstuvwxyz_"
ALSO_FIELDS = frozenset({"top_k", "top_a", "k", "p"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_token", "max_tokens"),
        ("messsages", "messages"),
        ("temprature", "temperature"),
        ("Temperature", "temperature"),
        ("max-tokens", "max_tokens"),
        ("top_p_", "top_p"),
        ("sto", "stop"),
        ("tool", "tools"),
        ("top_k", None),
        ("top_a", None),
        ("top_p", None),
        ("maxtoken", None),
        ("stop_sequences", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_name_with_one_wrong_letter_means_the_standard_field(name: str, meant: str | None) -> None:
    assert meant_field(name) == meant


@given(st.sampled_from(sorted(FIELDS)), st.integers(0, 30), st.sampled_from(LETTERS), st.sampled_from("+-="))
def test_every_change_of_one_letter_is_found(field: str, at: int, letter: str, change: str) -> None:
    at %= len(field)
    name = field[:at] + ("" if change == "-" else letter) + field[at + (change != "+") :]
    meant = meant_field(name)
    if len(name) < 3 or name in FIELDS or name in ALSO_FIELDS:
        assert meant is None
    else:
        assert meant is not None
        assert abs(len(meant) - len(name)) <= 1


def test_list_of_standard_fields_is_complete() -> None:
    assert CHECKS.keys() <= FIELDS
    assert PARAMETERS - {"strict_tools", "message_name", "image_detail", "blank_stop", "top_k"} <= FIELDS


def test_every_field_of_a_provider_and_every_data_moving_field_is_accepted() -> None:
    known = frozenset().union(*(it.capabilities.parameters for it in load_registry().adapters.values()))
    refuse_misspelled(known | moves_data(), known)


def test_field_that_a_deployment_passes_on_is_accepted() -> None:
    refuse_misspelled(["max_token"], {"max_token"})


@cases("body", "name")
def test_misspelled_required_field_is_named(body: Any, name: str) -> None:
    with pytest.raises(InvalidRequest, match="did you mean") as raised:
        decode_request(body)
    assert raised.value.param == name


@pytest.mark.parametrize("body", [{"models": ["m"], "messages": []}, {"model": "m", "messsages": None}])
def test_field_that_is_not_misspelled_does_not_explain_a_missing_one(body: Any) -> None:
    with pytest.raises(InvalidRequest, match="is required"):
        decode_request(body)
