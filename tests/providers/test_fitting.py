"""A request that leaves is one that the vendor takes, whatever a client sends (`providers.formats.fitting`)."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.catalogue.takes import Takes
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    ChatRequest,
    JsonSchemaFormat,
    Message,
    NamedTool,
    SystemMessage,
    TextPart,
    Texts,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
    said_in,
    text_of,
)
from providers.formats.fitting import client_names, fit, sent_name
from providers.formats.schemas import allows_strict, tool_schema
from providers.registry import load_registry
from tests.kit.case_files import tables_of
from tests.kit.chat_strategies import json_values, unhurried

ADAPTERS = {one.takes: one for one in load_registry().adapters.values() if hasattr(one, "takes")}
"""One adapter for each different table."""
LONG = "mcp__plugin_browser-devtools-mcp_browser-devtools__get_console_message_by_id"
TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}

texts = st.sampled_from(["", " ", "a", "Be brief.", "Line\nline"])
names = st.sampled_from(["f", "g", "a.b:c", "1st", LONG, LONG + "_2", "a" * 64, "a" * 129])
ids = st.sampled_from(["call_1", "aB3dE5gH7", "functions.f:0", "x" * 41, "y" * 300])
systems = st.builds(
    SystemMessage,
    st.one_of(texts, st.tuples(st.builds(TextPart, texts, st.sampled_from([None, "5m"])))),
    st.just("system"),
)
calls = st.builds(ToolCall, ids, names, st.just("{}"))


@st.composite
def turns(draw: st.DrawFn) -> tuple[Message, ...]:
    """Return an assistant's message with its results, or without calls."""
    made = draw(st.lists(calls, max_size=2, unique_by=lambda call: call.id))
    return (AssistantMessage(draw(texts), tool_calls=tuple(made)), *(ToolMessage(call.id, "done") for call in made))


conversations = st.lists(
    st.one_of(
        st.tuples(systems),
        st.tuples(st.builds(UserMessage, texts)),
        st.tuples(st.builds(AssistantMessage, st.sampled_from([None, "", " ", "x"]))),
        turns(),
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: tuple(message for part in parts for message in part))
schemas = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "object", "array", "integer", ["string", "null"], "null"]),
            "enum": st.lists(st.sampled_from(["a", "b", None, 1]), max_size=3),
            "description": st.just("d"),
            "$ref": st.just("#/$defs/x"),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", ["object", "null"]]),
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), st.one_of(inner, st.just(True)), max_size=2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "description": st.just("d"),
            "$defs": st.fixed_dictionaries({"x": inner}),
        },
    ),
    max_leaves=6,
)
tools = st.lists(
    st.builds(Tool, names, parameters=st.one_of(st.none(), schemas), strict=st.sampled_from([None, True])),
    max_size=3,
    unique_by=lambda tool: tool.name,
)


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    """Return a request of any kind that a dialect may decode."""
    some = tuple(draw(tools))
    choice = draw(st.sampled_from([None, *(NamedTool(tool.name) for tool in some)]))
    if some and draw(st.booleans()):
        choice = AllowedTools("auto", (some[-1].name,))
    form = draw(st.one_of(st.none(), st.builds(JsonSchemaFormat, st.just("x"), schemas, strict=st.just(True))))
    return ChatRequest("m", draw(conversations), tools=some, tool_choice=choice, response_format=form)


def inner_schemas(schema: Any) -> Iterator[Any]:
    yield schema
    if not isinstance(schema, dict):
        return
    for name in ("properties", "$defs"):
        for one in (schema.get(name) or {}).values():
            yield from inner_schemas(one)
    for name in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(name) or ():
            yield from inner_schemas(one)
    if isinstance(schema.get("items"), dict):
        yield from inner_schemas(schema["items"])


def is_kimis(schema: dict[str, Any]) -> bool:
    """Return whether Moonshot's validator takes it: a type, or `anyOf` or `$ref` with nothing but notes added."""
    notes = {"description", "title", "$defs", "$id"}
    if "$ref" in schema:
        return schema.keys() <= {"$ref", "$defs", "$id"}
    if "anyOf" in schema:
        return schema.keys() <= {"anyOf", *notes}
    kind = schema.get("type")
    if isinstance(kind, list):
        return set(kind) <= TYPES and schema.keys() <= {"type", *notes}
    return kind in TYPES and not {"oneOf", "allOf"} & schema.keys()


def check_schema(schema: Any, takes: Takes, *, of_a_tool: bool) -> None:
    if of_a_tool and "plain_root" in takes.schemas:
        assert not {"anyOf", "oneOf", "allOf"} & schema.keys()
    for one in inner_schemas(schema) if schema else ():
        if of_a_tool and "members" in takes.schemas and isinstance(one, dict):
            assert one.get("type") != "array" or "items" in one
            assert one.get("type") != "object" or "properties" in one
        assert "kimi" not in takes.schemas or is_kimis(one), one


@pytest.mark.parametrize("takes", ADAPTERS, ids=lambda takes: ADAPTERS[takes].name)
@given(request=requests())
@unhurried
def test_what_leaves_satisfies_the_vendors_table(takes: Takes, request: ChatRequest) -> None:
    sent = fit(request, takes)[0]
    said = [message for message in sent.messages if isinstance(message, SystemMessage)]
    assert all(text_of(message.content).strip() for message in said)
    if takes.system == "first":
        assert said == list(sent.messages[:1]) or not said
        assert not isinstance(sent.messages[-1], SystemMessage)
        answers = [message for message in sent.messages[:-1] if isinstance(message, AssistantMessage)]
        assert all(message.tool_calls or said_in(message).strip() for message in answers)
    for text in (text_of(one.content) for one in request.messages if isinstance(one, SystemMessage)):
        assert not text.strip() or any(text in text_of(message.content) for message in sent.messages)
    called = [call for one in sent.messages if isinstance(one, AssistantMessage) for call in one.tool_calls]
    for used in (*(tool.name for tool in sent.tools), *(call.name for call in called)):
        assert len(used) <= takes.name_characters
        assert re.fullmatch(takes.name_pattern, used)
    answered = [one.tool_call_id for one in sent.messages if isinstance(one, ToolMessage)]
    assert [call.id for call in called] == answered
    assert all(len(id) <= (takes.id_characters or 999) for id in answered)
    assert takes.call_ids != "nine" or all(re.fullmatch("[A-Za-z0-9]{9}", id) for id in answered)
    back = client_names(ADAPTERS[takes], request)
    assert [back.get(tool.name, tool.name) for tool in sent.tools] == [tool.name for tool in request.tools]
    chosen = sent.tool_choice
    allowed = (
        chosen.names if isinstance(chosen, AllowedTools) else (chosen.name,) if isinstance(chosen, NamedTool) else ()
    )
    assert {*allowed} <= {tool.name for tool in sent.tools}
    for tool in sent.tools:
        check_schema(tool.parameters or {}, takes, of_a_tool=bool(tool.parameters))
        assert (
            not tool.strict
            or "strict" not in takes.schemas
            or tool.parameters is None
            or allows_strict(tool.parameters)
        )
    if isinstance(form := sent.response_format, JsonSchemaFormat):
        check_schema(form.schema, takes, of_a_tool=False)
        assert not form.strict or "strict" not in takes.schemas or allows_strict(form.schema)
    assert fit(sent, takes)[0] == sent


@given(schema=json_values)
@unhurried
def test_any_json_in_place_of_a_schema_is_survived(schema: Any) -> None:
    for rules in ({"kimi"}, {"plain_root", "members"}):
        tool_schema(
            {"properties": {"x": schema}, "anyOf": schema, "type": schema, "required": schema, "enum": schema}, rules
        )


def test_deep_schema_is_survived() -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"anyOf": [deep]}
    tool_schema(deep, {"kimi"})
    tool_schema({"type": "object", "properties": {"a": {"type": "object", "items": [True]}}}, {"members"})


def test_schema_that_contains_itself_fits_kimi_on_every_level() -> None:
    node = {"type": "object", "properties": {}}
    again = {"allOf": [{"$ref": "#/$defs/node"}, {"description": "a part"}]}
    node["properties"] = {
        "left": again,
        "right": again,
        "label": {"anyOf": [{"type": ["string", "null"], "enum": ["a"]}]},
    }
    schema = {"type": "object", "properties": {"tree": again}, "$defs": {"node": node}}
    written, _ = tool_schema(schema, {"kimi"})
    check_schema(written, Takes(schemas=frozenset({"kimi"})), of_a_tool=True)
    assert len(json.dumps(written)) < 20_000
    assert '{"$ref": "#/$defs/node"}' in json.dumps(written)


_TABLES = tables_of(__file__)
KIMI = msgspec.convert(_TABLES["kimi"], list[tuple[dict[str, Any], dict[str, Any]]])


@pytest.mark.parametrize(("given", "written"), KIMI)
def test_property_fits_kimi(given: dict[str, Any], written: dict[str, Any]) -> None:
    before = json.dumps(given)
    whole = {"type": "object", "properties": {"p": given}, "$defs": {"x": {"type": "string"}}}
    assert tool_schema(whole, {"kimi"})[0]["properties"]["p"] == written
    assert json.dumps(given) == before


def test_description_alone_is_a_property_of_any_type() -> None:
    schema = {"type": "object", "properties": {"p": {"description": "d"}, "q": True}}
    written = tool_schema(schema, {"kimi"})[0]["properties"]
    assert set(written["p"]["type"]) == set(written["q"]["type"]) == TYPES - {"integer"}


def test_combinations_at_the_top_become_one_object() -> None:
    schema = {
        "$defs": {"url": {"properties": {"url": {"type": "string"}}, "required": ["url", "name"]}},
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "oneOf": [{"$ref": "#/$defs/url"}, {"properties": {"file": {"type": "string"}}, "required": ["name", "file"]}],
    }
    written, is_lossy = tool_schema(schema, {"plain_root"})
    assert written["properties"].keys() == {"name", "url", "file"}
    assert (written["required"], is_lossy) == (["name"], True)


def test_changes_are_named() -> None:
    takes = Takes(schemas=frozenset({"kimi", "strict"}))
    request = ChatRequest(
        "m",
        (UserMessage("a"), SystemMessage("b"), UserMessage("c")),
        tools=(Tool("f", None, {"type": "object", "properties": {"a": {}}}, strict=True),),
        response_format=JsonSchemaFormat("x", {"type": "object", "properties": {"a": {"type": "string"}}}, strict=True),
    )
    named = {"messages.role", "tools.parameters", "strict_tools", "response_format.strict"}
    assert fit(request, takes)[1] == named


def test_request_that_fits_is_returned_itself() -> None:
    plain = Texts((SystemMessage("a"), UserMessage("b")))
    for request in (
        ChatRequest("m", plain),
        ChatRequest("m", (UserMessage("b"),), tools=(Tool("f", None, {"type": "object"}),)),
    ):
        assert fit(request, Takes())[0] is request


def test_at_most_four_marks_for_a_cache_stay() -> None:
    marked = UserMessage((TextPart("a", cache="5m"), TextPart("b", cache="5m")))
    system = SystemMessage((TextPart("s", cache="1h"),))
    messages = (system, marked, AssistantMessage("c"), marked, AssistantMessage("d"), marked)
    whole, changed = fit(ChatRequest("m", messages, tools=(Tool("f", cache="5m"),)), Takes())
    users = [message for message in whole.messages if not isinstance(message, AssistantMessage)]
    marks = [[part.cache for part in message.content if part.cache] for message in users]
    assert (marks, whole.tools[0].cache) == ([["1h"], [], [], ["5m", "5m"]], "5m")
    assert changed == {"cache_control"}
    assert fit(whole, Takes())[1] == frozenset()


def test_names_of_two_tools_stay_different() -> None:
    request = ChatRequest("m", (UserMessage("b"),), tools=(Tool("a.b"), Tool("a_b"), Tool(LONG), Tool(LONG + "x")))
    sent = [tool.name for tool in fit(request, Takes())[0].tools]
    assert len({*sent}) == 4
    assert sent[1] == "a_b"
    assert sent_name(LONG, Takes()) == sent[2]
    assert sent[2].startswith(LONG[:55])
