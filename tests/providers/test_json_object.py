"""Emulated JSON objects: what is asked in words, and which answers are one JSON object."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import chat
from providers.adapter import EmulatesFeatures, Target, known_models
from providers.catalogue.models import model_facts
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.reading import json_object
from providers.reading.folding import fold, unfold
from providers.reading.json_object import (
    JsonObjectCheck,
    _ObjectText,
    checked,
    emulated_fields,
    json_start_of,
    with_json_instruction,
)
from providers.registry import load_registry
from tests.kit.case_files import cases
from tests.kit.chat_strategies import json_objects

ADAPTERS = load_registry().adapters
ASK = chat.ChatRequest(
    "a", (chat.SystemMessage("Be brief."), chat.UserMessage("A city")), response_format=chat.JsonObjectFormat()
)
EMULATING = {
    "anthropic": "claude-opus-5",
    "anthropic-vertex": "claude-opus-5@default",
    "bedrock": "eu.anthropic.claude-opus-5",
    "minimax": "MiniMax-M3",
    # The catalogue has no models of servers of one's own.
    "lmstudio": "m",
    "tgi": "m",
    "transformers": "m",
}
COUNTED = chat.Usage(3, 4)


def target_of(provider: str, model: str) -> Target:
    return Target(model, "/v1", model_facts(known_models(ADAPTERS[provider]), model))


def whole(
    text: str | None, finish: chat.FinishReason = "stop", calls: tuple[chat.ToolCall, ...] = ()
) -> chat.ChatCompletion:
    message = chat.AssistantMessage(text, tool_calls=calls)
    return chat.ChatCompletion("id", "m", 1, (chat.Choice(message, finish),), COUNTED)


def streamed(completion: chat.ChatCompletion, cuts: list[int]) -> list[chat.StreamEvent]:
    """Return the stream of an answer, with its text cut at these positions."""
    events: list[chat.StreamEvent] = []
    for event in unfold(completion):
        if isinstance(event, chat.TextDelta):
            places = [0, *sorted(cut % (len(event.text) + 1) for cut in cuts), len(event.text)]
            pieces = [event.text[a:b] for a, b in pairwise(places)]
            events += [chat.TextDelta(piece) for piece in pieces if piece]
        else:
            events.append(event)
    return events


def outcome(
    completion: chat.ChatCompletion, start: str = "", *, may_stop: bool = False
) -> chat.ChatCompletion | Failure:
    """Return the answer that a client gets, or the failure."""
    try:
        return checked(completion, start, may_stop=may_stop)
    except ProviderFailed as error:
        return error.failure


def read(text: str | None, finish: chat.FinishReason = "stop", *, start: str = "", may_stop: bool = False) -> str:
    """Return the text that a client gets, or the reason of the failure in brackets."""
    result = outcome(whole(text, finish), start, may_stop=may_stop)
    if isinstance(result, Failure):
        assert result.kind is FailureKind.NOT_JSON
        return f"[{result.detail}]"
    return chat.text_of(result.choices[0].message.content)


@cases("text", "result")
def test_only_one_json_object_is_accepted(text: str | None, result: str) -> None:
    assert read(text) == result


@pytest.mark.parametrize("reason", ["length", "content_filter", "other"])
@pytest.mark.parametrize("text", ['{"a": "b', "I cannot say", "{} and", ""])
def test_incomplete_answer_is_not_checked(text: str, reason: chat.FinishReason) -> None:
    assert read(text, reason).replace(" ", "") == text.replace(" ", "")


def test_text_with_a_tool_call_or_a_refusal_is_not_checked() -> None:
    calling = whole("Let me look.", "tool_calls", (chat.ToolCall("c", "look", "{}"),))
    assert checked(calling, "", may_stop=False) == calling
    assert checked(whole(None, "tool_calls", (chat.ToolCall("c", "look", "{}"),)), "", may_stop=False).choices
    refusing = replace(calling, choices=(chat.Choice(chat.AssistantMessage(None, "No."), "stop"),))
    assert checked(refusing, "", may_stop=False) == refusing


def test_stop_sequence_may_cut_the_object_off() -> None:
    assert read('{"a": 1', may_stop=True) == '{"a": 1'
    assert read("Oslo", may_stop=True) == "[the answer begins with other text]"
    assert read("{} Oslo", may_stop=True) == "[text follows the object]"


@cases("start", "text", "result")
def test_object_may_begin_in_the_request(start: str, text: str, result: str) -> None:
    assert read(text, start=start) == result


near_json = st.lists(
    st.sampled_from(["{", "}", "[", "]", '"', "\\", "`", "```", "json", ":", ",", "1", "a", " ", "\n", '"a":', "{}"])
).map("".join)
texts = near_json | json_objects.map(json.dumps) | json_objects.map(lambda one: f"```json\n{json.dumps(one)}\n```")
reasons = st.sampled_from(["stop", "length", "content_filter", "tool_calls"])


@given(texts, reasons, st.lists(st.integers(0, 10_000), max_size=6), st.booleans(), st.booleans())
def test_stream_gives_the_same_result_under_any_cut(
    text: str, reason: chat.FinishReason, cuts: list[int], may_stop: bool, calls: bool
) -> None:
    completion = whole(text, reason, (chat.ToolCall("c", "look", "{}"),) if calls else ())
    check = JsonObjectCheck("", may_stop=may_stop)
    events = [shown for event in streamed(completion, cuts) for shown in check.take((event,))]
    expected = outcome(completion, may_stop=may_stop)
    if isinstance(expected, Failure):
        ended = events[-1]
        assert isinstance(ended, chat.Failed)
        assert (ended.failure.kind, ended.failure.detail) == (expected.kind, expected.detail)
        assert not any(isinstance(event, chat.Finished | chat.ChoiceFinish) for event in events)
        return
    answer = fold(events)
    assert chat.text_of(answer.choices[0].message.content) == chat.text_of(expected.choices[0].message.content)
    assert replace(answer, choices=()) == replace(expected, choices=())


@given(texts)
def test_accepted_text_is_an_object_for_any_parser(text: str) -> None:
    shown = read(text)
    if not shown.startswith("["):
        assert isinstance(json.loads(shown), dict)
        assert shown in text
        assert not text.replace(shown, "", 1).replace("```json", "").strip(" \n`jsona1")


@given(json_objects, st.sampled_from(["{}", " {}\n", "```json\n{}\n```", "```\n{}```"]))
def test_any_object_is_accepted_unchanged(value: dict[str, object], around: str) -> None:
    text = json.dumps(value)
    assert read(around.replace("{}", text)) == text


def test_object_is_streamed_as_it_arrives_and_the_fence_is_not() -> None:
    check = JsonObjectCheck("", may_stop=False)
    fed = [check.take((chat.TextDelta(text),)) for text in ("``", "`json\n", '{"a"', ': "b', '"}', "\n``", "`", "\n")]
    assert [[event.text for event in events if isinstance(event, chat.TextDelta)] for events in fed] == [
        [], [], ['{"a"'], [': "b'], ['"}'], [], [], []
    ]  # fmt: skip
    assert check.take((chat.ChoiceFinish("stop"), chat.Finished())) == (chat.ChoiceFinish("stop"), chat.Finished())


def test_text_before_a_tool_call_is_released_in_order() -> None:
    check = JsonObjectCheck("", may_stop=False)
    assert check.take((chat.Opened("i", "m", 1), chat.TextDelta("Let me "), chat.TextDelta("look."))) == (
        chat.Opened("i", "m", 1),
    )
    assert not check.has_shown
    call = chat.ToolCallDelta(0, "{}", "c", "look")
    assert check.take((call,)) == (chat.TextDelta("Let me look."), call)
    assert check.take((chat.TextDelta(" Now."),)) == (chat.TextDelta(" Now."),)


def test_long_other_text_fails_before_its_end() -> None:
    check = JsonObjectCheck("", may_stop=False)
    assert check.take((chat.TextDelta("x" * 1000),)) == ()
    [failed] = check.take((chat.TextDelta("x"), chat.TextDelta("y"), chat.Finished()))
    assert isinstance(failed, chat.Failed)
    assert check.failed
    assert check.take((chat.TextDelta("{}"), chat.Finished())) == ()


def test_endless_white_space_is_not_kept() -> None:
    text = _ObjectText("")
    for around in ("", "{}"):
        text.feed(around)
        for _ in range(50):
            assert text.feed("\n" * 1000) == ""
    assert text.finish("length", may_stop=False) == ""


def test_object_above_the_limit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_object, "_MOST_CHARACTERS", 10)
    check = JsonObjectCheck("", may_stop=False)
    check.take((chat.TextDelta('{"a": "'),))
    [failed] = check.take((chat.TextDelta("x" * 10),))
    assert isinstance(failed, chat.Failed)
    assert failed.failure.kind is FailureKind.TOO_LARGE


def test_runs_heartbeats_and_choices_are_checked_one_by_one() -> None:
    check = JsonObjectCheck("", may_stop=False)
    assert check.take((chat.TextRun((b"{", b"}")), chat.Heartbeat())) == (
        chat.TextDelta("{"),
        chat.TextDelta("}"),
        chat.Heartbeat(),
    )
    assert check.take((chat.TextDelta("x", 1), chat.ChoiceFinish("stop", 0), chat.ChoiceFinish("stop", 1))) == (
        chat.ChoiceFinish("stop"),
    )
    [failed] = check.take((chat.UsageReport(COUNTED), chat.Finished()))
    assert isinstance(failed, chat.Failed)
    assert failed.usage == COUNTED
    assert "x" not in failed.failure.detail.split()


@pytest.mark.parametrize(("provider", "model"), EMULATING.items())
def test_object_is_asked_for_in_the_system_text(provider: str, model: str) -> None:
    target, adapter = target_of(provider, model), ADAPTERS[provider]
    known = target.facts.features if target.facts.known else adapter.capabilities.features
    assert "json_object" in adapter.capabilities.features & known
    body = json.loads(adapter.build_request(ASK, target).body)
    text = json.dumps(body)
    assert text.index("Be brief.") < text.index("JSON object")
    assert not {"response_format", "output_config", "outputConfig"} & body.keys()
    assert "JSON object" in json.dumps(body.get("system") or body.get("Messages", body.get("messages"))[:2])
    plain = json.loads(adapter.build_request(replace(ASK, response_format=None), target).body)
    assert "JSON object" not in json.dumps(plain)


def test_every_provider_without_a_json_mode_emulates_json_objects() -> None:
    chats = {name: adapter for name, adapter in ADAPTERS.items() if adapter.capabilities.features}
    emulating = {name for name, one in chats.items() if isinstance(one, EmulatesFeatures) and one.emulated}
    assert emulating == set(EMULATING)
    assert {name for name, one in chats.items() if "json_object" not in one.capabilities.features} == set()


def test_instruction_follows_the_last_system_message() -> None:
    alone = with_json_instruction(replace(ASK, messages=(chat.UserMessage("A city"),)))
    assert [type(one) for one in alone.messages] == [chat.SystemMessage, chat.UserMessage]
    asked = with_json_instruction(
        replace(ASK, messages=(*ASK.messages, chat.SystemMessage("In Norway."), *ASK.messages[1:]))
    )
    assert [type(one).__name__[0] for one in asked.messages] == ["S", "U", "S", "S", "U"]
    assert asked.response_format is None
    schema = replace(ASK, response_format=chat.JsonSchemaFormat("city", {}))
    assert with_json_instruction(schema) is schema


def test_answer_is_checked_only_where_the_object_is_emulated() -> None:
    claude, openai = ADAPTERS["anthropic"], ADAPTERS["openai"]
    target = target_of("anthropic", "claude-opus-5")
    assert emulated_fields(claude, ASK) == {"response_format"}
    assert json_start_of(claude, ASK, target) == ""
    assert emulated_fields(openai, ASK) == emulated_fields(claude, replace(ASK, response_format=None)) == frozenset()
    assert json_start_of(openai, ASK, target) is None
    assert json_start_of(claude, replace(ASK, response_format=chat.JsonSchemaFormat("c", {})), target) is None
    begun = replace(ASK, messages=(*ASK.messages, chat.AssistantMessage(" {")))
    assert json_start_of(claude, begun, target_of("anthropic", "claude-sonnet-4-5")) == "{"
    assert json_start_of(claude, begun, target) == ""
    spoken = replace(ASK, messages=(*ASK.messages, chat.AssistantMessage("Here:")))
    assert json_start_of(claude, spoken, target_of("anthropic", "claude-sonnet-4-5")) == ""
