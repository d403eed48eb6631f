"""Read a request of OpenAI's Responses API as a chat request.

Source: the official Python SDK 3.51 (`ResponseCreateParams`, `ResponseInputItemParam`) and the source code of Codex
0.169, read 2026-11-23; the SDK 3.57, read 2026-11-29.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.api.dialects.responses.echo import echo_of
from gateway.api.dialects.responses.input_items import InputReader, tools_in
from gateway.api.dialects.responses.tools import ToolNames, decode_tool_choice, decode_tools
from gateway.api.dialects.schema import NOTHING
from gateway.api.errors import ApiError
from providers.chat import ChatRequest, JsonObjectFormat, Message, ResponseFormat, Tool
from providers.failures import InvalidRequest
from providers.openai_json import fields as json_fields
from providers.openai_json.decode_request import (
    CHECKS,
    EFFORTS,
    MAX_MESSAGES,
    READERS,
    check_unknown,
    decode_schema_format,
)
from providers.openai_json.plain_request import plain_messages
from providers.value import Value

_ENCRYPTED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_MOST_INPUT_TOKENS = 2**31 - 1
_MOST_METADATA = 16
_SEND_ALL = "send the whole conversation in `input` of each request, and leave the field out"
_PREVIOUS = "previous_response_id"
_STATEFUL = {
    "conversation": f"keeps the conversation at the provider: {_SEND_ALL}",
    "prompt": "refers to a template kept at a provider: send its text in `instructions`",
    "context_management": f"keeps state at the provider: {_SEND_ALL}",
    "generate": "belongs to a WebSocket: leave it out, because a POST is always answered",
    "stream_id": "belongs to a WebSocket: leave it out, because each POST has a stream of its own",
}
"""Fields that keep or use state, or that only a turn on a WebSocket has, with the form that does not."""
_SWITCHES = {
    "store": f"keeps the conversation at the provider: {_SEND_ALL}",
    "background": "keeps the answer at the provider: leave it out, and set `stream` to true for a long answer",
}
"""Fields that are refused if they are true, with the form that keeps no state."""
NAMES_OF_CHAT = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
"""The names of fields here, by their name in chat completions."""
_OF_CHAT = {**NAMES_OF_CHAT, "functions": "tools", "function_call": "tool_choice"}
"""Fields of chat completions that have another name here. Without them the answer would differ."""
_UNUSED = frozenset({"client_metadata", "max_tool_calls", "image", "access_programs", "background_options"})
"""Fields that no provider gets: identifiers that Codex adds, and settings of hosted tools."""
_SAME_AS_IN_CHAT = frozenset(
    "temperature top_p presence_penalty frequency_penalty seed stop logit_bias parallel_tool_calls user".split()
)
_OWN = frozenset({"tools", "tool_choice", "include", "top_logprobs", *_SWITCHES})
_TEXT = frozenset({"format", "verbosity"})
_UPDATED = {"reasoning": "effort", "text": "format"}
"""What an item `configuration_update` may change."""
_FORMAT = frozenset({"type", "name", "schema", "description", "strict"})
_PLAIN_FIELDS = frozenset({"model", "input", "instructions", "stream", "max_output_tokens", "temperature", "top_p"})


class MessagePaths(Value, frozen=True):
    """The paths of the messages in the client's request, for error messages.

    `of_messages` is empty if each item of `input` is a message, from the message `first_item` on.
    """

    of_messages: tuple[str, ...] = ()
    first_item: int = 0

    def path_of(self, position: int) -> str:
        """Return the path of a message in the client's request."""
        if not self.of_messages:
            return f"input[{position - self.first_item}]" if position >= self.first_item else "instructions"
        return self.of_messages[position] if position < len(self.of_messages) else "input"


class DecodedResponse(Value, frozen=True):
    """A request as it was read, and the members of it that its answer repeats.

    With `wants_state`, the client takes the reasoning state of a model as `encrypted_content`.
    """

    request: ChatRequest
    paths: MessagePaths
    names: ToolNames
    wants_state: bool
    echo: Mapping[str, object]


class _RareFields(Value, frozen=True):
    """The fields that few requests have: canonical fields by name, other fields, and tools."""

    fields: Mapping[str, Any]
    extra: Mapping[str, object]
    tools: tuple[Tool, ...] = ()
    wants_state: bool = False


_NO_RARE_FIELDS = _RareFields({}, {})


def decode_request(body: object, *, counts: bool = False) -> DecodedResponse:
    """Return the request in a parsed body. With `counts`, `instructions` or `tools` may stand without `input`.

    Raises:
        ApiError: The request continues an answer, and none is kept.
        InvalidRequest: The body breaks a rule of the API, or asks for state at a provider; the message names the field.
        UnsupportedFeature: A field is valid at OpenAI, but has no form in a chat.
    """
    source = json_fields.mapping(body, "")
    is_plain = source.keys() <= _PLAIN_FIELDS
    if not is_plain:
        _refuse_state(source)
    if source.get("model") is None or source.get("input") is None:
        _refuse_fields_of_chat(source)
    model = json_fields.text(source, "model", "model")
    if not model:
        raise InvalidRequest("`model` is required: the name of an assistant", "model")
    # A request whose tokens are counted may be without input.
    has_others = source.get("input") in (None, []) and bool(source.get("instructions") or source.get("tools"))
    given = "" if counts and has_others else json_fields.present(source, "input", "input")
    instructions = json_fields.text(source, "instructions", "instructions")
    stream = json_fields.boolean(source, "stream", "stream") or False
    names, unread = ToolNames(), set[str]()
    more = tools_in(given) if isinstance(given, list) else []
    rare = _NO_RARE_FIELDS if is_plain and not more else _rare_fields(source, names, unread, more)
    fields = dict(rare.fields)
    messages, paths = _messages(given, instructions, names, unread, fields)
    if rare.extra or unread:
        check_unknown(rare.extra, unread)
    request = ChatRequest(
        model,
        messages,
        stream,
        include_usage=True,
        max_tokens=json_fields.integer(source, "max_output_tokens", "max_output_tokens", 1, _MOST_INPUT_TOKENS),
        temperature=json_fields.number(source, "temperature", "temperature", 0, 2),
        top_p=json_fields.number(source, "top_p", "top_p", 0, 1),
        tools=rare.tools,
        extra=rare.extra,
        unread=frozenset(unread),
        **fields,
    )
    return DecodedResponse(
        request,
        MessagePaths(paths, 1 if instructions else 0),
        names,
        rare.wants_state,
        echo_of(source, rare.tools, names),
    )


def _refuse_fields_of_chat(source: Mapping[str, object]) -> None:
    for name, other in _OF_CHAT.items():
        if source.get(name) is not None:
            raise InvalidRequest(f"`{name}` is a field of chat completions; use `{other}` here", name)


def _messages(
    given: object, instructions: str | None, names: ToolNames, unread: set[str], fields: dict[str, Any]
) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """Return the conversation, and the path of each message. Items that change how the model answers set `fields`."""
    if isinstance(given, str):
        entries: list[object] = [{"role": "user", "content": given}]
        input_paths: tuple[str, ...] = ("instructions", "input") if instructions else ("input",)
    else:
        entries = json_fields.items(given, "input", at_most=MAX_MESSAGES)
        input_paths = ()
    if not entries:
        raise InvalidRequest("`input` must not be empty", "input")
    with_instructions = [{"role": "system", "content": instructions}, *entries] if instructions else entries
    if (texts := plain_messages(with_instructions, MAX_MESSAGES + 1)) is not None:
        return texts, input_paths
    reader = InputReader(names)
    if instructions:
        reader.add_instructions(instructions)
    reader.read(entries)
    unread |= reader.unread
    for path, update in reader.updates:
        _read_update(path, update, fields, unread)
    if not reader.messages:
        raise InvalidRequest("`input` has no message", "input")
    return tuple(reader.messages), tuple(reader.paths)


def _read_update(path: str, update: Mapping[str, object], fields: dict[str, Any], unread: set[str]) -> None:
    """Read an item whose settings stand in place of those of the request, until a later item states them again."""
    left_out = update.keys() - _UPDATED.keys() - {"type", "id"}
    for name, member in _UPDATED.items():
        if update.get(name) is None:
            continue
        stated = json_fields.mapping(update[name], f"{path}.{name}")
        left_out |= stated.keys() - {member}
        if stated.get(member) is None:
            continue
        place = f"{path}.{name}.{member}"
        if name == "reasoning":
            fields["reasoning_effort"] = json_fields.choice(stated[member], place, EFFORTS)
        else:
            fields["response_format"] = _format(json_fields.mapping(stated[member], place), unread, place)
    if left_out:
        unread.add("input.configuration_update")


def _rare_fields(
    source: Mapping[str, object], names: ToolNames, unread: set[str], more: list[tuple[str, object]]
) -> _RareFields:
    """Read the fields that few requests have. Raises InvalidRequest or UnsupportedFeature."""
    _refuse_fields_of_chat(source)
    fields: dict[str, Any] = {}
    extra: dict[str, object] = {}
    tools = decode_tools(source.get("tools"), names, unread, more)
    for name, value in source.items():
        if value is None or name in _PLAIN_FIELDS:
            continue
        if name in _SAME_AS_IN_CHAT:
            fields[name] = READERS[name](source, name)
        elif (read := _READ.get(name)) is not None:
            read(value, fields, extra, unread)
        elif name in _UNUSED:
            unread.add(name)
        elif name not in _OWN and _is_kept(source, name):
            extra[name] = value
    if not tools:
        fields.pop("parallel_tool_calls", None)
    fields["tool_choice"] = decode_tool_choice(source.get("tool_choice"), tools, names, unread)
    wants_state, wants_logprobs = _read_include(source.get("include"), unread)
    most = json_fields.integer(source, "top_logprobs", "top_logprobs", 0, 20)
    if wants_logprobs or most:
        fields["logprobs"], fields["top_logprobs"] = True, most
    return _RareFields(fields, extra, tools, wants_state)


def _refuse_state(source: Mapping[str, object]) -> None:
    """Refuse what needs an answer or a conversation that is kept. Raises ApiError or InvalidRequest."""
    if source.get(_PREVIOUS) is not None:
        message = f"`{_PREVIOUS}` refers to an answer, and the gateway keeps none: {_SEND_ALL}"
        raise ApiError("previous_response_not_found", message, _PREVIOUS)
    for name, problem in _STATEFUL.items():
        if source.get(name) not in NOTHING:
            raise InvalidRequest(f"`{name}` {problem}", name)
    for name, problem in _SWITCHES.items():
        if json_fields.boolean(source, name, name):
            raise InvalidRequest(f"`{name}: true` {problem}", name)


def _is_kept(source: Mapping[str, object], name: str) -> bool:
    """Check a field of which chat completions has one with the same name and meaning."""
    if name == "n":
        if json_fields.integer(source, name, name, 1, 128) != 1:
            raise InvalidRequest("`n` must be 1: an answer of this API has one choice; send several requests", name)
        return False
    return name not in CHECKS or CHECKS[name](source, name)


def _read_text(value: object, fields: dict[str, Any], extra: dict[str, object], unread: set[str]) -> None:
    source = json_fields.mapping(value, "text")
    unread.update(f"text.{name}" for name in source.keys() - _TEXT if source[name] is not None)
    if source.get("verbosity") is not None:
        extra["verbosity"] = json_fields.choice(source["verbosity"], "text.verbosity", ("low", "medium", "high"))
    if source.get("format") is not None:
        fields["response_format"] = _format(json_fields.mapping(source["format"], "text.format"), unread)


def _format(source: Mapping[str, object], unread: set[str], path: str = "text.format") -> ResponseFormat | None:
    unread.update(f"text.format.{name}" for name in source.keys() - _FORMAT if source[name] is not None)
    kind = json_fields.choice(source.get("type"), f"{path}.type", ("text", "json_object", "json_schema"))
    if kind == "text":
        return None
    return JsonObjectFormat() if kind == "json_object" else decode_schema_format(source, path)


def _read_reasoning(value: object, fields: dict[str, Any], extra: dict[str, object], unread: set[str]) -> None:
    source = json_fields.mapping(value, "reasoning")
    # Summaries are shown wherever the model gives them, so only the choice among their kinds is lost.
    unread.update(f"reasoning.{name}" for name in source.keys() - {"effort"} if source[name] is not None)
    if source.get("effort") is not None:
        fields["reasoning_effort"] = json_fields.choice(source["effort"], "reasoning.effort", EFFORTS)


def _read_truncation(value: object, fields: dict[str, Any], extra: dict[str, object], unread: set[str]) -> None:
    if json_fields.choice(value, "truncation", ("auto", "disabled")) == "auto":
        unread.add("truncation")


def _read_stream_options(value: object, fields: dict[str, Any], extra: dict[str, object], unread: set[str]) -> None:
    source = json_fields.mapping(value, "stream_options")
    # Streams have no padding, so `include_obfuscation: false` is fulfilled.
    unread.update(f"stream_options.{name}" for name, wanted in source.items() if wanted)


def _read_metadata(value: object, fields: dict[str, Any], extra: dict[str, object], unread: set[str]) -> None:
    if len(json_fields.mapping(value, "metadata")) > _MOST_METADATA:
        raise InvalidRequest(f"`metadata` has more than {_MOST_METADATA} entries: send fewer", "metadata")
    extra["metadata"] = value


def _read_cache_options(value: object, fields: dict[str, Any], extra: dict[str, object], unread: set[str]) -> None:
    name = "prompt_cache_options"
    json_fields.check_cache_options({name: value}, name)
    unread.update(json_fields.lost_cache_options(json_fields.mapping(value, name)))


_Reader = Callable[[object, dict[str, Any], dict[str, object], set[str]], None]
_READ: dict[str, _Reader] = {
    "text": _read_text,
    "reasoning": _read_reasoning,
    "truncation": _read_truncation,
    "stream_options": _read_stream_options,
    "metadata": _read_metadata,
    "prompt_cache_options": _read_cache_options,
}


def _read_include(value: object, unread: set[str]) -> tuple[bool, bool]:
    """Return whether reasoning state and log probabilities are wanted. Other parts belong to hosted tools."""
    if value is None:
        return False, False
    wanted = json_fields.items(value, "include", at_most=_MOST_METADATA)
    for position, entry in enumerate(wanted):
        if not isinstance(entry, str):
            place = f"include[{position}]"
            raise InvalidRequest(f"`{place}` must be a string", place)
    if any(entry not in (_ENCRYPTED, _LOGPROBS) for entry in wanted):
        unread.add("include")
    return _ENCRYPTED in wanted, _LOGPROBS in wanted
