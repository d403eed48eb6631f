"""Make a request fit what a vendor's API takes. This is the only stage between a chat request and its encoder.

Each adapter calls `fit` before it encodes a request. The result satisfies the vendor's `Takes`, whatever a client
sends, and the model learns the same as far as the vendor can express it:

- There is one system message, at the beginning. A later one becomes text of the user that names its origin, and blank
  ones are left out.
- Where a system message must be the first, templates decide. Then turns of the user that follow each other become one,
  and a turn of the assistant without text, reasoning and calls is left out, unless it is the last.
- Names of tools and ids of calls have the vendor's form, the same everywhere in the request. `client_names` leads back.
- Schemas have the vendor's subset, and `strict` is stated only where it is possible.
- At most four marks for a cache stay, as many as Claude and DashScope take: first the marks of tools, then of system
  messages, then the last marks.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from operator import is_not
from typing import Any, TypeVar

from providers import chat
from providers.adapter import Adapter
from providers.catalogue.takes import Takes
from providers.formats.role_alternation import joined_turns, merged
from providers.formats.schemas import allows_strict, answer_schema, tool_schema
from providers.formats.tool_calls import FILLER_TEXT
from providers.matching.requirements import CACHE_CONTROL
from providers.value import replace

LATE_SYSTEM = "[System message]\n{}"
"""The text of the user in place of a system message that a vendor does not take where it stands."""
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HASH_CHARACTERS = 8
_TYPED = frozenset({"type", "$ref", "anyOf", "oneOf", "allOf"})
_MOST_CACHE_MARKS = 4


_NOTHING: frozenset[str] = frozenset()


def fit(request: chat.ChatRequest, takes: Takes) -> tuple[chat.ChatRequest, frozenset[str]]:
    """Return the request in the form that the vendor takes, and the names of what the model learns in another way.

    The names include what the model does not learn at all. A request that fits already is returned itself.
    """
    messages = request.messages
    if type(messages) is chat.Texts and not request.tools and request.response_format is None:
        # The usual form: only a system message may have to be changed.
        if not _needs_change(messages, takes):
            return request, _NOTHING
        return _with_system_first(request, takes)
    changed: set[str] = set()
    changes: dict[str, Any] = {}
    if (few := _with_few_marks(request)) is not request:
        request, messages = few, few.messages
        changed.add(CACHE_CONTROL)
    if _needs_change(messages, takes):
        whole, moved = _with_system_first(request, takes)
        changed |= moved
        messages = changes["messages"] = whole.messages
    names = _sent_names(request.tools, takes) if request.tools else {}
    if names or (request.tools and (takes.schemas or any(map(_lacks_type, request.tools)))):
        changes |= _fit_tools(request, names, takes, changed)
    renamed = _each(messages, lambda message: _with_sent_calls(message, names, takes))
    if renamed is not messages:
        changes["messages"] = renamed
    form = request.response_format
    if isinstance(form, chat.JsonSchemaFormat) and takes.schemas:
        fitted = _fit_format(form, takes, changed)
        changes |= {"response_format": fitted} if fitted is not form else {}
    return replace(request, **changes) if changes else request, frozenset(changed)


def _fit_tools(
    request: chat.ChatRequest, names: Mapping[str, str], takes: Takes, changed: set[str]
) -> Mapping[str, object]:
    """Return the tools and the choice of a tool, as far as they change."""
    changes: dict[str, object] = {}
    tools = _each(request.tools, lambda tool: _tool(tool, names, takes, changed))
    if tools is not request.tools:
        changes["tools"] = tools
    match request.tool_choice:
        case chat.NamedTool(name) if name in names:
            changes["tool_choice"] = chat.NamedTool(names[name])
        case chat.AllowedTools(mode, chosen) if not names.keys().isdisjoint(chosen):
            changes["tool_choice"] = chat.AllowedTools(mode, tuple(names.get(name, name) for name in chosen))
    return changes


def _fit_format(form: chat.JsonSchemaFormat, takes: Takes, changed: set[str]) -> chat.JsonSchemaFormat:
    schema, strict = answer_schema(form.schema, takes.schemas), form.strict
    if schema is not form.schema:
        changed.add("response_format.schema")
    if strict and "strict" in takes.schemas and not allows_strict(schema):
        strict = None
        changed.add("response_format.strict")
    is_same = schema is form.schema and strict is form.strict
    return form if is_same else replace(form, schema=schema, strict=strict)


def changes_for(adapter: Adapter, request: chat.ChatRequest) -> frozenset[str]:
    """Return the names of what the model learns in another way, or not at all."""
    takes: Takes | None = getattr(adapter, "takes", None)
    return fit(request, takes)[1] if takes is not None else _NOTHING


def client_names(adapter: Adapter, request: chat.ChatRequest) -> Mapping[str, str]:
    """Return the client's name of a tool by the name that an adapter sends, where the two differ."""
    takes: Takes | None = getattr(adapter, "takes", None) if request.tools else None
    return {} if takes is None else {sent: name for name, sent in _sent_names(request.tools, takes).items()}


_Item = TypeVar("_Item")


def _each(items: tuple[_Item, ...], change: Callable[[_Item], _Item]) -> tuple[_Item, ...]:
    """Return the items changed, or the same tuple if none is."""
    changed = tuple(map(change, items))
    return changed if any(map(is_not, changed, items)) else items


# --- system messages ------------------------------------------------------------------------------


def _needs_change(messages: Sequence[chat.Message], takes: Takes) -> bool:
    takes_more = takes.system == "any"
    for position, message in enumerate(messages):
        if type(message) is chat.SystemMessage and ((position and not takes_more) or _is_blank(message)):
            return True
        if (
            type(message) is chat.UserMessage
            and position
            and not takes_more
            and type(messages[position - 1]) is chat.UserMessage
        ):
            return True
        if position + 1 < len(messages) and not takes_more and _is_empty_turn(message):
            return True
    return not takes_more and type(messages[-1]) is chat.SystemMessage


def _is_blank(message: chat.SystemMessage) -> bool:
    text = message.content
    return not text.strip() if isinstance(text, str) else not any(part.text.strip() for part in text)


def _is_empty_turn(message: chat.Message) -> bool:
    """Return whether it is an answer without anything, as one that was cut off before its first word."""
    return type(message) is chat.AssistantMessage and not (
        message.tool_calls or message.reasoning or chat.said_in(message).strip()
    )


def _with_system_first(request: chat.ChatRequest, takes: Takes) -> tuple[chat.ChatRequest, frozenset[str]]:
    """Return the request with one system message at the beginning, or with all that are not blank (`any`)."""
    first: list[chat.SystemMessage] = []
    rest: list[chat.Message] = []
    late: list[str] = []
    is_late = False
    end = len(request.messages) - 1
    for position, message in enumerate(request.messages):
        if takes.system != "any" and position < end and _is_empty_turn(message):
            continue
        if isinstance(message, chat.SystemMessage):
            if _is_blank(message):
                continue
            if takes.system == "any":
                rest.append(message)
            elif not rest:
                first.append(message)
            else:
                is_late = True
                late.append(LATE_SYSTEM.format(chat.prompt_text(message.content)))
            continue
        if late and isinstance(message, chat.UserMessage):
            message = joined_turns((replace(message, content="\n\n".join(late)), message))
        elif late:
            rest.append(_late_turn(late, rest[-1]))
        late = []
        rest.append(message)
    if late:
        rest.append(_late_turn(late, rest[-1]))
    if takes.system != "any":
        rest = _with_joined_turns(rest)
    continues = isinstance(request.messages[-1], chat.AssistantMessage)
    if not rest or (isinstance(rest[-1], chat.AssistantMessage) and not continues):
        rest.append(chat.UserMessage(FILLER_TEXT))
    messages = (*([_joined(first)] if first else []), *rest)
    return replace(request, messages=messages), frozenset({"messages.role"}) if is_late else _NOTHING


def _late_turn(late: Sequence[str], before: chat.Message) -> chat.UserMessage:
    """Return the texts of late system messages as a turn that continues the user's turn before it, if it is one."""
    return chat.UserMessage("\n\n".join(late), before.name if isinstance(before, chat.UserMessage) else None)


def _with_joined_turns(messages: Sequence[chat.Message]) -> list[chat.Message]:
    """Return the messages with consecutive turns of one user as a single one."""
    groups: list[list[chat.Message]] = []
    for message in messages:
        last = groups[-1][-1] if groups else None
        if isinstance(message, chat.UserMessage) and isinstance(last, chat.UserMessage) and last.name == message.name:
            groups[-1].append(message)
        else:
            groups.append([message])
    return [merged(group) for group in groups]


def _joined(messages: Sequence[chat.SystemMessage]) -> chat.SystemMessage:
    if len(messages) == 1:
        return messages[0]
    parts = [part for one in messages for part in (one.content if not isinstance(one.content, str) else ())]
    if any(part.cache is not None for part in parts):
        contents = ((chat.TextPart(one.content),) if isinstance(one.content, str) else one.content for one in messages)
        return chat.SystemMessage(tuple(part for content in contents for part in content), messages[0].role)
    return chat.SystemMessage("\n\n".join(chat.prompt_text(one.content) for one in messages), messages[0].role)


# --- marks for a cache ----------------------------------------------------------------------------


def _with_few_marks(request: chat.ChatRequest) -> chat.ChatRequest:
    left = _MOST_CACHE_MARKS - (CACHE_CONTROL in request.extra)
    if sum(map(_marks, (*request.tools, *request.messages))) <= left:
        return request
    count = len(request.tools)
    items: list[Any] = [*request.tools, *request.messages]
    # Tools first, then system messages, then the others; of each kind the last.
    for at in sorted(
        range(len(items)), key=lambda at: (at >= count, not isinstance(items[at], chat.SystemMessage), -at)
    ):
        items[at], left = _few_marks(items[at], left)
    return replace(request, tools=tuple(items[:count]), messages=tuple(items[count:]))


def _marks(item: Any) -> int:
    content = getattr(item, "content", None)
    own = getattr(item, "cache", None) is not None
    inner = (*getattr(item, "tool_calls", ()), *(content if isinstance(content, tuple) else ()))
    return own + sum(map(_marks, inner))


def _few_marks(item: Any, left: int) -> tuple[Any, int]:
    """Return the item with the last of its marks, as many as are left, and how many are left then."""
    if getattr(item, "cache", None) is not None:
        item, left = (item, left - 1) if left else (replace(item, cache=None), 0)
    # Calls come after the text of their message.
    for name in ("tool_calls", "content"):
        if isinstance(inner := getattr(item, name, None), tuple) and inner:
            parts: list[Any] = []
            for part in reversed(inner):
                part, left = _few_marks(part, left)
                parts.append(part)
            item = replace(item, **{name: tuple(reversed(parts))})
    return item, left


# --- tools and their calls ------------------------------------------------------------------------


def sent_name(name: str, takes: Takes) -> str:
    """Return the name of a tool as the vendor takes it. A name that is too long ends with a hash of the whole."""
    fits = _form(takes.name_pattern)
    if len(name) <= takes.name_characters and fits(name):
        return name
    safe = _NOT_IN_A_NAME.sub("_", name)
    if not fits(safe):
        safe = f"_{safe}"
    return safe if len(safe) <= takes.name_characters else _hashed(safe, name, takes.name_characters)


@cache
def _form(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern).fullmatch


def _hashed(beginning: str, whole: str, characters: int) -> str:
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]
    return f"{beginning[: characters - _HASH_CHARACTERS - 1]}_{digest}"


def _sent_names(tools: Sequence[chat.Tool], takes: Takes) -> dict[str, str]:
    """Return the name that is sent, for each tool whose name differs. No two tools have the same."""
    names: dict[str, str] = {}
    taken = {tool.name for tool in tools}
    for tool in tools:
        name = sent_name(tool.name, takes)
        if name != tool.name:
            names[tool.name] = _hashed(name, tool.name, takes.name_characters) if name in taken else name
            taken.add(names[tool.name])
    return names


def _lacks_type(tool: chat.Tool) -> bool:
    """Return whether a schema leaves out that arguments are an object, which Vertex and Claude demand."""
    return tool.parameters is not None and _TYPED.isdisjoint(tool.parameters)


def _tool(tool: chat.Tool, names: Mapping[str, str], takes: Takes, changed: set[str]) -> chat.Tool:
    changes: dict[str, Any] = {}
    if tool.name in names:
        changes["name"] = names[tool.name]
    if _lacks_type(tool):
        tool = replace(tool, parameters={"type": "object", **(tool.parameters or {})})
    if tool.parameters is not None:
        schema, is_lossy = tool_schema(tool.parameters, takes.schemas)
        if schema is not tool.parameters:
            changes["parameters"] = schema
            changed |= {"tools.parameters"} if is_lossy else set()
        if tool.strict and "strict" in takes.schemas and not allows_strict(schema):
            changes["strict"] = None
            changed.add("strict_tools")
    return replace(tool, **changes) if changes else tool


def _with_sent_calls(message: chat.Message, names: Mapping[str, str], takes: Takes) -> chat.Message:
    if type(message) is chat.AssistantMessage and message.tool_calls:
        calls = _each(message.tool_calls, lambda call: _sent_call(call, names, takes))
        return message if calls is message.tool_calls else replace(message, tool_calls=calls)
    if type(message) is chat.ToolMessage and (id := _sent_id(message.tool_call_id, takes)) != message.tool_call_id:
        return replace(message, tool_call_id=id)
    return message


def _sent_call(call: chat.ToolCall, names: Mapping[str, str], takes: Takes) -> chat.ToolCall:
    id, name = _sent_id(call.id, takes), names.get(call.name) or sent_name(call.name, takes)
    return call if id == call.id and name == call.name else replace(call, id=id, name=name)


def _sent_id(id: str, takes: Takes) -> str:
    """Return the id of a call as the vendor takes it. The same id always gives the same."""
    if takes.call_ids == "nine" and not _NINE.fullmatch(id):
        number = int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        digits = ""
        for _ in range(9):
            number, digit = divmod(number, len(_ALPHABET))
            digits += _ALPHABET[digit]
        return digits
    if takes.id_characters is not None and len(id) > takes.id_characters:
        return _hashed(id, id, takes.id_characters)
    return id


# --- the way back ---------------------------------------------------------------------------------


def with_client_names(completion: chat.ChatCompletion, names: Mapping[str, str]) -> chat.ChatCompletion:
    """Return a whole answer whose calls have the client's names of its tools."""
    return replace(
        completion,
        choices=tuple(
            replace(
                choice,
                message=replace(
                    choice.message,
                    tool_calls=tuple(
                        replace(call, name=names.get(call.name, call.name)) for call in choice.message.tool_calls
                    ),
                ),
            )
            for choice in completion.choices
        ),
    )


def events_with_client_names(
    events: tuple[chat.StreamEvent, ...], names: Mapping[str, str]
) -> tuple[chat.StreamEvent, ...]:
    """Return the events of a stream with the client's names of its tools."""
    return tuple(
        replace(event, name=names.get(event.name, event.name))
        if type(event) is chat.ToolCallDelta and event.name
        else event
        for event in events
    )
