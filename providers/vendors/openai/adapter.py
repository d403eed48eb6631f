"""The adapters for OpenAI, and for all servers with the same chat completions API.

Some of OpenAI's models reason about tools only in the Responses API. Such requests are sent there
(`responses_request`).

Source: OpenAI API reference and the official Python SDK 3.51 (request, chunk and error types), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import ClassVar, TypeGuard, cast

from providers import chat
from providers.adapter import STREAM_OPTIONS, Capabilities, StreamParser, Target
from providers.auth import AuthScheme, Bearer, NoAuth
from providers.catalogue.facts_adapter import FactsAdapter
from providers.failures import Failure, ProviderFailed
from providers.formats.fitting import fit
from providers.formats.request_options import nearest_effort
from providers.formats.tool_calls import with_object
from providers.json_values import dumps, is_json_object
from providers.matching.capability_matching import THINKS_BY_RESPONSES
from providers.matching.requirements import CACHE_CONTROL, CACHE_MARKS, FEATURES, PARAMETERS, REASONING
from providers.moderations.openai_format import OpenAIModerations
from providers.openai_json import encode_request
from providers.openai_json.fields import BREAKPOINT, breakpoint_of
from providers.openai_json.read_answer import USUAL, ChatReader, read_completion
from providers.openai_json.stream_relay import RelayingParser
from providers.reading.errors import IN_A_STREAM, classify, error_object
from providers.reading.event_stream import EventStreamParser
from providers.stated_uses import StatedUses
from providers.value import replace
from providers.vendors.openai.responses_answer import ResponseReader, is_event, is_response, read_response
from providers.vendors.openai.responses_request import encode_body, uses_responses_api
from providers.wire import WireRequest, WireResponse

_WHOLE_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))
_STREAM_HEADERS = (("content-type", "application/json"), ("accept", "text/event-stream"))
_OPENAI_MODERATIONS = OpenAIModerations(("omni-moderation-*", "text-moderation-*"), takes_images=True)
# A server of one's own, such as a webhook, may give its model any name.
_OWN_MODERATIONS = OpenAIModerations(("*",), takes_images=False, is_own=True)
_OWN_PARAMETERS = frozenset({"verbosity", "service_tier", "prediction", "prompt_cache_key", "safety_identifier"})


@dataclass(frozen=True, slots=True)
class OpenAIAdapter(StatedUses, FactsAdapter):
    """The adapter for chat completions of OpenAI, or of a compatible server."""

    facts_package: ClassVar[str] = "providers.vendors.openai"
    asks_for_usage: ClassVar[bool] = True
    cache_mark: ClassVar[str] = BREAKPOINT
    name: str
    auth: AuthScheme
    max_tokens_field: str
    """The field for the limit of the answer's tokens."""
    own_parameters: frozenset[str] = frozenset()
    """Parameters that are not canonical."""
    is_openai: bool = True
    """Whether the server is OpenAI's own. Others get no fields that only OpenAI has."""

    @property
    def capabilities(self) -> Capabilities:
        """All features and parameters: the canonical request is modelled on this API."""
        return Capabilities(FEATURES, PARAMETERS | self.own_parameters)

    @property
    def moderations(self) -> OpenAIModerations:
        return _OPENAI_MODERATIONS if self.is_openai else _OWN_MODERATIONS

    def build_request(self, request: chat.ChatRequest, target: Target) -> WireRequest:
        takes_marks = CACHE_MARKS in target.facts.flags
        request, lost = _with_breakpoints(request) if takes_marks else (request, frozenset[str]())
        request, changed = fit(request, self.takes)
        changed |= lost
        if not self.is_openai:
            request = _without_openai_only_fields(request)
        facts = target.facts
        if request.reasoning_effort is not None and facts.efforts:
            effort = nearest_effort(request.reasoning_effort, facts.efforts, request.reasoning_budget)
            request = replace(request, reasoning_effort=effort)
        if request.logprobs is False and "logprobs" not in facts.features:
            # `false` is the default, and some models refuse the field.
            request = replace(request, logprobs=None)
        headers = _STREAM_HEADERS if request.stream else _WHOLE_HEADERS
        if THINKS_BY_RESPONSES in facts.flags and uses_responses_api(request, facts):
            data = dumps(encode_body(request, target))
            return WireRequest("POST", f"{target.base_path}/responses", headers, data, changed=changed)
        body = encode_request(
            request,
            target.model,
            max_tokens_field=self.max_tokens_field,
            with_reasoning=REASONING in self.own_parameters,
            mark=breakpoint_of if takes_marks else None,
        )
        if request.stream and STREAM_OPTIONS in facts.without:
            del body[STREAM_OPTIONS]
        if request.extra:
            body.update(request.extra)
        if target.pins:
            body.update(target.pins)
        return WireRequest("POST", f"{target.base_path}/chat/completions", headers, dumps(body), changed=changed)

    def parse_response(self, response: WireResponse, target: Target) -> chat.ChatCompletion:
        try:
            return read_completion(response, target.model, USUAL.of_server(target.facts.flags))
        except ProviderFailed:
            if is_response(error_object(response.body)):
                return read_response(response, target.model)
            raise

    def stream_parser(self, target: Target) -> StreamParser:
        rule = USUAL.of_server(target.facts.flags)
        answer = ChatReader(target.model, rule)
        end = None if self.is_openai else answer.end
        if rule.inline_thoughts:
            return EventStreamParser(answer.assembler, answer.read_chunk, end=end)
        if THINKS_BY_RESPONSES not in target.facts.flags:
            return RelayingParser(answer.assembler, answer.read_chunk, end)
        reader = ResponseReader(answer.assembler, target.model)

        def read(chunk: Mapping[str, object], event: str) -> None:
            """Read a chunk of either API. Its form shows which one it belongs to."""
            if is_event(chunk):
                reader.read_event(chunk)
            elif is_response(chunk):
                reader.end(chunk, IN_A_STREAM)
            else:
                answer.read_chunk(chunk, event)

        return RelayingParser(answer.assembler, read)

    def classify_error(self, response: WireResponse) -> Failure:
        return classify(error_object(response.body), response)


def _with_breakpoints(request: chat.ChatRequest) -> tuple[chat.ChatRequest, frozenset[str]]:
    """Return the request with each mark at an input, and the name of a mark if one is lost.

    A mark on a text or a call of the assistant moves to the nearest part before it that may have one. Without one it is
    lost, and so is that of a tool. That of a whole request is what the vendor does without being asked.
    """
    if CACHE_CONTROL in request.extra:
        request = replace(request, extra={name: it for name, it in request.extra.items() if name != CACHE_CONTROL})
    is_lost = any(tool.cache is not None for tool in request.tools)
    if is_lost:
        request = replace(request, tools=tuple(replace(tool, cache=None) for tool in request.tools))
    if type(request.messages) is chat.Texts:
        return request, frozenset({CACHE_CONTROL} if is_lost else ())
    messages: list[chat.Message] = []
    for message in request.messages:
        if isinstance(message, chat.AssistantMessage):
            parts, calls = message.content if isinstance(message.content, tuple) else (), message.tool_calls
            times: list[chat.CacheTime | None] = [*(part.cache for part in parts), *(call.cache for call in calls)]
            time = next((it for it in times if it is not None), None)
            if time is not None:
                is_lost |= not _mark_before(messages, time)
                content = tuple(replace(part, cache=None) for part in parts) or message.content
                message = replace(message, content=content, tool_calls=tuple(replace(it, cache=None) for it in calls))
        messages.append(message)
    return replace(request, messages=tuple(messages)), frozenset({CACHE_CONTROL} if is_lost else ())


def _mark_before(messages: list[chat.Message], time: chat.CacheTime) -> bool:
    """Mark the last input before the end, and return whether there is one."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if isinstance(message, chat.AssistantMessage) or not message.content:
            continue
        if isinstance(message, chat.ToolMessage):
            messages[at] = replace(message, cache=message.cache or time)
            return True
        parts: Sequence[chat.Part] = (
            (chat.TextPart(message.content),) if isinstance(message.content, str) else message.content
        )
        for place in range(len(parts) - 1, -1, -1):
            part = parts[place]
            if not isinstance(part, chat.AudioPart):
                marked = (*parts[:place], replace(part, cache=part.cache or time), *parts[place + 1 :])
                messages[at] = replace(message, content=cast("tuple[chat.TextPart, ...]", marked))
                return True
    return False


def _without_openai_only_fields(request: chat.ChatRequest) -> chat.ChatRequest:
    """Replace what only OpenAI has: the role `developer`, `refusal`, `detail: original`, null, and some of the tools.

    Arguments in the history that are not a JSON object become one, because servers parse them for a chat template.
    Null next to a call becomes "", which strict servers demand. Instead of the choice among some of the tools, only the
    allowed tools are sent. A tool without parameters gets an empty schema.
    """
    if isinstance(choice := request.tool_choice, chat.AllowedTools):
        tools = tuple(tool for tool in request.tools if tool.name in choice.names)
        request = replace(request, tools=tools, tool_choice=choice.mode)
    if any(tool.parameters is None for tool in request.tools):
        empty = {"type": "object", "properties": {}}
        tools = tuple(it if it.parameters is not None else replace(it, parameters=empty) for it in request.tools)
        request = replace(request, tools=tools)
    if type(request.messages) is chat.Texts:
        return request
    messages = tuple([_without_openai_only(message) for message in request.messages])
    return request if all(map(is_, messages, request.messages)) else replace(request, messages=messages)


def _without_openai_only(message: chat.Message) -> chat.Message:
    if type(message) is chat.AssistantMessage and not all(is_json_object(it.arguments) for it in message.tool_calls):
        message = replace(message, tool_calls=tuple(map(with_object, message.tool_calls)))
    match message:
        case chat.SystemMessage(role="developer"):
            return replace(message, role="system")
        case chat.AssistantMessage(refusal=str(refusal)):
            return replace(message, content=chat.text_of(message.content) + refusal, refusal=None)
        case chat.AssistantMessage(content=None):
            return replace(message, content="")
        case chat.UserMessage(content=tuple(parts)) | chat.ToolMessage(content=tuple(parts)) if any(
            map(_is_original, parts)
        ):
            nearest = (replace(part, detail="high") if _is_original(part) else part for part in parts)
            return replace(message, content=tuple(nearest))
        case _:
            return message


def _is_original(part: chat.Part) -> TypeGuard[chat.ImagePart]:
    return type(part) is chat.ImagePart and part.detail == "original"


ADAPTER = OpenAIAdapter("openai", Bearer(), "max_completion_tokens", _OWN_PARAMETERS)
COMPATIBLE = OpenAIAdapter("openai-compatible", NoAuth(), "max_tokens", frozenset({REASONING}), is_openai=False)
