"""What a client asks: the messages, the tools, and how it wants the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from providers.chat.messages import Message
from providers.value import Value, change

__all__ = [
    "AllowedTools",
    "ChatRequest",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "NamedTool",
    "ResponseFormat",
    "Tool",
    "ToolChoice",
    "change_request",
]


class Tool(Value, frozen=True):
    """A function that the model may call; `parameters` is a JSON Schema, absent for no arguments."""

    name: str
    description: str | None = None
    parameters: Mapping[str, object] | None = None
    strict: bool | None = None


class NamedTool(Value, frozen=True):
    """`tool_choice`: the model must call this one."""

    name: str


class AllowedTools(Value, frozen=True):
    """`tool_choice`: of the tools given only these may (`auto`) or must (`required`) be called."""

    mode: Literal["auto", "required"]
    names: tuple[str, ...]


ToolChoice = Literal["auto", "none", "required"] | NamedTool | AllowedTools


class JsonObjectFormat(Value, frozen=True):
    """The answer is some JSON object."""


class JsonSchemaFormat(Value, frozen=True):
    """The answer is JSON that fits `schema`."""

    name: str
    schema: Mapping[str, object]
    description: str | None = None
    strict: bool | None = None


ResponseFormat = JsonObjectFormat | JsonSchemaFormat


class ChatRequest(Value, frozen=True):
    """One question to an assistant.

    `model` is what the client asked for; what the provider is asked for is in the `Target`. None means "not
    said": the provider's default. `max_tokens` counts everything generated, reasoning included. `extra` holds
    the fields that we have no word for, as parsed JSON; `matching` decides what becomes of them. `unread` names such
    fields further inside (`messages.cache_control`), which are passed on to nobody. `folded`: the stream is put
    together before anybody sees it, and must say what one JSON would have said.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: Mapping[str, float] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    extra: Mapping[str, object] = {}
    unread: frozenset[str] = frozenset()
    folded: bool = False

    def settings(self) -> dict[str, object]:
        """Those of the settings that are said, by name, and that OpenAI's dialect takes as they are."""
        said: dict[str, object] = {}
        if self.temperature is not None:
            said["temperature"] = self.temperature
        if self.top_p is not None:
            said["top_p"] = self.top_p
        if self.presence_penalty is not None:
            said["presence_penalty"] = self.presence_penalty
        if self.frequency_penalty is not None:
            said["frequency_penalty"] = self.frequency_penalty
        if self.seed is not None:
            said["seed"] = self.seed
        if self.logit_bias is not None:
            said["logit_bias"] = self.logit_bias
        if self.parallel_tool_calls is not None:
            said["parallel_tool_calls"] = self.parallel_tool_calls
        if self.reasoning_effort is not None:
            said["reasoning_effort"] = self.reasoning_effort
        if self.user is not None:
            said["user"] = self.user
        return said


change_request = change
"""`dataclasses.replace` for a request, and much faster: `change_request(request, stream=True)`."""
