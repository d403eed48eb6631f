"""A chat request: messages, tools and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from providers.chat.messages import CacheTime, Message
from providers.value import Value, replace


class Tool(Value, frozen=True):
    """A function that the model may call."""

    name: str
    """The name of the function."""
    description: str | None = None
    """A description of the function, for the model."""
    parameters: Mapping[str, object] | None = None
    """The JSON Schema of its arguments, or None if it has none."""
    strict: bool | None = None
    """Whether the arguments must match the schema exactly."""
    cache: CacheTime | None = None
    """See `TextPart`."""
    own: Mapping[str, object] | None = None
    """The definition of the tool at Claude, such as `{"type": "bash_20250124"}`, if it is one of Claude's client tools.
    Other models get the function."""


class NamedTool(Value, frozen=True):
    """A `tool_choice`: the model must call this tool."""

    name: str
    """The name of the tool."""


class AllowedTools(Value, frozen=True):
    """A `tool_choice`: the model may call only some of the tools."""

    mode: Literal["auto", "required"]
    """`auto` if the model may call one, `required` if it must."""
    names: tuple[str, ...]
    """The names of the tools."""


ToolChoice = Literal["auto", "none", "required"] | NamedTool | AllowedTools
"""Every value of `tool_choice`."""


class JsonObjectFormat(Value, frozen=True):
    """A response format: the answer is any JSON object."""


class JsonSchemaFormat(Value, frozen=True):
    """A response format: the answer is JSON that matches a schema."""

    name: str
    """The name of the schema."""
    schema: Mapping[str, object]
    """The JSON Schema."""
    description: str | None = None
    """A description of the schema, for the model."""
    strict: bool | None = None
    """Whether the answer must match the schema exactly."""


ResponseFormat = JsonObjectFormat | JsonSchemaFormat
"""Every response format other than text."""


class ChatRequest(Value, frozen=True):
    """A chat request. None means that the client did not set the field, so the provider's default applies.

    Examples:
        >>> from providers.contract import ChatRequest, UserMessage
        >>> request = ChatRequest(model="assistant", messages=(UserMessage("Hello"),), temperature=0.2)
        >>> request.settings()
        {'temperature': 0.2}
    """

    model: str
    """The model that the client asked for. The provider's model is in the `Target`."""
    messages: tuple[Message, ...]
    """The conversation."""
    stream: bool = False
    """Whether the answer is streamed."""
    include_usage: bool = False
    """Whether the client asked for token counts at the end of the stream."""
    max_tokens: int | None = None
    """The limit of all generated tokens, reasoning included."""
    temperature: float | None = None
    """The sampling temperature."""
    top_p: float | None = None
    """The limit of nucleus sampling."""
    presence_penalty: float | None = None
    """The penalty for tokens that have occurred."""
    frequency_penalty: float | None = None
    """The penalty for tokens by how often they have occurred."""
    seed: int | None = None
    """The seed of sampling, for repeatable answers."""
    stop: tuple[str, ...] = ()
    """Stop sequences, at which the answer ends. They are not part of the answer."""
    n: int | None = None
    """The number of choices."""
    logprobs: bool | None = None
    """Whether the answer has log probabilities."""
    top_logprobs: int | None = None
    """How many alternatives of each token have log probabilities."""
    logit_bias: Mapping[str, float] | None = None
    """Biases by token id."""
    tools: tuple[Tool, ...] = ()
    """The tools that the model may call."""
    tool_choice: ToolChoice | None = None
    """Which tools it may or must call."""
    parallel_tool_calls: bool | None = None
    """Whether the model may make several calls at once."""
    response_format: ResponseFormat | None = None
    """The format of the answer, or None for text."""
    reasoning_effort: str | None = None
    """How long the model reasons: `none`, `minimal`, `low`, `medium`, `high` and others by model."""
    reasoning_budget: int | None = None
    """The tokens that the model may reason with, which a client of Claude's form states. The effort is then that of the
    budget, and never one that does not reason."""
    user: str | None = None
    """An identifier of the user."""
    place: str | None = None
    """Where the answer must be computed, as a client of Claude's form writes it: codes of territories in lower case,
    joined by `-`."""
    extra: Mapping[str, object] = {}
    """Unknown top-level fields as parsed JSON. `providers.matching` decides which are sent."""
    unread: frozenset[str] = frozenset()
    """Names of unknown inner fields, such as `messages.reasoning_details`. They are not sent."""
    folded: bool = False
    """Whether the gateway folds the stream into one JSON answer, which must be complete."""

    def settings(self) -> dict[str, object]:
        """Return the settings that OpenAI's wire format takes unchanged, without those that the client did not set."""
        settings: dict[str, object] = {}
        if self.temperature is not None:
            settings["temperature"] = self.temperature
        if self.top_p is not None:
            settings["top_p"] = self.top_p
        if self.presence_penalty is not None:
            settings["presence_penalty"] = self.presence_penalty
        if self.frequency_penalty is not None:
            settings["frequency_penalty"] = self.frequency_penalty
        if self.seed is not None:
            settings["seed"] = self.seed
        if self.logit_bias is not None:
            settings["logit_bias"] = self.logit_bias
        if self.parallel_tool_calls is not None:
            settings["parallel_tool_calls"] = self.parallel_tool_calls
        if self.reasoning_effort is not None:
            settings["reasoning_effort"] = self.reasoning_effort
        if self.user is not None:
            settings["user"] = self.user
        return settings


change_request = replace
"""Return a copy of a request with some fields changed. It is faster than `dataclasses.replace`."""
