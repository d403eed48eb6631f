"""Replace the values of a request, just before an adapter writes it for its recipient. Pure.

The order in which texts are read is part of the contract, because placeholders are numbered by it: fields, tools, the
format of the answer, messages, stop sequences, predicted output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from gateway.features.redaction.model import RedactionRules
from gateway.features.redaction.policy.finding import Clock
from gateway.features.redaction.policy.placeholders import Placeholders
from gateway.model.excerpt import Excerpt, Quoting
from gateway.model.input_requests import InputRequest, ServedRequest
from providers.chat import (
    AssistantMessage,
    ChatRequest,
    JsonSchemaFormat,
    Message,
    Part,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.embeddings import EmbeddingRequest
from providers.moderations import ModerationRequest
from providers.rerank import RerankRequest
from providers.value import Value, replace

NOTICE = (
    "Words such as QEMAIL1Z stand for real values that you are not shown. Use each one exactly as it is written, as if "
    "it were the value. Do not explain, translate, split, change or invent such words."
)
"""The system message that a model gets with a request that has placeholders."""
_PREDICTION = "prediction"
_PSEUDONYM = re.compile("p_[0-9a-f]{32}")
_TEXTS = frozenset({"description", "title", "default", "const", "enum", "examples"})
"""The keys of a schema whose texts are read by the model."""
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LEFT_OUT = frozenset({"pattern", "format", "minLength", "maxLength"})
"""The keys of a schema that a placeholder need not fulfil."""


class NotRedactable(Exception):
    """A request has parts in which no value can be found or replaced. The message names them."""


class Redacted(Value, frozen=True):
    """A request as its recipient gets it.

    Attributes:
        request: The request.
        placeholders: Those of a chat, by which its answer is restored. None: there are none.
        counts: The number of different values by kind in lower case.
        dropped: The keys that were left out of its schemas.
        rules: The rules that were applied.
    """

    request: ServedRequest
    placeholders: Placeholders | None
    counts: Mapping[str, int]
    dropped: frozenset[str]
    rules: RedactionRules

    @property
    def values(self) -> tuple[str, ...]:
        """The values of a chat with their kinds, in the order of their placeholders."""
        if self.placeholders is None:
            return ()
        return tuple(f"{kind}:{value}" for value, kind in self.placeholders.kinds_of_values.items())


def redact(request: ServedRequest, rules: RedactionRules) -> Redacted:
    """Return the request with placeholders.

    Args:
        request: It, as the adapter would get it.
        rules: The rules of its recipient.

    Raises:
        NotRedactable: It has media or tokens, or asks for log probabilities of placeholders.
        TooMuchToSearch: It is too large, or has too many values.
    """
    if rules.media == "refuse" and _has_media(request):
        raise NotRedactable("it has media, in which no values are found")
    match request:
        case ChatRequest():
            return _chat(request, rules)
        case EmbeddingRequest():
            return _embeddings(request, rules)
        case ModerationRequest():
            return _moderations(request, rules)
        case RerankRequest():
            return _rerank(request, rules)


def _has_media(request: ServedRequest) -> bool:
    if isinstance(request, EmbeddingRequest | RerankRequest):
        return False
    contents: Iterable[object] = (
        [message.content for message in request.messages] if isinstance(request, ChatRequest) else request.inputs
    )
    return any(not isinstance(part, TextPart) for it in contents if isinstance(it, tuple) for part in it)


# --- chats ----------------------------------------------------------------------------------------


def _chat(request: ChatRequest, rules: RedactionRules) -> Redacted:
    named, dropped = Placeholders(rules, Clock()), set[str]()
    changes: dict[str, Any] = {"user": _field(named, request.user)}
    extra = _fields(named, {name: value for name, value in request.extra.items() if name != _PREDICTION})
    changes["tools"] = tuple([_tool(named, tool, dropped) for tool in request.tools])
    if isinstance(answer := request.response_format, JsonSchemaFormat):
        description = named.strings(answer.description)
        schema: Any = _schema(named, answer.schema, dropped)
        changes["response_format"] = replace(answer, schema=schema, description=description)
    changes["messages"] = _noticed(_messages(named, request.messages, dropped))
    changes["stop"] = named.strings(request.stop)
    if _PREDICTION in request.extra:
        extra[_PREDICTION] = named.strings(request.extra[_PREDICTION])
    if not named:
        return Redacted(request, None, {}, frozenset(), rules)
    if request.logprobs or request.top_logprobs:
        raise NotRedactable("it asks for log probabilities, which would be those of placeholders")
    changes["extra"] = {name: extra[name] for name in request.extra}
    return Redacted(replace(request, **changes), named, named.counts, frozenset(dropped), rules)


def _noticed(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the messages with the system message about placeholders, before the first message of another role."""
    first = next((at for at, it in enumerate(messages) if not isinstance(it, SystemMessage)), len(messages))
    return (*messages[:first], SystemMessage(NOTICE), *messages[first:])


def _messages(named: Placeholders, messages: tuple[Message, ...], dropped: set[str]) -> tuple[Message, ...]:
    """Return messages with placeholders.

    The client's system messages at the beginning are read as one text, too: Messages and Gemini make one of each part.
    """
    first = next((at for at, it in enumerate(messages) if not isinstance(it, SystemMessage)), len(messages))
    leading = [it for it in messages[:first] if isinstance(it, SystemMessage) and it.own is None]
    if len(leading) < 2:
        return tuple([_message(named, message, dropped) for message in messages])
    contents = dict(zip(map(id, leading), _as_one(named, [it.content for it in leading]), strict=True))
    changed: list[Message] = []
    for message in messages:
        content = contents.get(id(message))
        if content is None or not isinstance(message, SystemMessage):
            changed.append(_message(named, message, dropped))
        elif content or not message.content:
            changed.append(replace(message, content=content, name=named.strings(message.name)))
    return tuple(changed)


def _message(named: Placeholders, message: Message, dropped: set[str]) -> Message:
    match message:
        case SystemMessage():
            if message.own is not None:
                return _own_message(named, message, dropped)
            return replace(message, content=_content(named, message.content), name=named.strings(message.name))
        case UserMessage():
            return replace(message, content=_content(named, message.content), name=named.strings(message.name))
        case ToolMessage():
            return replace(message, content=_content(named, message.content))
        case AssistantMessage():
            # Many adapters write the refusal after the text as one.
            said = [it for it in (message.content, message.refusal) if it is not None]
            *content, refusal = _as_one(named, said if message.refusal is not None else [*said, ""])
            return replace(
                message,
                content=content[0] if content else None,
                refusal=str(refusal or "") if message.refusal is not None else None,
                reasoning=named.strings(message.reasoning),
                tool_calls=tuple([_call(named, call) for call in message.tool_calls]),
                name=named.strings(message.name),
            )


def _own_message(named: Placeholders, message: SystemMessage, dropped: set[str]) -> SystemMessage:
    """Return a message of the gateway, of which only the client's text and schema at its end are searched."""
    content, own = message.content, message.own
    if not own or not isinstance(content, str):
        return message
    text, _, schema = own.rpartition("\n\n")
    changed = _schema(named, json.loads(schema), dropped)
    quoted = f"{named(text)}\n\n{json.dumps(changed, ensure_ascii=False, separators=(',', ':'))}"
    return replace(message, content=f"{content[: -len(own)]}{quoted}", own=quoted)


def _field(named: Placeholders, value: object) -> Any:
    """Return a field of the request. A pseudonym of the gateway is not searched."""
    return value if isinstance(value, str) and _PSEUDONYM.fullmatch(value) else named.strings(value)


def _fields(named: Placeholders, extra: Mapping[str, object]) -> dict[str, Any]:
    return {name: _field(named, value) for name, value in extra.items()}


def _call(named: Placeholders, call: ToolCall) -> ToolCall:
    return replace(call, arguments=named.arguments(call.arguments)) if call.arguments else call


def _content(named: Placeholders, content: str | tuple[Part, ...]) -> Any:
    """Return the content of a message, whose neighbouring texts are also read as one."""
    if isinstance(content, Quoting):
        return f"{content.head}{_content(named, content.quoted)}{content.tail}"
    if isinstance(content, Excerpt):
        return named.within(content.before, str(content), content.after)
    if isinstance(content, str):
        return named(content)
    parts: list[Part] = []
    for are_texts, neighbours in groupby(content, lambda part: isinstance(part, TextPart)):
        group: Any = tuple(neighbours)
        parts += _as_one(named, [group])[0] if are_texts else group
    return tuple(parts)  # of the kinds that the content had


def _as_one(named: Placeholders, contents: Sequence[str | tuple[TextPart, ...]]) -> list[Any]:
    """Return contents of the same kinds, whose texts are also read as one text.

    A part that becomes empty is left out, and its cache mark moves to the part before.
    """
    parts = [(at, part) for at, it in enumerate(contents) for part in ((TextPart(it),) if isinstance(it, str) else it)]
    kept: list[tuple[int, TextPart]] = []
    for (at, before), after in zip(parts, named.parts([part.text for _, part in parts]), strict=True):
        if after or not before.text:
            kept.append((at, replace(before, text=after) if after != before.text else before))
        elif before.cache is not None:
            place, last = kept[-1]  # the one in which the value begins
            kept[-1] = place, replace(last, cache=before.cache)
    found: list[Any] = []
    for at, content in enumerate(contents):
        mine = tuple([part for place, part in kept if place == at])
        is_text = isinstance(content, str) and all(part.cache is None for part in mine)
        found.append("".join([part.text for part in mine]) if is_text else mine)
    return found


# --- tools and schemas ----------------------------------------------------------------------------


def _tool(named: Placeholders, tool: Tool, dropped: set[str]) -> Tool:
    description, parameters = named.strings(tool.description), _schema(named, tool.parameters, dropped)
    return replace(tool, description=description, parameters=parameters)


def _schema(named: Placeholders, schema: object, dropped: set[str]) -> Any:
    """Return a schema whose texts have placeholders, without the keys that a placeholder need not fulfil.

    Names of properties and patterns stay. `dropped` gets the keys that were left out.
    """
    if isinstance(schema, list | tuple):
        return [_schema(named, item, dropped) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    changed: dict[str, object] = {}
    for name, value in schema.items():
        if name in _LEFT_OUT:
            dropped.add(name)
        elif name in _TEXTS:
            changed[name] = named.strings(value)
        elif name in _NAMED and isinstance(value, Mapping):
            changed[name] = {key: _schema(named, inner, dropped) for key, inner in value.items()}
        else:
            changed[name] = _schema(named, value, dropped)
    return changed


# --- embeddings and moderations -------------------------------------------------------------------


def _input(request: InputRequest, named: Placeholders, rules: RedactionRules, **changes: Any) -> Redacted:
    """Return a request with its changed members, or the request itself if no value was found."""
    return Redacted(replace(request, **changes) if named else request, None, named.counts, frozenset(), rules)


def _embeddings(request: EmbeddingRequest, rules: RedactionRules) -> Redacted:
    if request.takes_tokens:
        raise NotRedactable("its input is tokens, in which no values are found")
    named = Placeholders(rules, Clock())
    user, extra = _field(named, request.user), _fields(named, request.extra)
    inputs = tuple([named.apart().strings(text) for text in request.inputs])
    return _input(request, named, rules, user=user, extra=extra, inputs=inputs)


def _moderations(request: ModerationRequest, rules: RedactionRules) -> Redacted:
    named = Placeholders(rules, Clock())
    extra = _fields(named, request.extra)
    inputs = tuple([_content(named.apart(), content) for content in request.inputs])
    prompt = _content(named.apart(), request.prompt) if request.prompt is not None else None
    return _input(request, named, rules, extra=extra, inputs=inputs, prompt=prompt)


def _rerank(request: RerankRequest, rules: RedactionRules) -> Redacted:
    """Number query and documents together, also where they are sent in several calls."""
    named = Placeholders(rules, Clock())
    query, _, documents = named(request.query), named.strings(request.before), named.strings(request.documents)
    return _input(request, named, rules, query=query, documents=documents, extra=_fields(named, request.extra))
