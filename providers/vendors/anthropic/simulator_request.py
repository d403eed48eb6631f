"""Read a request as Anthropic does, and refuse what Anthropic answers with 400.

Source: anthropic 2.10.0 (MessageParam and its blocks), platform.claude.com on tool use, thinking and prefill; read
2026-11-20.
Source: anthropic 2.10.0 (MessageCreateParams) and public captures of 400 bodies; read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from providers.catalogue.models import ModelFacts
from providers.chat import (
    AssistantMessage,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Part,
    ResponseFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from providers.failures import InvalidRequest
from providers.json_values import as_list, as_map, dumps_text
from providers.openai_json.fields import boolean, choice, integer, items, mapping, number, present, text
from providers.testkit.request_checks import known

_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


_OURS = "simulated thought of "


@dataclass(frozen=True, slots=True)
class MessageRules:
    """In what models differ: whether the assistant's turn may be the last, and whether calls need their thoughts."""

    model: str
    prefill: bool
    thoughtful: bool


def signature_of(model: str, thought: str) -> str:
    """The signature by which this model knows its thought again."""
    return base64.b64encode(f"{_OURS}{model}: {zlib.crc32(thought.encode('utf-8', 'replace')):08x}".encode()).decode()


def text_blocks(value: object, place: str) -> tuple[str, ...]:
    """The texts of a content that may hold nothing else."""
    if isinstance(value, str):
        return (_spoken(value, place),)
    texts: list[str] = []
    for position, entry in enumerate(items(value, place)):
        block = known(entry, f"{place}.{position}", ("type", "text", "cache_control"))
        choice(block.get("type"), f"{place}.{position}.type", ("text",))
        texts.append(_spoken(text(block, "text", f"{place}.{position}.text"), f"{place}.{position}"))
    return tuple(texts)


def read_turns(entries: Sequence[object], rules: MessageRules) -> tuple[Message, ...]:
    """The messages; raises InvalidRequest. Neighbours of one role are one turn."""
    messages: list[Message] = []
    turns = list(_turns(entries))
    if turns and turns[0][0] == "assistant":
        raise InvalidRequest('messages: first message must use the "user" role', "messages")
    last_answer = max((number for number, turn in enumerate(turns) if turn[0] == "assistant"), default=-1)
    calls: tuple[ToolCall, ...] = ()
    taken: set[str] = set()
    for position, (role, blocks, place) in enumerate(turns):
        if role == "assistant":
            message = _assistant(blocks, rules.model, place, is_last=position == len(turns) - 1)
            unthought = blocks[0].get("type") not in ("thinking", "redacted_thinking")
            if message.tool_calls and rules.thoughtful and unthought and position == last_answer:
                text_of_it = "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
                raise InvalidRequest(f"{place}: {text_of_it}", place)
            calls = message.tool_calls
            if any(call.id in taken for call in calls):
                raise InvalidRequest(f"{place}: `tool_use` ids must be unique", place)
            taken.update(call.id for call in calls)
            messages.append(message)
            continue
        results = [block for block in blocks if block.get("type") == "tool_result"]
        rest = blocks[len(results) :]
        if blocks[: len(results)] != results:
            raise InvalidRequest(f"{place}: tool_result blocks must come first", place)
        messages += _results(results, calls, place)
        calls = ()
        if rest:
            parts = tuple(_part(block, place) for block in rest)
            alone = parts[0].text if len(parts) == 1 and isinstance(parts[0], TextPart) else parts
            messages.append(UserMessage(alone))
    if calls:
        names = ", ".join(call.id for call in calls)
        raise InvalidRequest(f"`tool_use` ids were found without `tool_result` blocks: {names}", "messages")
    if turns and turns[-1][0] == "assistant" and not rules.prefill:
        message_text = "This model does not support assistant message prefill."
        raise InvalidRequest(f"{message_text} The conversation must end with a user message.", "messages")
    return tuple(messages)


def _turns(entries: Sequence[object]) -> Iterator[tuple[str, list[Mapping[str, object]], str]]:
    current: tuple[str, list[Mapping[str, object]], str] | None = None
    for position, entry in enumerate(entries):
        place = f"messages.{position}"
        message = known(entry, place, ("role", "content"))
        role = choice(message.get("role"), f"{place}.role", ("user", "assistant"))
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else items(content, f"{place}.content")
        if not blocks:
            raise InvalidRequest(f"{place}: {role} messages must have non-empty content", place)
        found = [mapping(block, f"{place}.content") for block in blocks]
        if current is not None and current[0] == role:
            current[1].extend(found)
            continue
        if current is not None:
            yield current
        current = (role, found, place)
    if current is not None:
        yield current


def _spoken(value: str | None, place: str) -> str:
    if value is None or not value.strip():
        raise InvalidRequest(f"{place}: text content blocks must contain non-whitespace text", place)
    return value


def _part(block: Mapping[str, object], place: str) -> Part:
    match block.get("type"):
        case "text":
            members = known(block, place, ("type", "text", "cache_control", "citations"))
            return TextPart(_spoken(text(members, "text", f"{place}.text"), place))
        case "image":
            return ImagePart(_image(known(block, place, ("type", "source", "cache_control")), place))
        case "document":
            return _document(known(block, place, ("type", "source", "title", "context", "citations")), place)
        case other:
            raise InvalidRequest(
                f"{place}: Input tag {str(other)[:40]!r} does not match any of the expected tags", place
            )


def _image(block: Mapping[str, object], place: str) -> str:
    source = mapping(block.get("source"), f"{place}.source")
    if source.get("type") == "url":
        url = text(known(source, place, ("type", "url")), "url", f"{place}.source.url")
        if not url or not url.startswith(("https://", "http://")):
            raise InvalidRequest(f"{place}: Only HTTP and HTTPS URLs are supported.", place)
        return url
    known(source, place, ("type", "media_type", "data"))
    choice(source.get("type"), f"{place}.source.type", ("base64",))
    mime = choice(source.get("media_type"), f"{place}.source.base64.media_type", _IMAGE_TYPES)
    return f"data:{mime};base64,{_base64(source, place)}"


def _document(block: Mapping[str, object], place: str) -> FilePart:
    source = known(block.get("source"), place, ("type", "media_type", "data"))
    title = text(block, "title", f"{place}.title")
    if choice(source.get("type"), f"{place}.source.type", ("base64", "text")) == "text":
        choice(source.get("media_type"), f"{place}.source.media_type", ("text/plain",))
        said = text(source, "data", f"{place}.source.data") or ""
        return FilePart(f"data:text/plain;base64,{base64.b64encode(said.encode()).decode()}", title)
    mime = choice(source.get("media_type"), f"{place}.source.media_type", ("application/pdf",))
    return FilePart(f"data:{mime};base64,{_base64(source, place)}", title)


def _base64(source: Mapping[str, object], place: str) -> str:
    data = text(source, "data", f"{place}.source.data") or ""
    try:
        if not base64.b64decode(data, validate=True):
            raise InvalidRequest(f"{place}.source: data cannot be empty", place)
    except binascii.Error:
        raise InvalidRequest(f"{place}.source.base64.data: invalid base64 data", place) from None
    return data


def _assistant(blocks: Sequence[Mapping[str, object]], model: str, place: str, *, is_last: bool) -> AssistantMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        match block.get("type"):
            case "text":
                members = known(block, place, ("type", "text", "cache_control", "citations"))
                texts.append(_spoken(text(members, "text", f"{place}.text"), place))
            case "thinking":
                thoughts.append(_thought(block, model, place))
            case "redacted_thinking":
                data = text(known(block, place, ("type", "data")), "data", f"{place}.data")
                _check_signature(data, "", model, place)
            case "tool_use":
                calls.append(_call(block, place))
            case other:
                raise InvalidRequest(f"{place}: Input tag {str(other)[:40]!r} is not expected here", place)
    if is_last and texts and texts[-1] != texts[-1].rstrip():
        raise InvalidRequest("final assistant content cannot end with trailing whitespace", place)
    if len({call.id for call in calls}) < len(calls):
        raise InvalidRequest(f"{place}: `tool_use` ids must be unique", place)
    return AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, tuple(calls))


def _thought(block: Mapping[str, object], model: str, place: str) -> str:
    members = known(block, place, ("type", "thinking", "signature"))
    said = text(members, "thinking", f"{place}.thinking") or ""
    _check_signature(text(members, "signature", f"{place}.signature"), said, model, place)
    return said


def _check_signature(signature: str | None, thought: str, model: str, place: str) -> None:
    """A thought that was changed, or that another model had, is refused; one of before the simulation is believed."""
    if not signature:
        raise InvalidRequest(f"{place}: signature: Field required", place)
    try:
        said = base64.b64decode(signature, validate=True).decode("utf-8", "replace")
    except binascii.Error:
        raise InvalidRequest(f"{place}: Invalid `signature` in `thinking` block", place) from None
    if said.startswith(_OURS) and signature != signature_of(model, thought):
        raise InvalidRequest(f"{place}: Invalid `signature` in `thinking` block", place)


def _call(block: Mapping[str, object], place: str) -> ToolCall:
    members = known(block, place, ("type", "id", "name", "input", "cache_control"))
    name, call_id = text(members, "name", f"{place}.name"), text(members, "id", f"{place}.id")
    if not call_id or not _ID.fullmatch(call_id):
        raise InvalidRequest(f"{place}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'", place)
    if not name or not _NAME.fullmatch(name):
        raise InvalidRequest(f"{place}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'", place)
    return ToolCall(call_id, name, dumps_text(mapping(members.get("input"), f"{place}.tool_use.input")))


def _results(results: Sequence[Mapping[str, object]], calls: Sequence[ToolCall], place: str) -> list[ToolMessage]:
    waiting = [call.id for call in calls]
    messages: list[ToolMessage] = []
    for entry in results:
        result = known(entry, place, ("type", "tool_use_id", "content", "is_error", "cache_control"))
        call_id = text(result, "tool_use_id", f"{place}.tool_use_id") or ""
        if call_id not in waiting:
            raise InvalidRequest(f"{place}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}", place)
        waiting.remove(call_id)
        content = result.get("content")
        said = content if isinstance(content, str) else "".join(text_blocks(content, place)) if content else ""
        messages.append(ToolMessage(call_id, said))
    if waiting:
        raise InvalidRequest(f"{place}: `tool_use` ids were found without `tool_result` blocks: {waiting[0]}", place)
    return messages


_READ_FIELDS = (
    "model",
    "messages",
    "max_tokens",
    "system",
    "stop_sequences",
    "stream",
    "temperature",
    "top_p",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "metadata",
)


_OTHER_FIELDS = (
    "top_k",
    "service_tier",
    "speed",
    "cache_control",
    "container",
    "inference_geo",
    "diagnostics",
    "user_profile_id",
)


_SAMPLING = ("temperature", "top_p", "top_k")


_TOOL_FIELDS = ("type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming")


_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


_EFFORTS = ("low", "medium", "high", "xhigh", "max")


_BUDGETS = ((2048, "low"), (8192, "medium"))


_BEYOND_SCHEMA = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems pattern".split()
)


_GEOS = ("global", "us")


_SUPPORTED_GEO_FROM = re.compile(r"claude-([a-z]+-5|[a-z]+-4-[6-9])(-|$)")


_CLASSIC = "2023-06-01"


def read_body(value: object, facts: ModelFacts, version: str) -> ChatRequest:
    """The request; raises InvalidRequest."""
    body = known(value, "request", (*_READ_FIELDS, *_OTHER_FIELDS))
    model = text(body, "model", "model")
    if not model:
        raise InvalidRequest("model: Field required", "model")
    max_tokens = integer(
        {"max_tokens": present(body, "max_tokens", "max_tokens")}, "max_tokens", "max_tokens", 1, 2**31
    )
    _refuse_what_the_model_lacks(body, facts, version, max_tokens or 0)
    tools = _tools(body)
    selected, parallel = _tool_choice(body, tools, facts)
    effort = _effort(body, facts, max_tokens or 0, forced=selected == "required" or isinstance(selected, NamedTool))
    thoughtful = as_map(body.get("thinking")).get("type") == "enabled"
    rules = MessageRules(model, "prefill" in facts.features, thoughtful)
    entries = items(present(body, "messages", "messages"), "messages")
    if not entries:
        raise InvalidRequest("messages: at least one message is required", "messages")
    messages = read_turns(entries, rules)
    if not tools and any(isinstance(message, AssistantMessage) and message.tool_calls for message in messages):
        raise InvalidRequest("Requests which include `tool_use` or `tool_result` blocks must define tools", "tools")
    system = text_blocks(body["system"], "system") if body.get("system") is not None else ()
    metadata = known(body.get("metadata") or {}, "metadata", ("user_id",))
    return ChatRequest(
        model=model,
        messages=(*(SystemMessage(one) for one in system), *messages),
        stream=boolean(body, "stream", "stream") or False,
        include_usage=True,
        max_tokens=max_tokens,
        temperature=number(body, "temperature", "temperature", 0, 1),
        top_p=number(body, "top_p", "top_p", 0, 1),
        stop=_stops(body),
        tools=tools,
        tool_choice=selected,
        parallel_tool_calls=parallel,
        response_format=_format(body),
        reasoning_effort=effort,
        user=text(metadata, "user_id", "metadata.user_id"),
        extra={name: body[name] for name in _OTHER_FIELDS if body.get(name) is not None},
    )


def _refuse_what_the_model_lacks(body: Mapping[str, object], facts: ModelFacts, version: str, max_tokens: int) -> None:
    for name in _SAMPLING:
        if body.get(name) is not None and (version != _CLASSIC or name in facts.without):
            raise InvalidRequest(f"{name}: is not supported by this model or API version", name)
    if facts.output_tokens is not None and max_tokens > facts.output_tokens:
        message = f"max_tokens: {max_tokens} > {facts.output_tokens}, which is the maximum allowed for this model"
        raise InvalidRequest(message, "max_tokens")
    geo = body.get("inference_geo")
    if geo is not None:
        choice(geo, "inference_geo", _GEOS)
        if not _SUPPORTED_GEO_FROM.match(str(body.get("model"))):
            raise InvalidRequest("inference_geo: is not supported by this model", "inference_geo")


def _stops(body: Mapping[str, object]) -> tuple[str, ...]:
    stops = items(body.get("stop_sequences") or [], "stop_sequences")
    if not all(isinstance(stop, str) and stop.strip() for stop in stops):
        raise InvalidRequest("stop_sequences: each stop sequence must contain non-whitespace", "stop_sequences")
    return tuple(str(stop) for stop in stops)


def _tools(body: Mapping[str, object]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for position, entry in enumerate(items(body.get("tools") or [], "tools")):
        place = f"tools.{position}"
        tool = known(entry, place, _TOOL_FIELDS)
        name = text(tool, "name", f"{place}.name")
        if not name or not _TOOL_NAME.fullmatch(name):
            raise InvalidRequest(f"{place}.custom.name: String should match pattern", place)
        schema = mapping(present(tool, "input_schema", f"{place}.input_schema"), f"{place}.input_schema")
        if schema.get("type") != "object":
            raise InvalidRequest(f"{place}.custom.input_schema.type: Field required", place)
        strict = boolean(tool, "strict", f"{place}.strict")
        if strict:
            _check_schema(schema, place)
        tools.append(Tool(name, text(tool, "description", f"{place}.description"), schema, strict))
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("tools: Tool names must be unique.", "tools")
    return tuple(tools)


def _tool_choice(
    body: Mapping[str, object], tools: tuple[Tool, ...], facts: ModelFacts
) -> tuple[ToolChoice | None, bool | None]:
    if body.get("tool_choice") is None:
        return None, None
    source = known(body["tool_choice"], "tool_choice", ("type", "name", "disable_parallel_tool_use"))
    kind = choice(source.get("type"), "tool_choice.type", ("auto", "any", "tool", "none"))
    disabled = boolean(source, "disable_parallel_tool_use", "tool_choice.disable_parallel_tool_use")
    parallel = None if disabled is None else not disabled
    if not tools:
        raise InvalidRequest("tool_choice: may only be specified while providing tools", "tool_choice")
    if kind in ("any", "tool") and "tool_choice_required" not in facts.features:
        raise InvalidRequest("tool_choice: forced tool use is not supported by this model", "tool_choice")
    match kind:
        case "none":
            if disabled is not None:
                raise InvalidRequest("tool_choice.none.disable_parallel_tool_use: Extra inputs are not permitted")
            return "none", None
        case "any":
            return "required", parallel
        case "tool":
            name = text(source, "name", "tool_choice.name")
            if name not in {tool.name for tool in tools} or name is None:
                raise InvalidRequest(f"tool_choice: Tool '{str(name)[:60]}' not found in provided tools", "tool_choice")
            return NamedTool(name), parallel
    return "auto", parallel


def _effort(body: Mapping[str, object], facts: ModelFacts, max_tokens: int, *, forced: bool) -> str | None:
    """How hard it is to think: None for as the model does by itself."""
    config = known(body.get("output_config") or {}, "output_config", ("effort", "format"))
    effort = config.get("effort")
    if effort is not None:
        choice(effort, "output_config.effort", _EFFORTS)
        if effort not in facts.efforts or "thinking_budget" in facts.flags:
            raise InvalidRequest("output_config.effort: This model does not support this effort level", "output_config")
    kind, thinking = "", as_map(body.get("thinking"))
    if thinking:
        known(thinking, "thinking", ("type", "budget_tokens", "display"))
        kind = choice(thinking.get("type"), "thinking.type", tuple(_kinds(facts)))
    on = kind in ("enabled", "adaptive") or (not kind and "thinking_default" in facts.flags)
    if forced and on and "thinking_calls_freely" in facts.flags:
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.", "thinking")
    if on and any(body.get(name) is not None for name in _SAMPLING) and kind:
        raise InvalidRequest("temperature may only be set to 1 when thinking is enabled.", "temperature")
    if kind in ("disabled", "between_tools"):
        return "none"
    if kind == "enabled":
        budget = integer(thinking, "budget_tokens", "thinking.enabled.budget_tokens", 1024, max_tokens - 1)
        if budget is None:
            raise InvalidRequest("thinking.enabled.budget_tokens: Field required", "thinking")
        return next((word for limit, word in _BUDGETS if budget <= limit), "high")
    return str(effort) if effort is not None else None


def _kinds(facts: ModelFacts) -> Iterator[str]:
    """The kinds of thinking that the model takes."""
    if not facts.efforts:
        return
    if "thinking_budget" in facts.flags:
        yield from ("enabled", "disabled")
    else:
        yield "adaptive"
        if "thinking_between_tools" in facts.flags:
            yield "between_tools"
        elif "none" in facts.efforts:
            yield "disabled"


def _format(body: Mapping[str, object]) -> ResponseFormat | None:
    source = as_map(body.get("output_config")).get("format")
    if source is None:
        return None
    place = "output_config.format"
    form = known(source, place, ("type", "schema"))
    choice(form.get("type"), f"{place}.type", ("json_schema",))
    schema = mapping(present(form, "schema", f"{place}.schema"), f"{place}.schema")
    _check_schema(schema, f"{place}.schema")
    return JsonSchemaFormat("response", schema)


def _check_schema(schema: Mapping[str, object], place: str) -> None:
    """Refuse a schema beyond the subset of structured outputs."""
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        message = "For 'object' type, 'additionalProperties' must be explicitly set to false"
        raise InvalidRequest(f"{place}: {message}", place)
    if beyond := sorted(_BEYOND_SCHEMA & schema.keys()):
        kind = schema.get("type")
        raise InvalidRequest(f"{place}: For '{kind}' type, property '{beyond[0]}' is not supported", place)
    inner = [schema.get("items"), *as_list(schema.get("anyOf")), *as_list(schema.get("allOf"))]
    inner += [*as_map(schema.get("properties")).values(), *as_map(schema.get("$defs")).values()]
    for one in inner:
        if one:
            _check_schema(as_map(one), place)
