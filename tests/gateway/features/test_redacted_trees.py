"""A value that is planted anywhere in a request arrives nowhere, but for the names and ids that the page names."""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.features.redaction.model import DEFAULT_KINDS, rules_of
from gateway.features.redaction.policy.finding import _PLAIN, Finder
from gateway.features.redaction.policy.requests import redact
from providers import chat
from providers.value import Value, replace

RULES = rules_of(["all"], {*DEFAULT_KINDS, "id", "ip"}, ["US"], media="pass")
PLANTED = "planted.example"
NAMES = {"type", "required", "$ref"}
KEYS = (
    "description title default const enum examples example $comment markdownDescription errorMessage enumDescriptions "
    "x-note unknown pattern format $id $anchor $schema items anyOf not if properties $defs dependentRequired "
    "additionalProperties contentMediaType discriminator components"
).split()  # fmt: skip


def mail(number: int = 1) -> str:
    return f"mark{number}@{PLANTED}"


TEXTS = st.builds(mail, st.integers(1, 9)) | st.just("string")
TREES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.integers(0, 9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
SCHEMAS = st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5)


@given(SCHEMAS, st.booleans())
def test_a_value_beneath_any_key_of_a_schema_arrives_nowhere(schema: dict[str, Any], is_named: bool) -> None:
    asked = mail() if is_named else "hello"
    tool = chat.Tool("look_up", parameters=schema)
    request = chat.ChatRequest(
        "m",
        (chat.UserMessage(asked),),
        tools=(tool,),
        response_format=chat.JsonSchemaFormat("answer", {"properties": {"a": schema}}),
    )
    sent = redact(request, RULES)
    assert PLANTED not in str(sent.request)
    if PLANTED not in f"{schema}{asked}":
        assert sent.request is request


def test_the_names_in_a_schema_stay_and_a_member_that_would_break_goes() -> None:
    named = {"type": mail(), "required": [mail()], "$ref": f"#/$defs/{mail()}"}
    schema = {"properties": {mail(): {**named, "items": [named]}}, "$defs": {"pattern": named}}
    assert (
        redact(chat.ChatRequest("m", (), tools=(chat.Tool("t", parameters=schema),)), RULES).request.tools[0].parameters
        == schema
    )
    # Elsewhere they are words like any.
    unknown = {"x-note": {"type": mail()}, "default": {"required": [mail()], "format": "long"}}
    sent = redact(chat.ChatRequest("m", (), tools=(chat.Tool("t", parameters=unknown),)), RULES).request
    assert sent.tools[0].parameters == {
        "x-note": {"type": "QEMAIL1Z"}, "default": {"required": ["QEMAIL1Z"], "format": "long"}
    }  # fmt: skip


@pytest.mark.parametrize("name", ["pattern", "format", "$id", "$anchor", "$schema"])
def test_a_member_that_a_placeholder_would_break_is_left_out_also_where_nothing_else_was_found(name: str) -> None:
    others = {"pattern": "^[a-z]+$", "format": "uri", "minLength": 1, "$id": "https://schemas.test/a"}
    for value in (mail(), re.escape(mail()), "[.]".join(mail().split("."))):
        if value != mail() and name != "pattern":
            continue
        schema = {"type": "object", "properties": {"a": {**others, name: value}}}
        found = redact(chat.ChatRequest("m", (), tools=(chat.Tool("t", parameters=schema),)), RULES)
        kept = {key: item for key, item in others.items() if key != name}
        assert found.request.tools[0].parameters == {"type": "object", "properties": {"a": kept}}
        assert (found.dropped, found.counts, found.request.messages) == ({name}, {}, ())


FULL = chat.ChatRequest(
    model="assistant",
    messages=(
        chat.SystemMessage("a", name="b"),
        chat.SystemMessage((chat.TextPart("c", cache="5m"),), role="developer"),
        chat.UserMessage((chat.TextPart("d"), chat.ImagePart("data:,", "low"), chat.AudioPart("", "wav"), chat.FilePart("data:,", "e")), name="f"),
        chat.AssistantMessage("g", "h", "i", (chat.ToolCall("id", "name", '{"j": "k", "l": ["m"]}', "signed"),), "n"),
        chat.ToolMessage("id", (chat.TextPart("o"), chat.FilePart("data:,", "p"))),
        chat.UserMessage("q"),
    ),
    stop=("r",),
    logit_bias={"1": 1},
    tools=(chat.Tool("name", "s", {"x": "t"}, own={"type": "bash", "more": "u"}),),
    response_format=chat.JsonSchemaFormat("v", {"x": "w"}, "x"),
    user="y",
    extra={"metadata": {"z": "1"}, "unknown": [{"2": ["3"]}], "prediction": {"type": "content", "content": [{"text": "4"}]}},
)  # fmt: skip
KEPT = {
    *(
        "model role cache reasoning_effort id tool_call_id signature Tool.name ToolCall.name own url detail data "
        "format filename unread"
    ).split()
}
"""Members that are not searched."""


def planted(value: Any, numbers: Iterator[int]) -> Any:
    """Return a value with an address in each of its strings that is not kept."""
    if isinstance(value, str):
        if value.startswith("{"):
            return json.dumps(planted(json.loads(value), numbers))
        return f"to {mail(next(numbers))}"
    if isinstance(value, Value):
        members = {
            it.name: getattr(value, it.name)
            for it in dataclasses.fields(value)
            if (it.name not in KEPT and f"{type(value).__name__}.{it.name}" not in KEPT)
            or isinstance(getattr(value, it.name), Mapping)
        }
        return replace(value, **{name: planted(item, numbers) for name, item in members.items()})
    if isinstance(value, Mapping):
        return {name: item if name == "type" else planted(item, numbers) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(planted(item, numbers) for item in value)
    return value


def test_a_value_in_any_member_of_a_request_arrives_nowhere() -> None:
    """The members come from the classes, so a new one is searched, or named above."""
    numbers = count(1)
    request = planted(FULL, numbers)
    total = next(numbers) - 1
    assert total > 20
    sent = redact(request, RULES)
    assert PLANTED not in str(sent.request)
    assert sent.counts == {"email": total}


@given(st.text("abQZskAKIA xob-_./;,p", max_size=12))
def test_a_short_word_that_is_not_searched_has_no_value(text: str) -> None:
    assert _PLAIN.fullmatch(text)
    finder = Finder(rules_of(["all"], RULES.kinds, RULES.countries, ["never met"]))
    assert finder.find(text) == Finder(RULES).find(text) == ()
