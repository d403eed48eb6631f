"""Read a request of Anthropic's Messages API.

The structs are the schema. A field is refused by name if an answer without it would be one to another conversation, of
another kind, or at the cost of another payer. Others without an equivalent are left out and named. Paths in errors have
Anthropic's form: `messages.0.content.1.text`.

Consecutive turns of one role are one turn. The results of a turn come before its other content, and they must answer
the calls of the turn before it, one for one. Reasoning state stands in a thinking block before the call to which it
belongs.

Source: anthropic 2.12 (MessageCreateParams), platform.claude.com on thinking, effort and tool use, read 2026-11-22; the
gateway protocol of Claude Code 2.1.332 and anthropic 2.14, read 2026-11-29.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from gateway.api.dialects.messages.client_tools import as_function, has_type
from gateway.api.dialects.schema import NOTHING, bounded, read, unread
from gateway.api.errors import ApiError
from providers import chat
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.json_values import as_list, as_map, dumps_text
from providers.matching.requirements import ATTRIBUTION, ATTRIBUTION_BEGIN, is_attribution
from providers.openai_json.decode_messages import sound_data_uri, unreachable_host
from providers.openai_json.decode_request import MAX_MESSAGES
from providers.openai_json.fields import mapping
from providers.openai_json.plain_request import plain_messages
from providers.value import Value

EVERYWHERE = "global"
"""The place of an answer that may be computed anywhere."""
NO_STATE = "none"
"""The signature of a thinking block without reasoning state: the API requires one."""
_Limit = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_Text = Annotated[str, Meta(min_length=1)]
# --- the schema -----------------------------------------------------------------------------------
_UNSUPPORTED = "the gateway does not support this field, because"
_COMPACTS = "the answer would be a summary of the vendor's own kind, which no other model has: compact in the client"


class _Refused(NamedTuple):
    """A field that is refused: what the message adds to its name, and how the value asks for it."""

    why: str
    asks: Callable[[Any], bool] = lambda value: value not in NOTHING
    code: str = ""


# In their order the first is named. Claude Code sends the whole turn again, without the field, on the words of `thread`
# and on `safeguards:`.
_REFUSED: Mapping[str, _Refused] = {
    "thread": _Refused(
        "the gateway keeps no conversation, so send each turn whole; "
        "capability_rejected: beta_header:message-threads-2026-08-12",
        code="thread_unsupported_request",
    ),
    "compaction": _Refused(_COMPACTS),
    "context_management": _Refused(
        _COMPACTS,
        lambda value: any(
            as_map(it).get("pause_after_compaction") is True for it in as_list(as_map(value).get("edits"))
        ),
    ),
    "safeguards": _Refused("the gateway has no such checks of a vendor: leave it out, and check in the client"),
    "billing_policy": _Refused(
        "another payer than the key's own cannot be charged here: leave it out",
        lambda value: value not in NOTHING and as_map(value).get("bill_to", "self") not in (*NOTHING, "self"),
    ),
    "max_tokens": _Refused(
        "it warms a cache without an answer, which the gateway does not offer: send 1 or more",
        lambda value: value == 0 and not isinstance(value, bool),
    ),
    "container": _Refused(f"{_UNSUPPORTED} it keeps files at a provider: run the code in your own app"),
    "mcp_servers": _Refused(
        f"{_UNSUPPORTED} a provider would send data to them: connect them to your app and send their tools as functions"
    ),
}
_NOT_COUNTED = frozenset({"compaction", "context_management", "safeguards", "max_tokens"})
"""The fields that a request which only counts may have, whatever they ask for."""
_TOOL_CHANGES = frozenset({"tool_addition", "tool_removal"})
_MAX_CALLS = 512
_PARAGRAPH_BREAK = "\n\n"
_BLOCK_TYPE = re.compile(r"(messages\.\d+(\.content\.\d+)+)\.type")
_BLOCKS = frozenset(
    {"text", "image", "document", "tool_result", "tool_use", "thinking", "redacted_thinking", "compaction"}
)
_CHOICES: Mapping[str, chat.ToolChoice] = {"auto": "auto", "any": "required", "none": "none"}
# The effort with the nearest thinking budget that is not smaller.
_EFFORT_BY_BUDGET = ((1024, "minimal"), (2048, "low"), (8192, "medium"), (16384, "high"), (24576, "xhigh"))
_OWN = "a `file_id` refers to content kept at a provider; send the content as base64"


class _Mark(Struct):
    type: str | None = None
    ttl: Literal["5m", "1h"] | None = None


class _Block(Struct):
    cache_control: _Mark | None = None

    @property
    def cache(self) -> chat.CacheTime | None:
        return (self.cache_control.ttl or "5m") if self.cache_control else None


class _Base64(Struct, tag="base64"):
    media_type: _Text
    data: _Text


class _Url(Struct, tag="url"):
    url: _Text


class _Plain(Struct, tag="text"):
    data: str
    media_type: str | None = None


class _File(Struct, tag="file"):
    file_id: Any = None


class _TextBlock(_Block, tag="text", kw_only=True):
    text: str
    citations: Any = None  # this and `caller` are fields of answers, which clients send back


class _Image(_Block, tag="image", kw_only=True):
    source: _Base64 | _Url | _File


class _Document(_Block, tag="document", kw_only=True):
    source: _Base64 | _Url | _File | _Plain | _Content
    title: str | None = None
    citations: Any = None


class _Content(Struct, tag="content"):
    content: str | list[_TextBlock | _Image | _Document]


class _Result(_Block, tag="tool_result", kw_only=True):
    tool_use_id: _Text
    content: str | list[_TextBlock | _Image | _Document] | None = None
    is_error: bool | None = None


class _Use(_Block, tag="tool_use", kw_only=True):
    id: _Text
    name: _Text
    input: dict[str, Any]
    caller: Any = None


class _Compaction(_Block, tag="compaction", kw_only=True):
    content: str | None = None
    encrypted_content: Any = None
    signature: Any = None
    tool_changes: Any = None


class _Thinking(Struct, tag="thinking"):
    thinking: str | None = None
    signature: str | None = None


class _Redacted(Struct, tag="redacted_thinking"):
    data: str | None = None


class _User(Struct, tag="user", tag_field="role"):
    content: str | list[_TextBlock | _Image | _Document | _Result | _Compaction]


class _Assistant(Struct, tag="assistant", tag_field="role"):
    content: str | list[_TextBlock | _Use | _Thinking | _Redacted | _Compaction]


class _System(Struct, tag="system", tag_field="role"):
    content: str | list[_TextBlock]


class _Tool(_Block, kw_only=True):
    name: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_./:-]{1,128}\Z")]
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    type: Any = None


class _Choice(Struct):
    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thoughts(Struct):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    display: str | None = None


class _Format(Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _Output(Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: _Format | None = None


class _Metadata(Struct):
    user_id: str | None = None


class _Request(Struct):
    model: _Text
    messages: Annotated[list[_User | _Assistant | _System], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: _Limit | None = None
    system: str | list[_TextBlock] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=64)] | None = None
    tools: Annotated[list[_Tool], Meta(max_length=512)] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thoughts | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None  # its name while it was a beta feature
    metadata: _Metadata | None = None
    cache_control: Any = None
    inference_geo: Annotated[str, Meta(max_length=200)] | None = None


_MOST_EFFORT, _USUAL_EFFORT = "max", "high"


# --- the meaning ----------------------------------------------------------------------------------


class Decoded(Value, frozen=True):
    """A decoded request. If it `hides_thinking`, the client wants no text of thoughts (`thinking.display: omitted`)."""

    request: chat.ChatRequest
    hides_thinking: bool = False


def decode_request(body: object, *, counts: bool = False) -> Decoded:
    """Return the request in a parsed body, which may only count. Raises InvalidRequest or UnsupportedFeature."""
    body = _supported(mapping(body, ""), _NOT_COUNTED if counts else frozenset())
    left_out: set[str] = set()
    texts = _plain_texts(body)
    if texts is not None:
        body = {**body, "messages": [{"role": "user", "content": ""}]}
    try:
        asked = read(body, _Request)
    except InvalidRequest:
        body = _without_blocks_of_servers(body, left_out)
        try:
            asked = read(body, _Request)
        except InvalidRequest as error:
            raise _explained(error, body) from None
    if asked.max_tokens is None and not counts:
        raise InvalidRequest("max_tokens: Field required", "max_tokens")
    names = {*unread(body, asked), *left_out}
    choice, is_parallel = _tool_choice(asked)
    effort, hides_thinking = _effort(asked, names)
    thinking, form = asked.thinking, (asked.output_config and asked.output_config.format) or asked.output_format
    attribution, rules = _system(asked.system)
    passed = {"top_k": asked.top_k, "cache_control": asked.cache_control}
    extra = {name: value for name, value in passed.items() if value is not None}
    request = chat.ChatRequest(
        model=asked.model,
        messages=texts if texts is not None else (*rules, *_messages(asked.messages, names)),
        stream=asked.stream or False,
        include_usage=True,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=tuple(filter(None, asked.stop_sequences or ())),
        tools=tuple(map(_tool, asked.tools or ())),
        tool_choice=choice,
        parallel_tool_calls=is_parallel,
        response_format=chat.JsonSchemaFormat("response", form.schema, strict=True) if form else None,
        reasoning_effort=effort,
        reasoning_budget=thinking.budget_tokens if thinking and thinking.type == "enabled" else None,
        user=asked.metadata.user_id if asked.metadata else None,
        place=asked.inference_geo if asked.inference_geo != EVERYWHERE else None,
        extra=({**extra, ATTRIBUTION: attribution} if attribution else extra),
        unread=bounded(names),
    )
    return Decoded(request, hides_thinking)


def _supported(body: Mapping[str, Any], ignored: Set[str]) -> Mapping[str, Any]:
    """Return the body with every tool as a function. Raises InvalidRequest or ApiError for a field that is refused."""
    if ignored and not ignored.isdisjoint(body):
        body = {name: value for name, value in body.items() if name not in ignored}
    for name, refused in _REFUSED.items():
        if name in body and refused.asks(body[name]):
            message = f"{name}: {refused.why}"
            if refused.code:
                raise _for_the_client("invalid_request", message, name, refused.code)
            raise InvalidRequest(message, name)
    if (tools := as_list(body.get("tools"))) and any(map(has_type, tools)):
        return {**body, "tools": [as_function(tool, position) for position, tool in enumerate(tools)]}
    return body


def _for_the_client(code: str, message: str, param: str, detail: str) -> ApiError:
    """Return an error with the code in its details by which Claude Code decides how to ask again."""
    return ApiError(code, message, param, extra={"details": {"error_code": detail}})


def _plain_texts(body: Mapping[str, Any]) -> tuple[chat.Message, ...] | None:
    """Return the messages of the usual form of simple clients, which are texts only, or None for another form."""
    system, entries = body.get("system"), body.get("messages")
    is_text = system is None or (isinstance(system, str) and not system.startswith(ATTRIBUTION_BEGIN))
    if not (is_text and isinstance(entries, list) and entries):
        return None
    begun: list[object] = [{"role": "system", "content": system}] if system else []
    return plain_messages([*begun, *entries], len(entries) + 1)


def _without_blocks_of_servers(body: Mapping[str, Any], left_out: set[str]) -> Mapping[str, Any]:
    """Return the body without images of earlier answers, and without blocks of tools that a provider ran.

    A turn of the assistant loses them. In a result of a call they become text, and so does a search result of the user.
    """
    turns = []
    for turn in as_list(body.get("messages")):
        content = as_map(turn).get("content")
        if isinstance(content, list):
            is_answer = as_map(turn).get("role") == "assistant"
            kept = [block for block in content if not is_answer or _is_readable(block, left_out)]
            turn = {**as_map(turn), "content": kept if is_answer else [_as_text(block) for block in content]}
        turns.append(turn)
    return {**body, "messages": turns}


def _is_readable(block: object, left_out: set[str]) -> bool:
    kind = as_map(block).get("type")
    if not isinstance(kind, str) or kind in _BLOCKS - {"image"} | _TOOL_CHANGES:
        return True
    left_out.add(f"messages.content.{kind}")
    return False


def _as_text(block: object) -> object:
    source = as_map(block)
    kind, content = source.get("type"), source.get("content")
    if kind == "tool_result" and isinstance(content, list):
        return {**source, "content": [_result_as_text(one) for one in content]}
    return _result_as_text(block) if kind == "search_result" else block


def _result_as_text(block: object) -> object:
    kind = as_map(block).get("type")
    is_known = not isinstance(kind, str) or kind in _BLOCKS
    return block if is_known else {"type": "text", "text": dumps_text(block)}


def _explained(error: InvalidRequest, body: object) -> Exception:
    """Return the error for a block that the API has, and the gateway has not."""
    found = _BLOCK_TYPE.fullmatch(error.param or "")
    if found is None or "Invalid value" not in str(error):
        return error
    value: Any = body
    for step in found[0].split("."):
        value = value[int(step) if step.isdigit() else step]
    if value in _BLOCKS:
        return InvalidRequest(f"{found[0]}: a {value!r} block is not allowed here", found[0])
    message = (
        f"{found[1]}: the gateway has no {value[:60]!r} blocks: it sends on text, images, documents and function tools"
    )
    if value in _TOOL_CHANGES:
        detail = "mid_conversation_tool_changes_not_supported"
        return _for_the_client("unsupported_capability", message, found[0], detail)
    return UnsupportedFeature("messages", message, found[0])


def _tool(tool: _Tool) -> chat.Tool:
    own = tool.type if isinstance(tool.type, dict) else None
    return chat.Tool(tool.name, tool.description, tool.input_schema, tool.strict, tool.cache, own)


def _tool_choice(asked: _Request) -> tuple[chat.ToolChoice | None, bool | None]:
    """Return the choice, and whether parallel calls are allowed; None for the default."""
    choice = asked.tool_choice
    if choice is None:
        return None, None
    disabled = choice.disable_parallel_tool_use
    is_parallel = None if disabled is None or not asked.tools else not disabled
    if choice.type == "tool":
        if choice.name is None or all(tool.name != choice.name for tool in asked.tools or ()):
            raise InvalidRequest("tool_choice.name: the tool is not one of the `tools`", "tool_choice.name")
        return chat.NamedTool(choice.name), is_parallel
    if not asked.tools:
        if choice.type == "any":
            raise InvalidRequest("tool_choice: may only be specified while providing tools", "tool_choice")
        return None, None
    return _CHOICES[choice.type], is_parallel


def _effort(asked: _Request, names: set[str]) -> tuple[str | None, bool]:
    """Return the reasoning effort, and whether the text of thoughts is hidden."""
    effort, thinking = asked.output_config.effort if asked.output_config else None, asked.thinking
    if thinking is None:
        return effort, False
    if thinking.display not in (None, "summarized", "omitted"):
        names.add("thinking.display")
    hides = thinking.display == "omitted"
    if thinking.type == "adaptive":
        return effort or _USUAL_EFFORT, hides
    if thinking.type != "enabled":
        if effort is not None:
            names.add("output_config.effort")
        return "none", hides
    budget = thinking.budget_tokens
    if budget is None:
        return effort or _USUAL_EFFORT, hides
    if budget < 1:
        raise InvalidRequest("thinking.budget_tokens: Expected a whole number >= 1", "thinking.budget_tokens")
    return effort or next((name for most, name in _EFFORT_BY_BUDGET if budget <= most), _MOST_EFFORT), hides


# --- messages -------------------------------------------------------------------------------------


def _system(system: str | list[_TextBlock] | None) -> tuple[str, list[chat.Message]]:
    """Return the line by which Claude Code identifies itself to Anthropic, if a block begins with it, and the rest.

    The line differs by request. It ends with its line break if text of the same block follows.
    """
    attribution, messages = "", list[chat.Message]()
    for block in _blocks(system or []):
        text = block.text
        if text.startswith(ATTRIBUTION_BEGIN):
            line, end, rest = text.partition("\n")
            if is_attribution(line):
                attribution, text = attribution or line + (end if rest else ""), rest
            if not text:
                continue
        # One message for each block: many providers join the parts of one message without a separator.
        messages.append(chat.SystemMessage((chat.TextPart(text, block.cache),) if block.cache else text))
    return attribution, messages


def _messages(turns: Sequence[_User | _Assistant | _System], names: set[str]) -> Iterator[chat.Message]:
    """Yield the messages. Raises InvalidRequest or UnsupportedFeature."""
    calls: tuple[chat.ToolCall, ...] = ()
    asked_at = 0
    for form, group in groupby(enumerate(turns), key=lambda turn: type(turn[1])):
        merged = [(position, _blocks(turn.content)) for position, turn in group]
        at = merged[0][0]
        if calls and form is not _User:
            raise _unanswered(asked_at, calls)
        if form is _User:
            yield from _user(merged, calls, asked_at, names)
            calls = ()
        elif form is _Assistant:
            message = _assistant(merged, names)
            calls, asked_at = message.tool_calls, at
            yield message
        else:
            texts = (chat.TextPart(block.text, block.cache) for _, blocks in merged for block in blocks)
            yield chat.SystemMessage(tuple(texts))
    if calls:
        raise _unanswered(asked_at, calls)


def _path(position: int, number: int) -> str:
    return f"messages.{position}.content.{number}"


def _blocks(content: str | list[Any]) -> list[Any]:
    return [_TextBlock(text=content)] if isinstance(content, str) else content


def _user(
    turns: list[tuple[int, list[Any]]], calls: tuple[chat.ToolCall, ...], asked_at: int, names: set[str]
) -> Iterator[chat.Message]:
    """Yield the results of the calls, and then a message for each of the merged messages with other content."""
    results: dict[str, chat.ToolMessage] = {}
    ids = {call.id for call in calls}
    said: list[list[chat.Part]] = []
    for position, blocks in turns:
        said.append([])
        for number, block in enumerate(blocks):
            path = _path(position, number)
            if not isinstance(block, _Result):
                said[-1] += _parts(block, path, names)
                continue
            if block.tool_use_id in results or block.tool_use_id not in ids:
                raise _uncalled(path, block.tool_use_id)
            parts = [
                part
                for inner, one in enumerate(_blocks(block.content or ""))
                for part in _parts(one, f"{path}.content.{inner}", names)
            ]
            content, call_id = plain_content(parts), block.tool_use_id
            results[call_id] = chat.ToolMessage(call_id, content, block.is_error or False, block.cache)
    if missing := tuple(call for call in calls if call.id not in results):
        raise _unanswered(asked_at, missing)
    yield from results.values()
    if not results and not any(said):
        yield chat.UserMessage("")
    for parts in filter(None, said):
        yield chat.UserMessage(plain_content(parts))


def _parts(block: _TextBlock | _Image | _Document | _Compaction, path: str, names: set[str]) -> tuple[chat.Part, ...]:
    if isinstance(block, _TextBlock):
        return (chat.TextPart(block.text, block.cache),)
    if isinstance(block, _Compaction):
        return _summary(block, path, names)
    place = f"{path}.source"
    if isinstance(block.source, _File):
        raise InvalidRequest(f"{place}: {_OWN}", f"{place}.type")
    if isinstance(block, _Image):
        return (chat.ImagePart(_image(block.source, place), cache=block.cache),)
    source = block.source
    if block.citations not in (None, {}, {"enabled": False}):
        names.add("messages.content.citations")
    match source:
        case _Base64():
            return (chat.FilePart(_data_uri(source, place), block.title, block.cache),)
        case _Plain():
            data = base64.b64encode(source.data.encode("utf-8", "replace")).decode()
            return (chat.FilePart(f"data:text/plain;base64,{data}", block.title, block.cache),)
        case _Content(content=str() as text):
            return (chat.TextPart(text, block.cache),)
        case _Content():
            entries = enumerate(_blocks(source.content))
            return tuple(part for i, one in entries for part in _parts(one, f"{place}.content.{i}", names))
    message = f"{place}: the gateway does not send on documents that a provider would fetch; send them as base64"
    raise UnsupportedFeature("file", message, f"{place}.type")


def _summary(block: _Compaction, path: str, names: set[str]) -> tuple[chat.TextPart, ...]:
    """Return the text of a summary, which is a text of the conversation like any other.

    One that only its vendor can read is refused: the model would answer to another conversation.
    """
    if block.tool_changes not in (*NOTHING, {}):
        message = f"{path}.tool_changes: the gateway cannot change tools in a conversation: state them all in `tools`"
        raise InvalidRequest(message, f"{path}.tool_changes")
    if not block.content and block.encrypted_content not in NOTHING:
        message = f"{path}.encrypted_content: holds a summary that only its vendor can read: send it as `content`"
        raise InvalidRequest(message, f"{path}.encrypted_content")
    if block.content == "":
        raise InvalidRequest(f"{path}.content: the summary is empty: leave the block out", f"{path}.content")
    if block.content is None or (block.signature, block.encrypted_content) != (None, None):
        names.add("messages.content.compaction")
    return (chat.TextPart(block.content, block.cache),) if block.content is not None else ()


def _image(source: _Base64 | _Url, place: str) -> str:
    if isinstance(source, _Base64):
        return _data_uri(source, place)
    if not source.url.lower().startswith(("https://", "http://")):
        raise InvalidRequest(f"{place}.url: Input should be an https URL", f"{place}.url")
    if reason := unreachable_host(source.url):
        raise InvalidRequest(f"{place}.url: the URL {reason}", f"{place}.url")
    return source.url


def _data_uri(source: _Base64, place: str) -> str:
    try:
        return sound_data_uri(f"data:{source.media_type};base64,{source.data}")
    except ValueError as error:
        raise InvalidRequest(f"{place}.data: the content {error}", f"{place}.data") from None


def _assistant(turns: list[tuple[int, list[Any]]], names: set[str]) -> chat.AssistantMessage:
    texts: list[chat.TextPart] = []
    thoughts: list[str] = []
    calls: list[chat.ToolCall] = []
    state: str | None = None
    for block, place in (
        (block, (position, number)) for position, blocks in turns for number, block in enumerate(blocks)
    ):
        match block:
            case _TextBlock():
                texts.append(chat.TextPart(block.text, block.cache))
            case _Compaction():
                texts += _summary(block, _path(*place), names)
            case _Thinking():
                thoughts += [block.thinking] if block.thinking else ()
                state = block.signature if block.signature and block.signature != NO_STATE else state
            case _Redacted():
                state = block.data or state
            case _Use():
                arguments = dumps_text(block.input) if block.input else "{}"
                calls.append(chat.ToolCall(block.id, block.name, arguments, state, block.cache))
                state = None
    if state is not None:
        # Only a call carries state to its model.
        names.add("messages.content.signature")
    path = f"messages.{turns[0][0]}.content"
    if len(calls) > _MAX_CALLS:
        raise InvalidRequest(f"{path}: too many `tool_use` blocks in one turn", path)
    if len({call.id for call in calls}) < len(calls):
        raise InvalidRequest(f"{path}: `tool_use` ids must be unique", path)
    content = plain_content([*texts])
    said = content if isinstance(content, str) else tuple(texts)
    reasoning = _PARAGRAPH_BREAK.join(thoughts) or None
    return chat.AssistantMessage(said or None if calls else said, None, reasoning, tuple(calls))


def plain_content(parts: list[chat.Part]) -> str | tuple[chat.Part, ...]:
    """Return the content of a message: a string for one text without a mark."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(first := parts[0], chat.TextPart) and first.cache is None:
        return first.text
    return tuple(parts)


def _unanswered(position: int, calls: tuple[chat.ToolCall, ...]) -> InvalidRequest:
    """Return the error for calls without results, in Anthropic's words."""
    path = f"messages.{position}"
    problem = f"{path}: `tool_use` ids were found without `tool_result` blocks immediately after"
    ids = ", ".join(call.id for call in calls)[:200]
    rule = "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    return InvalidRequest(f"{problem}: {ids}. {rule}", path, log_message=problem)


def _uncalled(path: str, call_id: str) -> InvalidRequest:
    problem = f"{path}: unexpected `tool_use_id` found in `tool_result` blocks"
    rule = "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
    return InvalidRequest(f"{problem}: {call_id[:100]}. {rule}", f"{path}.tool_use_id", log_message=problem)
