"""The simulated model is deterministic, obeys the settings and matches every requested schema."""

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import chat
from providers.testkit import respond
from providers.testkit.answer_pieces import cut, cut_in_two
from providers.testkit.schema_instance import instance_of
from tests.kit.case_files import cases

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER, CLOCK = chat.Tool("get_weather", "Weather", CITY), chat.Tool("get_time")


def ask(text: str = "Hi", **fields: object) -> chat.ChatRequest:
    return chat.ChatRequest("m-1", (chat.UserMessage(text),), **fields)  # type: ignore[arg-type]


def first(request: chat.ChatRequest, persona: str = "Testland") -> chat.Choice:
    return respond(request, persona).choices[0]


def answer_to(request: chat.ChatRequest, persona: str = "Testland") -> str:
    return chat.text_of(first(request, persona).message.content)


def test_answer_names_the_persona_and_that_it_is_simulated() -> None:
    assert "Testland" in answer_to(ask())
    assert "simulated" in answer_to(ask())
    assert first(ask()).finish_reason == "stop"


@cases("text", "chinese")
def test_answers_in_the_language_of_the_question(text: str, chinese: bool) -> None:
    assert ("模拟" in answer_to(ask(text))) is chinese
    assert ("simulated" in answer_to(ask(text))) is not chinese


def test_the_same_request_gets_the_same_answer() -> None:
    request = ask("Weather in Oslo and Lima", tools=(WEATHER,), reasoning_effort="low")
    assert respond(request, "a") == respond(request, "a")
    assert respond(request, "a").id != respond(request, "b").id
    assert respond(request, "a").id != respond(replace(request, seed=1), "a").id
    assert respond(request, "a").created == 0


@given(st.text())
def test_pieces_are_the_text(text: str) -> None:
    assert "".join(cut(text)) == text
    assert "".join(cut_in_two(text)) == text
    assert all(cut(text))


def test_max_tokens_shortens_the_answer_with_finish_length() -> None:
    complete = first(ask())
    tokens = len(cut(chat.text_of(complete.message.content)))
    assert first(ask(max_tokens=tokens)) == complete
    short = first(ask(max_tokens=tokens - 1))
    assert short.finish_reason == "length"
    assert chat.text_of(complete.message.content).startswith(chat.text_of(short.message.content))
    assert respond(ask(max_tokens=2), "p").usage == replace(respond(ask(), "p").usage, completion_tokens=2)  # type: ignore[type-var]


def test_thinking_spends_the_same_budget() -> None:
    choice = first(ask(reasoning_effort="high", max_tokens=3))
    assert (choice.message.content, choice.finish_reason) == ("", "length")
    assert len(cut(choice.message.reasoning or "")) == 3
    assert first(ask("Weather?", tools=(WEATHER,), max_tokens=1)).finish_reason == "length"


def test_stop_sequences_end_the_text() -> None:
    text = answer_to(ask())
    word = text.split()[2]
    stopped = first(ask(stop=("never said", word)))
    assert stopped.message.content == text[: text.index(word)]
    assert stopped.finish_reason == "stop"


def test_thinks_only_where_asked() -> None:
    assert first(ask()).message.reasoning is None
    assert first(ask(reasoning_effort="none")).message.reasoning is None
    assert first(ask(reasoning_effort="low")).message.reasoning
    usage = respond(ask(reasoning_effort="low"), "p").usage
    assert 0 < usage.reasoning_tokens < usage.completion_tokens


def test_several_choices_are_numbered_and_differ() -> None:
    answer = respond(ask(n=3), "p")
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3


def test_log_probabilities_are_of_the_tokens() -> None:
    choice = first(ask(logprobs=True))
    tokens = choice.logprobs["content"]
    assert isinstance(tokens, list)
    assert "".join(token["token"] for token in tokens) == choice.message.content


def test_counts_images() -> None:
    image = chat.ImagePart("data:image/png;base64,AAAA")
    request = chat.ChatRequest("m", (chat.UserMessage((chat.TextPart("What?"), image)), chat.UserMessage((image,))))
    assert "2 images" in answer_to(request)
    usage, blind = respond(request, "p").usage, respond(ask("What?"), "p").usage
    assert usage.prompt_tokens > blind.prompt_tokens + 100


# --- tools ----------------------------------------------------------------------------------------


def calls(request: chat.ChatRequest) -> list[tuple[str, object]]:
    return [(call.name, json.loads(call.arguments)) for call in first(request).message.tool_calls]


def test_tool_call_has_the_subject_of_the_question() -> None:
    request = ask("What is the weather in Oslo?", tools=(CLOCK, WEATHER))
    assert calls(request) == [("get_weather", {"city": "Oslo"})]
    assert first(request).finish_reason == "tool_calls"
    assert first(request).message.content is None


def test_calls_twice_where_two_things_are_asked_about() -> None:
    request = ask("Weather in Oslo and Bergen?", tools=(WEATHER,))
    assert calls(request) == [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Bergen"})]
    assert len({call.id for call in first(request).message.tool_calls}) == 2
    assert len(calls(replace(request, parallel_tool_calls=False))) == 1
    assert len(calls(ask("weather: 奥斯陆和卑尔根", tools=(WEATHER,)))) == 2


def test_obeys_the_tool_choice() -> None:
    request = ask("Weather in Oslo?", tools=(WEATHER, CLOCK))
    assert calls(replace(request, tool_choice="none")) == []
    assert calls(replace(request, tool_choice=chat.NamedTool("get_time"))) == [("get_time", {})]
    assert calls(replace(request, tool_choice=chat.AllowedTools("auto", ("get_time",)))) == []
    assert calls(replace(request, tool_choice=chat.AllowedTools("required", ("get_time",)))) == [("get_time", {})]
    assert calls(replace(request, tool_choice="required"))[0][0] == "get_weather"


@cases("name", "asked", "is_called")
def test_a_tool_is_called_where_the_question_names_it(name: str, asked: str, is_called: bool) -> None:
    assert [tool for tool, _ in calls(ask(asked, tools=(chat.Tool(name),)))] == [name] * is_called


@pytest.mark.parametrize("member", ["command", "cmd", "script", "prompt", "code", "Command"])
@pytest.mark.parametrize("choice", [None, "required", chat.NamedTool("run_it")])
def test_never_fills_in_what_an_agent_would_execute(member: str, choice: object) -> None:
    text = {"type": "string"}
    members = {member: text, "name": text}
    optional = chat.Tool("run_it", parameters={"type": "object", "properties": members})
    inner = {"type": "object", "properties": members, "required": [member]}
    many = {"type": "object", "properties": {"runs": {"type": "array", "items": inner}}, "required": ["runs"]}
    assert calls(ask("run reboot", tools=(optional,), tool_choice=choice)) == [("run_it", {"name": "reboot"})]
    for parameters in (inner, many):
        request = ask("run reboot", tools=(chat.Tool("run_it", parameters=parameters),), tool_choice=choice)
        assert calls(request) == []
        assert "simulated" in answer_to(request)


def test_answer_repeats_the_results_of_the_tools() -> None:
    called = chat.AssistantMessage(
        tool_calls=(chat.ToolCall("a", "get_weather", "{}"), chat.ToolCall("b", "get_time", "{}"))
    )
    results = (chat.ToolMessage("a", "-3 °C"), chat.ToolMessage("b", "12:00"))
    request = chat.ChatRequest("m", (chat.UserMessage("Weather?"), called, *results), tools=(WEATHER,))
    assert "-3 °C; 12:00" in answer_to(request)
    assert first(request).finish_reason == "stop"


@cases("members", "is_called")
def test_never_writes_into_a_file(members: list[str], is_called: bool) -> None:
    parameters = {"type": "object", "properties": {name: {} for name in members}, "required": members}
    assert bool(calls(ask("Write it", tools=(chat.Tool("Write", parameters=parameters),)))) is is_called


@pytest.mark.parametrize("answer", [(), (chat.AssistantMessage("Snow."),)], ids=["same turn", "next turn"])
def test_calls_once_in_each_turn(answer: tuple[chat.AssistantMessage, ...]) -> None:
    """Agents add texts of their own, as messages of the user, after the results of tools."""
    called = chat.AssistantMessage(tool_calls=(chat.ToolCall("a", "get_weather", "{}"),))
    asked = (
        chat.SystemMessage("Be brief."),
        chat.UserMessage("Weather in Oslo?"),
        called,
        chat.ToolMessage("a", "x"),
        *answer,
    )
    request = chat.ChatRequest("m", (*asked, chat.UserMessage("Weather in Lima?")), tools=(WEATHER,))
    assert calls(request) == [("get_weather", {"city": "Lima"})] * len(answer)
    assert calls(replace(request, tool_choice="required")) == [("get_weather", {"city": "Lima"})] * len(answer)


# --- schemas --------------------------------------------------------------------------------------


def test_json_formats_are_filled_in() -> None:
    assert json.loads(answer_to(ask(response_format=chat.JsonObjectFormat())))["persona"] == "Testland"
    filled = json.loads(answer_to(ask(response_format=chat.JsonSchemaFormat("city", CITY))))
    jsonschema.validate(filled, CITY)


@cases("schema")
def test_an_instance_fits_its_schema(schema: dict[str, object]) -> None:
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    validator.validate(instance_of(schema, "word"))
    assert instance_of(schema, "word") == instance_of(schema, "word")


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
        {"minItems": 10**9, "items": {"minItems": 10**9, "items": {"type": "null"}}},
        {"items": {"type": "string", "minLength": 10**9}},
        {"prefixItems": [{"$ref": "#"}] * 50},
    ],
)
def test_a_schema_of_a_huge_instance_comes_to_an_end(schema: dict[str, object]) -> None:
    assert len(json.dumps(instance_of(schema))) < 300_000


def test_a_schema_without_any_finite_instance_comes_to_an_end() -> None:
    endless = {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]}
    assert json.dumps(instance_of(endless)).endswith("}")
    assert instance_of({"$ref": "#"}) is None
    assert instance_of({"$ref": "https://elsewhere.example/schema"}, "w") is not None


_schemas = st.recursive(
    st.one_of(
        st.just({"type": "boolean"}),
        st.builds(
            lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
            st.integers(),
            st.integers(0, 9),
        ),
        st.builds(lambda low: {"type": "string", "minLength": low, "maxLength": low + 3}, st.integers(0, 20)),
        st.builds(lambda values: {"enum": values}, st.lists(st.integers() | st.text(), min_size=1, max_size=3)),
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda items, fewest: {"type": "array", "items": items, "minItems": fewest}, inner, st.integers(0, 3)
        ),
        st.builds(
            lambda members, all_of_them: {
                "type": "object",
                "properties": members,
                "required": list(members) if all_of_them else [],
                "additionalProperties": False,
            },
            st.dictionaries(st.text(max_size=4), inner, max_size=3),
            st.booleans(),
        ),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=2)),
    ),
    max_leaves=6,
)


@given(_schemas)
def test_an_instance_of_any_schema_fits(schema: dict[str, object]) -> None:
    jsonschema.Draft202012Validator(schema).validate(instance_of(schema, "word"))
