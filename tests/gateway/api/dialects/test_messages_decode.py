"""Requests in Anthropic's form: what they mean, what is left out by name, and what is refused."""

import json
from typing import Any

import pytest

from gateway.api.dialects.messages import Messages, TokenCount
from gateway.api.dialects.messages.decode import NO_STATE
from gateway.api.errors import ApiError
from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature

HI = {"role": "user", "content": "Hi"}
PLAIN: dict[str, Any] = {"model": "assistant", "max_tokens": 100, "messages": [HI]}
TOOL = {"name": "look", "input_schema": {"type": "object"}}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
PNG = "data:image/png;base64,iVBORw0KGgo="


def decode(**fields: Any) -> chat.ChatRequest:
    body = {name: value for name, value in {**PLAIN, **fields}.items() if value is not ...}
    return Messages().decode(json.dumps(body).encode())


def use(call_id: str = "toolu_1", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "look", "input": {}, **fields}


def result(call_id: str = "toolu_1", content: Any = "seen", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": [*blocks]}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*blocks]}


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **fields}


def test_texts_are_read_on_the_fast_path() -> None:
    request = decode(system="Be brief.", stream=True, temperature=0.5)
    assert type(request.messages) is chat.Texts
    assert request.messages == (chat.SystemMessage("Be brief."), chat.UserMessage("Hi"))
    assert (request.stream, request.include_usage, request.max_tokens) == (True, True, 100)
    assert not request.unread


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"top_k": 5}, {"extra": {"top_k": 5}}),
        ({"stop_sequences": ["END"]}, {"stop": ("END",)}),
        ({"metadata": {"user_id": '{"device_id":"d"}'}}, {"user": '{"device_id":"d"}'}),
        ({"tools": [TOOL]}, {"tools": (chat.Tool("look", None, {"type": "object"}),)}),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "look"}}, {"tool_choice": chat.NamedTool("look")}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            {"parallel_tool_calls": False},
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "minimal"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 8192}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, {"reasoning_effort": "max"}),
        ({"thinking": {"type": "adaptive"}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "disabled"}}, {"reasoning_effort": "none"}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            {"response_format": chat.JsonSchemaFormat("response", {"type": "object"}, strict=True)},
        ),
    ],
    ids=str,
)
def test_fields_have_their_canonical_meaning(fields: Any, expected: dict[str, object]) -> None:
    request = decode(**fields)
    assert {name: getattr(request, name) for name in expected} == expected
    assert not request.unread


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"service_tier": "auto"}, "service_tier"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}, "context_management"),
        ({"speed": "fast"}, "speed"),
        ({"user_profile_id": "u"}, "user_profile_id"),
        ({"metadata": {"user_id": "u", "device": "d"}}, "metadata.device"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, "output_config.effort"),
        ({"tools": [{**TOOL, "input_examples": [{}]}]}, "tools.input_examples"),
        ({"messages": [user(text("Hi", x=1))]}, "messages.content.x"),
        (
            {"messages": [HI, assistant({"type": "thinking", "thinking": "Hm", "signature": "theirs"})]},
            "messages.content.signature",
        ),
        ({"messages": [HI, assistant({"type": "redacted_thinking", "data": "theirs"})]}, "messages.content.signature"),
    ],
    ids=str,
)
def test_fields_without_an_equivalent_are_left_out_by_name(fields: Any, name: str) -> None:
    assert decode(**fields).unread == {name}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ...}, "model"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"context_management": {"edits": [{"pause_after_compaction": True}]}}, "context_management"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]}, "messages.0.content.0.source.type"),
        ({"messages": [user({"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/a"}})]}, "messages.0.content.0.source.url"),
        ({"messages": [user({"type": "container_upload", "file_id": "f"})]}, "messages.0.content.0.type"),
        ({"messages": [HI, assistant({"type": "server_tool_use", "id": "s"}), user(text("a"), {"type": "container_upload"})]}, "messages.2.content.1.type"),
        ({"messages": [HI, assistant(text("a"), {"type": "server_tool_use", "id": "s"})], "top_k": "1"}, "top_k"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"name": "look"}]}, "tools.0.input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": [HI, assistant(use())]}, "messages.1"),
        ({"messages": [HI, assistant(use()), HI]}, "messages.1"),
        ({"messages": [user(result())]}, "messages.0.content.0.tool_use_id"),
        ({"messages": [HI, assistant(use(), use())]}, "messages.1.content"),
        ({"system": [{"type": "image"}]}, "system.0.type"),
        ({"messages": [user(text("Hi", cache_control={"type": "ephemeral", "ttl": "2h"}))]}, "messages.0.content.0.cache_control.ttl"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_and_stateful_fields_are_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises((InvalidRequest, UnsupportedFeature)) as refused:
        decode(**fields)
    assert refused.value.param == param  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"model":"a","model":"b"}'])
def test_broken_body_is_refused(body: bytes) -> None:
    with pytest.raises((ApiError, InvalidRequest)):
        Messages().decode(body)


def test_results_come_before_text_and_keep_images_and_failures() -> None:
    request = decode(
        messages=[
            HI,
            assistant(text("I look."), use("a"), use("b", input={"n": 12345678901234567890})),
            user(text("So?"), result("b", [text("A photo:"), IMAGE]), result("a", "no", is_error=True)),
        ],
        tools=[TOOL],
    )
    assert request.messages[1] == chat.AssistantMessage(
        "I look.",
        tool_calls=(chat.ToolCall("a", "look", "{}"), chat.ToolCall("b", "look", '{"n":12345678901234567890}')),
    )
    assert request.messages[2:] == (
        chat.ToolMessage("b", (chat.TextPart("A photo:"), chat.ImagePart(PNG))),
        chat.ToolMessage("a", "no", is_error=True),
        chat.UserMessage("So?"),
    )


def test_consecutive_turns_of_one_role_are_one_turn() -> None:
    request = decode(
        messages=[
            user(text("One")),
            HI,
            assistant(text("I")),
            assistant(use("a")),
            assistant(use("b")),
            user(result("a")),
            user(result("b")),
            HI,
        ]
    )
    assert request.messages == (
        chat.UserMessage("One"),
        chat.UserMessage("Hi"),
        chat.AssistantMessage("I", tool_calls=(chat.ToolCall("a", "look", "{}"), chat.ToolCall("b", "look", "{}"))),
        chat.ToolMessage("a", "seen"),
        chat.ToolMessage("b", "seen"),
        chat.UserMessage("Hi"),
    )


def test_state_of_a_thinking_block_belongs_to_the_next_call() -> None:
    request = decode(
        messages=[
            HI,
            assistant(
                {"type": "thinking", "thinking": "Hm", "signature": "sealed-1"},
                text("I look."),
                use("a"),
                use("b"),
                {"type": "thinking", "thinking": "", "signature": "sealed-2"},
                use("c"),
            ),
            user(result("a"), result("b"), result("c")),
        ]
    )
    asked = request.messages[1]
    assert isinstance(asked, chat.AssistantMessage)
    assert asked.reasoning == "Hm"
    assert [call.signature for call in asked.tool_calls] == ["sealed-1", None, "sealed-2"]


def test_signature_without_state_is_left_out_silently() -> None:
    thinking = {"type": "thinking", "thinking": "Hm", "signature": NO_STATE}
    request = decode(messages=[HI, assistant(thinking, text("Hello")), HI])
    assert request.messages[1] == chat.AssistantMessage("Hello", reasoning="Hm")
    assert not request.unread


def test_documents_and_linked_images_are_read() -> None:
    pdf = {
        "type": "document",
        "title": "a.pdf",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
    }
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Hé"}}
    inner = {"type": "document", "source": {"type": "content", "content": [text("x")]}}
    linked = {"type": "image", "source": {"type": "url", "url": "https://images.example.com/a.png"}}
    request = decode(messages=[user(pdf, plain, inner, linked)])
    assert request.messages == (
        chat.UserMessage(
            (
                chat.FilePart("data:application/pdf;base64,JVBERg==", "a.pdf"),
                chat.FilePart("data:text/plain;base64,SMOp"),
                chat.TextPart("x"),
                chat.ImagePart("https://images.example.com/a.png"),
            )
        ),
    )  # fmt: skip


def test_each_block_of_system_is_a_message_so_that_no_words_run_together() -> None:
    request = decode(system=[text("Be brief"), text("TWO", cache_control={"type": "ephemeral"}), text("three")])
    said = (
        chat.SystemMessage("Be brief"),
        chat.SystemMessage((chat.TextPart("TWO", "5m"),)),
        chat.SystemMessage("three"),
    )
    assert request.messages[:3] == said
    assert len(request.messages) == 4


def test_cache_marks_are_kept() -> None:
    mark, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    request = decode(
        system=[text("Rules", cache_control=hour)],
        tools=[{**TOOL, "cache_control": mark}],
        messages=[user(text("Hi", cache_control=mark))],
    )
    assert request.messages == (
        chat.SystemMessage((chat.TextPart("Rules", "1h"),)),
        chat.UserMessage((chat.TextPart("Hi", "5m"),)),
    )
    assert request.tools[0].cache == "5m"
    assert not request.unread


def test_count_needs_no_max_tokens() -> None:
    body = {name: value for name, value in PLAIN.items() if name != "max_tokens"}
    counting = TokenCount()
    assert counting.decode(json.dumps(body).encode()).messages == (chat.UserMessage("Hi"),)
    assert json.loads(counting.encode_count(7)) == {"input_tokens": 7}


LINE = "x-anthropic-billing-header: cc_version=2; cch=1;"


@pytest.mark.parametrize(
    ("system", "attribution", "rest"),
    [
        ([text(LINE), text("Be brief.")], LINE, ["Be brief."]),
        ([text(f"{LINE}\nBe brief."), text("Be kind.")], f"{LINE}\n", ["Be brief.", "Be kind."]),
        (f"{LINE}\nBe brief.\n", f"{LINE}\n", ["Be brief.\n"]),
        (LINE, LINE, []),
        (f"Quote: {LINE}", None, [f"Quote: {LINE}"]),
    ],
)
def test_line_by_which_claude_code_identifies_itself_is_no_part_of_the_prompt(
    system: Any, attribution: str | None, rest: list[str]
) -> None:
    request = decode(system=system)
    assert request.extra.get("system.attribution") == attribution
    assert [message.content for message in request.messages if isinstance(message, chat.SystemMessage)] == rest
