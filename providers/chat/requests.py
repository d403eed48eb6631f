"""A chat request: messages, tools and settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from providers.chat.messages import CacheTime, Message
from providers.value import Value, replace


class Tool(Value, frozen=True):
    """A function that the model may call.

    Attributes:
        name: The name of the function.
        description: A description of the function, for the model.
        parameters: The JSON Schema of its arguments, or None if it has none.
        strict: Whether the arguments must match the schema exactly.
        cache: See `TextPart`.
        own: The definition of the tool at Claude, such as `{"type": "bash_20250124"}`, if it is one of Claude's client
            tools. Other models get the function.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, object] | None = None
    strict: bool | None = None
    cache: CacheTime | None = None
    own: Mapping[str, object] | None = None


class NamedTool(Value, frozen=True):
    """A `tool_choice`: the model must call this tool.

    Attributes:
        name: The name of the tool.
    """

    name: str


class AllowedTools(Value, frozen=True):
    """A `tool_choice`: the model may call only some of the tools.

    Attributes:
        mode: `auto` if the model may call one, `required` if it must.
        names: The names of the tools.
    """

    mode: Literal["auto", "required"]
    names: tuple[str, ...]


ToolChoice = Literal["auto", "none", "required"] | NamedTool | AllowedTools
"""Every value of `tool_choice`."""


class JsonObjectFormat(Value, frozen=True):
    """A response format: the answer is any JSON object."""


class JsonSchemaFormat(Value, frozen=True):
    """A response format: the answer is JSON that matches a schema.

    Attributes:
        name: The name of the schema.
        schema: The JSON Schema.
        description: A description of the schema, for the model.
        strict: Whether the answer must match the schema exactly.
    """

    name: str
    schema: Mapping[str, object]
    description: str | None = None
    strict: bool | None = None


ResponseFormat = JsonObjectFormat | JsonSchemaFormat
"""Every response format other than text."""


class ChatRequest(Value, frozen=True):
    """A chat request. None means that the client did not set the field, so the provider's default applies.


    Attributes:
        model: The model that the client asked for. The provider's model is in the `Target`.
        messages: The conversation.
        stream: Whether the answer is streamed.
        include_usage: Whether the client asked for token counts at the end of the stream.
        max_tokens: The limit of all generated tokens, reasoning included.
        temperature: The sampling temperature.
        top_p: The limit of nucleus sampling.
        presence_penalty: The penalty for tokens that have occurred.
        frequency_penalty: The penalty for tokens by how often they have occurred.
        seed: The seed of sampling, for repeatable answers.
        stop: Stop sequences, at which the answer ends. They are not part of the answer.
        n: The number of choices.
        logprobs: Whether the answer has log probabilities.
        top_logprobs: How many alternatives of each token have log probabilities.
        logit_bias: Biases by token id.
        tools: The tools that the model may call.
        tool_choice: Which tools it may or must call.
        parallel_tool_calls: Whether the model may make several calls at once.
        response_format: The format of the answer, or None for text.
        reasoning_effort: How long the model reasons: `none`, `minimal`, `low`, `medium`, `high` and others by model.
        reasoning_budget: The tokens that the model may reason with, which a client of Claude's form states. The effort
            is then that of the budget, and never one that does not reason.
        user: An identifier of the user.
        place: Where the answer must be computed, as a client of Claude's form writes it: codes of territories in lower
            case, joined by `-`.
        extra: Unknown top-level fields as parsed JSON. `providers.matching` decides which are sent.
        unread: Names of unknown inner fields, such as `messages.reasoning_details`. They are not sent.
        folded: Whether the gateway folds the stream into one JSON answer, which must be complete.

    Examples:
        >>> from providers.contract import ChatRequest, UserMessage
        >>> request = ChatRequest(model="assistant", messages=(UserMessage("Hello"),), temperature=0.2)
        >>> request.settings()
        {'temperature': 0.2}
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
    reasoning_budget: int | None = None
    user: str | None = None
    place: str | None = None
    extra: Mapping[str, object] = {}
    unread: frozenset[str] = frozenset()
    folded: bool = False

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
