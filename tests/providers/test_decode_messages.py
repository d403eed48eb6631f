"""Messages of clients: their forms, exact paths of errors, and the order of tool calls and results."""

import re
from time import process_time
from typing import Any, cast

import pytest

from providers.chat import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.failures import InvalidRequest
from providers.openai_json import encode_message
from providers.openai_json.decode_messages import decode_messages, sound_data_uri
from tests.kit.case_files import cases

PIXEL = "data:image/png;base64,aGk="


def call(id: str, name: str = "f", arguments: str | None = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": list(calls), **fields}


def result(id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def image(url: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def mistake(*entries: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode_messages(list(entries))
    return caught.value


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"role": "user", "content": "hi"}, UserMessage("hi")),
        ({"role": "user", "content": "", "name": "ann"}, UserMessage("", "ann")),
        ({"role": "system", "content": "be"}, SystemMessage("be")),
        ({"role": "developer", "content": [text("a"), text("")], "name": None}, SystemMessage((TextPart("a"), TextPart("")), "developer")),
        (user(text("a"), image(PIXEL, detail="low")), UserMessage((TextPart("a"), ImagePart(PIXEL, "low")))),
        (user(image("https://example.com/a b".replace(" ", "%20"))), UserMessage((ImagePart("https://example.com/a%20b"),))),
        (user({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}), UserMessage((AudioPart("aGk=", "wav"),))),
        (user({"type": "file", "file": {"file_data": PIXEL, "filename": "a.png"}}), UserMessage((FilePart(PIXEL, "a.png"),))),
        ({"role": "assistant", "content": "a", "reasoning_content": "why"}, AssistantMessage("a", None, "why")),
        ({"role": "assistant", "content": [text("a")]}, AssistantMessage((TextPart("a"),))),
        ({"role": "assistant", "content": None, "refusal": "no"}, AssistantMessage(None, "no")),
        ({"role": "assistant"}, AssistantMessage("")),
        ({"role": "assistant", "content": []}, AssistantMessage("")),
        ({"role": "user", "content": []}, UserMessage("")),
        ({"role": "assistant", "content": None, "tool_calls": []}, AssistantMessage("")),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, AssistantMessage(None, "no")),
        (
            {"role": "assistant", "content": [text("a"), {"type": "refusal", "refusal": "n"}, {"type": "refusal", "refusal": "o"}]},
            AssistantMessage((TextPart("a"),), "no"),
        ),
        (
            {"role": "assistant", "content": [text("a"), {"type": "refusal", "refusal": "no"}], "refusal": "said"},
            AssistantMessage((TextPart("a"),), "said"),
        ),
        ({"role": "assistant", "content": "a", "tool_calls": [], "unknown": 1}, AssistantMessage("a")),
    ],
)  # fmt: skip
def test_a_message_of_each_kind(entry: dict[str, Any], message: Message) -> None:
    assert decode_messages([entry]) == (message,)


def test_calls_and_their_results_in_any_order() -> None:
    asked = assistant(call("a", arguments=""), call("b~sig~xyz", arguments=None), call("c", "g", '{"a": 1}'))
    decoded = decode_messages([asked, result("c"), result("b~sig~xyz", [text("x")]), result("a", "")])
    assert decoded == (
        AssistantMessage(
            tool_calls=(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}", "xyz"), ToolCall("c", "g", '{"a": 1}'))
        ),
        ToolMessage("c", "ok"),
        ToolMessage("b", (TextPart("x"),)),
        ToolMessage("a", ""),
    )


@pytest.mark.parametrize("arguments", ["not json", '{"a": ', "[1]", "null", "1", '"{}"'])
def test_arguments_that_are_not_a_json_object_are_taken_as_they_are(arguments: str) -> None:
    (message, _) = decode_messages([assistant(call("a", arguments=arguments)), result("a")])
    assert isinstance(message, AssistantMessage)
    assert message.tool_calls[0].arguments == arguments


@pytest.mark.parametrize("arguments", [1, ["{}"], {"a": 1}, True])
def test_arguments_that_are_not_a_text_are_refused(arguments: object) -> None:
    path = "messages[0].tool_calls[0].function.arguments"
    assert mistake(assistant(call("a", arguments=arguments)), result("a")).param == path  # type: ignore[arg-type]


def test_mark_for_a_cache_is_read_on_parts_and_messages() -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    asked = {"role": "user", "content": [text("x"), text("y") | mark]}
    said = {"role": "assistant", "content": "z", "cache_control": {"type": "ephemeral"}}
    decoded = decode_messages([asked, said])
    assert decoded == (UserMessage((TextPart("x"), TextPart("y", "1h"))), AssistantMessage((TextPart("z", "5m"),)))
    assert decode_messages([{"role": "user", "content": "x"} | mark]) == (UserMessage((TextPart("x", "1h"),)),)


def test_a_type_may_be_left_out_of_a_call() -> None:
    asked = {"id": "a", "function": {"name": "f"}}
    assert decode_messages([assistant(asked), result("a")])[0] == AssistantMessage(
        tool_calls=(ToolCall("a", "f", "{}"),)
    )


def test_two_calls_of_one_id_want_two_results() -> None:
    twice = assistant(call("a"), call("a"))
    assert len(decode_messages([twice, result("a"), result("a")])) == 3
    assert mistake(twice, result("a")).param == "messages"


@cases("entry", "place")
def test_a_mistake_names_its_place(entry: Any, place: str) -> None:
    error = mistake({"role": "user", "content": "first"}, entry)
    assert error.param == f"messages[1]{place}"
    assert f"`{error.param}`" in str(error)


@pytest.mark.parametrize(
    ("entries", "param"),
    [
        ([result("a")], "messages[0].tool_call_id"),
        ([assistant(call("a")), result("b")], "messages[1].tool_call_id"),
        ([assistant(call("a")), result("a"), result("a")], "messages[2].tool_call_id"),
        ([assistant(call("a"), call("b")), result("a"), {"role": "user", "content": "and?"}], "messages[2]"),
        ([assistant(call("a")), assistant(call("b"))], "messages[1]"),
        ([assistant(call("a"), call("b")), result("b")], "messages"),
        ([assistant(call("a"))], "messages"),
    ],
)
def test_every_tool_call_must_be_followed_by_its_result(entries: list[Any], param: str) -> None:
    assert mistake(*entries).param == param


def test_error_about_unanswered_calls_is_limited_in_length() -> None:
    calls = assistant(*(call(f"call-{n}") for n in range(500)))
    for error in (mistake(calls), mistake(calls, {"role": "user", "content": "and?"})):
        assert "call-0, call-1" in str(error)
        assert len(str(error)) < 300


def test_request_without_messages_is_refused() -> None:
    assert mistake().param == "messages"


def test_error_message_never_repeats_the_text_of_the_request() -> None:
    secret = "my secret diagnosis"
    for entry in (
        {"role": secret, "content": secret},
        user({"type": secret, "text": secret}),
        user(image(f"ftp://{secret}")),
        user(image(PIXEL, detail=secret)),
        {"role": "assistant", "content": secret, "refusal": [secret]},
    ):
        assert secret not in str(mistake(entry))


def test_refusals_among_text_cost_no_more_than_text() -> None:
    parts = [{"type": "refusal", "refusal": str(n)} for n in range(10_000)] + [text(str(n)) for n in range(10_000)]
    start = process_time()
    (message,) = decode_messages([{"role": "assistant", "content": parts}])
    assert process_time() - start < 2
    assert isinstance(message, AssistantMessage)
    assert message.content == tuple(TextPart(str(n)) for n in range(10_000))
    assert message.refusal == "".join(str(n) for n in range(10_000))


def test_a_message_has_no_more_calls_than_an_answer_may_have() -> None:
    calls = [call(f"c{n}") for n in range(513)]
    results = [result(f"c{n}") for n in range(513)]
    assert len(decode_messages([assistant(*calls[1:]), *results[1:]])) == 513
    assert mistake(assistant(*calls), *results).param == "messages[0].tool_calls"


def test_signatures_and_reasoning_stay_inside() -> None:
    message = AssistantMessage("a", None, "why", (ToolCall("c", "f", "{}", "sig"),), "n")
    assert encode_message(message) == {"role": "assistant", "content": "a", "tool_calls": [call("c")], "name": "n"}
    assert encode_message(ToolMessage("c", "x")) == result("c", "x")


@pytest.mark.parametrize(
    ("name", "sent"),
    [("get_weather-2", "get_weather-2"), ("api.search", "api_search"), ("für", "f_r"), ("n" * 65, "n" * 64)],
)
def test_earlier_call_is_sent_under_a_valid_name(name: str, sent: str) -> None:
    """OpenAI and others refuse a conversation with a call whose name is not valid for a tool."""
    message = AssistantMessage(None, tool_calls=(ToolCall("c", name, "{}"),))
    (call,) = cast("list[Any]", encode_message(message)["tool_calls"])
    assert call["function"]["name"] == sent


# --- data URIs ------------------------------------------------------------------------------------


@cases("uri", "taken")
def test_valid_data_uri_is_normalised(uri: str, taken: str) -> None:
    assert sound_data_uri(uri) == taken


@cases("uri", "words")
def test_invalid_data_uri_is_described_without_quoting_it(uri: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        sound_data_uri(uri)


def test_data_uri_error_names_the_param_and_shows_an_example() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png,abc"}}
    with pytest.raises(InvalidRequest) as raised:
        decode_messages([{"role": "user", "content": [image]}])
    assert str(raised.value) == (
        "`messages[0].content[0].image_url.url` is a data URI that is not in base64: write data:image/png;base64,…"
    )
    with pytest.raises(InvalidRequest) as raised:
        decode_messages([{"role": "user", "content": [{"type": "file", "file": {"file_data": "aGk="}}]}])
    assert str(raised.value) == (
        "`messages[0].content[0].file.file_data` is not a data URI: write data:application/pdf;base64,…"
    )


def test_parts_hold_the_one_spelling() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "DATA:image/png;base64,aGk="}},
        {"type": "file", "file": {"file_data": "Data:Application/PDF;BASE64,aGk="}},
    ]
    assert decode_messages([{"role": "user", "content": parts}]) == (
        UserMessage((ImagePart("data:image/png;base64,aGk="), FilePart("data:application/pdf;base64,aGk="))),
    )
