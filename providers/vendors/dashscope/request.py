"""Write requests in DashScope's native format: `model`, `input.messages` and `parameters`.

Source: Alibaba Cloud Model Studio API reference (DashScope), its pages on structured output and deep thinking, and
dashscope 2.0.2 with the command line that it bundles; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from providers.adapter import Target
from providers.catalogue.models import ModelFacts
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    Message,
    NamedTool,
    Part,
    SystemMessage,
    TextPart,
    Tool,
    ToolChoice,
    ToolMessage,
    UserMessage,
    change_request,
    prompt_text,
    said_in,
    text_of,
)
from providers.failures import UnsupportedFeature
from providers.formats.tool_calls import FILLER_TEXT
from providers.formats.tool_results import results_as_text
from providers.openai_json.encode_request import encode_request, encode_tool_call

_BUDGET_TOKENS: Mapping[str, int] = {
    "minimal": 512,
    "low": 2048,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
    "max": 32768,
}
"""The thinking tokens for each effort. All models accept these budgets. A budget is always sent, because some models
read an absent one as 0 and refuse it."""

_AS_AT_OPENAI = (
    "max_tokens",
    "temperature",
    "top_p",
    "presence_penalty",
    "seed",
    "stop",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "tool_choice",
)
_HIGHEST_TEMPERATURE = 1.99
_LOWEST_TOP_P = 0.01
_MAX_CHOICES = 4
_MAX_SEED = 2**63 - 1
_ILLEGAL_TOOL_NAME = "search"


def is_multimodal(facts: ModelFacts) -> bool:
    """Return whether the model uses the multimodal path, by the catalogue. An unknown model uses the text path."""
    return facts.api == "multimodal"


def encode_body(request: ChatRequest, target: Target) -> tuple[dict[str, object], bool]:
    """Return the body, and whether a stream is requested.

    The request's extra parameters go into `parameters`. Values that the site pins are written last, at the top level. A
    stream is also requested for a model that only streams, and for one that thinks; the reader folds it if the client
    wants one JSON body.

    Raises:
        UnsupportedFeature: The API cannot express the request.
    """
    parameters = _parameters(request, target.facts)
    parameters.update({name: value for name, value in request.extra.items() if name not in target.pins})
    parameters.update(_thinking(request, target.facts))
    streams = (
        request.stream
        or bool(target.facts.flags & {"stream_only", "thinking_only"})
        or parameters.get("enable_thinking") is True
    )
    parameters["result_format"] = "message"
    parameters.pop("incremental_output", None)
    if streams:
        # Without this parameter, each event repeats the whole text so far.
        parameters["incremental_output"] = True
    messages = _messages(results_as_text(request.messages), is_multimodal(target.facts))
    body = {"model": target.model, "input": {"messages": messages}, "parameters": parameters}
    return {**body, **target.pins}, streams


def _parameters(request: ChatRequest, facts: ModelFacts) -> dict[str, object]:
    tools, choice = _tools(request)
    _check_json_word(request)
    # These fields have the names and formats of OpenAI's.
    plain = encode_request(
        change_request(request, messages=(), tools=tools, tool_choice=choice), "", max_tokens_field="max_tokens"
    )
    parameters = {name: plain[name] for name in _AS_AT_OPENAI if name in plain}
    if request.max_tokens is not None and facts.output_tokens is not None:
        # The provider refuses more than the model's maximum.
        parameters["max_tokens"] = min(request.max_tokens, facts.output_tokens)
    if request.temperature is not None:
        parameters["temperature"] = min(request.temperature, _HIGHEST_TEMPERATURE)
    if request.top_p == 0:
        parameters["top_p"] = _LOWEST_TOP_P
    if request.seed is not None:
        # Negative seeds are refused. Any mapping will do if the same seed gives the same number.
        parameters["seed"] = request.seed & _MAX_SEED
    if request.n is not None and request.n > 1:
        if request.n > _MAX_CHOICES or tools:
            message = f"DashScope returns at most {_MAX_CHOICES} choices, and only one if the request has tools"
            raise UnsupportedFeature("n", message)
        parameters["n"] = request.n
    if tools:
        # OpenAI's default is true, DashScope's is false.
        parameters["parallel_tool_calls"] = request.parallel_tool_calls is not False
    return parameters


def _tools(request: ChatRequest) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """Return the tools and the choice that DashScope can express. Of allowed tools, only these are sent."""
    tools, choice = request.tools, request.tool_choice
    if choice == "required" or (isinstance(choice, AllowedTools) and choice.mode == "required"):
        raise UnsupportedFeature("tool_choice_required", "DashScope does not support `required`: name one tool instead")
    if isinstance(choice, AllowedTools):
        tools, choice = tuple(tool for tool in tools if tool.name in choice.names), "auto"
    if any(tool.name == _ILLEGAL_TOOL_NAME for tool in tools):
        raise UnsupportedFeature("tools", f"DashScope refuses a tool named '{_ILLEGAL_TOOL_NAME}': rename it")
    return tuple(replace(tool, strict=None, parameters=_schema(tool)) for tool in tools), choice


def _schema(tool: Tool) -> Mapping[str, object]:
    return {"type": "object", "properties": {}} if tool.parameters is None else tool.parameters


def _check_json_word(request: ChatRequest) -> None:
    """Refuse a `json_object` format if no message contains the word "json". The provider would refuse it too.

    OpenAI has the same rule, so a client that works there works here. The gateway does not add the word, because it
    does not change prompts. A `json_schema` format needs no word.
    """
    if isinstance(request.response_format, JsonObjectFormat) and not any(
        "json" in text_of(message.content).lower()
        for message in request.messages
        if isinstance(message, SystemMessage | UserMessage)
    ):
        raise UnsupportedFeature(
            "json_object", "a system or user message must contain the word 'json' to use this response format"
        )


def _thinking(request: ChatRequest, facts: ModelFacts) -> dict[str, object]:
    """Return `enable_thinking` and `thinking_budget` as far as they must be sent; nothing if the model has no switch.

    `enable_thinking` in the request decides, or else its effort. Without both, the provider's default applies to a
    stream, and thinking is off for one JSON body, because models that think by default refuse that. Thinking is always
    off if the request forces a tool call, and with older models also for a JSON format.
    """
    always = "thinking_only" in facts.flags
    if not always and not facts.flags & {"thinking", "thinking_default"}:
        return {}
    effort, wanted = request.reasoning_effort, request.extra.get("enable_thinking")
    if isinstance(request.tool_choice, NamedTool):
        if always:
            raise UnsupportedFeature(
                "tool_choice_named", "this model always thinks, and cannot be forced to call a tool while it thinks"
            )
        return {"enable_thinking": False}
    if request.response_format is not None and "json_without_thinking" in facts.flags:
        return {"enable_thinking": False}
    enabled: bool | None = None
    if always or isinstance(wanted, bool):
        enabled = always or wanted is True
    elif effort is not None:
        enabled = effort != "none"
    elif "thinking_default" in facts.flags and (request.folded or not request.stream):
        enabled = False
    parameters: dict[str, object] = {} if always or enabled is None else {"enable_thinking": enabled}
    budgeted = "thinking_budget" not in facts.without and "thinking_budget" not in request.extra
    if enabled and effort is not None and budgeted:
        # A model that always thinks gets the smallest budget.
        budget = _BUDGET_TOKENS.get(effort, _BUDGET_TOKENS["minimal"])
        # Here `max_tokens` limits only the visible text; at OpenAI it limits the whole answer.
        parameters["thinking_budget"] = min(budget, request.max_tokens or budget)
    return parameters


def _messages(messages: Sequence[Message], multimodal: bool) -> list[dict[str, object]]:
    """Return the conversation: all system messages joined into one, first message, then the rest.

    The last message must be a user's or a tool's. If a system message was last, a filler of the user is added.
    """
    system = "\n\n".join(prompt_text(message.content) for message in messages if isinstance(message, SystemMessage))
    rest: list[Message] = [message for message in messages if not isinstance(message, SystemMessage)]
    if isinstance(messages[-1], AssistantMessage):
        raise UnsupportedFeature("prefill", "DashScope requires the last message to be the user's or a tool's")
    if not rest or isinstance(rest[-1], AssistantMessage):
        rest.append(UserMessage(FILLER_TEXT))
    if system:
        rest.insert(0, SystemMessage(system))
    return [_message(message, multimodal) for message in rest]


def _message(message: Message, multimodal: bool) -> dict[str, object]:
    match message:
        case SystemMessage(content):
            return {"role": "system", "content": _content(content, multimodal)}
        case UserMessage(content):
            return {"role": "user", "content": _content(content, multimodal)}
        case AssistantMessage(tool_calls=calls):
            # Reasoning is left out: the provider does not accept it.
            text = said_in(message)
            # A blank text is an empty list, as in the provider's own answers: the multimodal path has no strings.
            said: object = [] if multimodal and not text else _content(text, multimodal)
            body: dict[str, object] = {"role": "assistant", "content": said}
            if calls:
                body["tool_calls"] = [encode_tool_call(call) for call in calls]
            return body
        case ToolMessage(call_id, content):
            return {"role": "tool", "tool_call_id": call_id, "content": prompt_text(content)}
        case _:
            assert_never(message)


def _content(content: str | tuple[Part, ...], multimodal: bool) -> object:
    """Return a string for the text path, which accepts only strings, or a list of parts for the multimodal path."""
    parts = (TextPart(content),) if isinstance(content, str) else content
    encoded = [_part(part) for part in parts]
    if multimodal:
        return encoded
    if any(not isinstance(part, TextPart) for part in parts):
        raise UnsupportedFeature("vision", "this model accepts only text, according to its `api` in the catalogue")
    return prompt_text(content)


def _part(part: Part) -> dict[str, str]:
    match part:
        case TextPart(text):
            return {"text": text}
        case ImagePart(url):
            return {"image": url}
        case AudioPart(data, sound):
            return {"audio": f"data:audio/{sound};base64,{data}"}
        case FilePart():
            raise UnsupportedFeature("file", "DashScope does not accept documents in a message")
        case _:
            assert_never(part)
