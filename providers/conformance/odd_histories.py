"""Conversations that a client may send and no vendor has made: what they lack or repeat, and what their calls hold."""

from __future__ import annotations

from dataclasses import replace

from providers.chat import (
    AssistantMessage,
    ChatRequest,
    Message,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)

__all__ = ["ODD_CALLS", "ODD_HISTORIES"]

_TOOLS = (Tool("get_weather", None, {}), Tool("find", "", {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}))
_HI = UserMessage("Hi")
_RESULT = ToolMessage("call_a1", "-3")


def _asked(*messages: Message) -> ChatRequest:
    return ChatRequest("assistant", messages)


def _called(*messages: Message) -> ChatRequest:
    return replace(_asked(_HI, *messages), tools=_TOOLS)


def _call(arguments: str, id: str = "call_a1", name: str = "get_weather") -> AssistantMessage:
    return AssistantMessage(None, tool_calls=(ToolCall(id, name, arguments),))


_ARGUMENTS = ("", " ", "{broken", "[1]", "null", '"x"', "17", "NaN", '{"x":1e999}', '{"x":"\\ud83d"}', "[" * 2000)
ODD_CALLS = {
    **{f"arguments {arguments[:12]}": _called(_call(arguments), _RESULT) for arguments in _ARGUMENTS},
    "no result": _called(_call("{}"), UserMessage("And?")),
    "a result of no call": _called(_RESULT),
    "a result of another call": _called(_call("{}"), ToolMessage("call_z9", "?"), UserMessage("And?")),
    "two results of one call": _called(_call("{}"), _RESULT, _RESULT),
    "results in another order": _called(
        AssistantMessage(None, tool_calls=(*_call("{}").tool_calls, *_call("{}", "call_b2", "find").tool_calls)),
        ToolMessage("call_b2", "b"),
        _RESULT,
    ),
    "a blank result": _called(_call("{}"), ToolMessage("call_a1", "")),
    "a result without parts": _called(_call("{}"), ToolMessage("call_a1", ())),
    "a call of no tool": _called(_call("{}", name="gone"), _RESULT),
    "a call at the end": _called(_call("{}")),
    "calls without tools": _asked(_HI, _call("{}"), _RESULT),
}
ODD_HISTORIES = {
    **ODD_CALLS,
    "instructions alone": _asked(SystemMessage("Be brief.")),
    "blank instructions": _asked(SystemMessage(""), _HI),
    "instructions at the end": _asked(_HI, SystemMessage("Be brief.")),
    "a blank question": _asked(UserMessage("")),
    "a question without parts": _asked(UserMessage(())),
    "blank parts": _asked(UserMessage((TextPart(""), TextPart(" ")))),
    "an answer first": _asked(AssistantMessage("Hello"), _HI),
    "two answers": _asked(_HI, AssistantMessage("One"), AssistantMessage("Two"), _HI),
    "an answer that says nothing": _asked(_HI, AssistantMessage(None), _HI),
    "an answer without parts": _asked(_HI, AssistantMessage(()), _HI),
    "a refusal": _asked(_HI, AssistantMessage(None, refusal="No."), _HI),
    "thoughts alone": _asked(_HI, AssistantMessage(None, reasoning="Hm."), _HI),
}
