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
from gateway.features.redaction.policy.answers import AnswerRestorer
from gateway.features.redaction.policy.finding import Clock
from gateway.features.redaction.policy.placeholders import Placeholders
from gateway.model.excerpt import Excerpt, Own, Quoting
from gateway.model.served import ServedRequest
from gateway.model.wrapper import NotWrappable, Wrapped, WrapperNote
from providers import chat
from providers.inputs.audio.values import SpeechRequest, TranscriptionRequest
from providers.inputs.decisions.values import DecisionQuestion, DecisionRequest, JsonPart, Option
from providers.inputs.embeddings.values import EmbeddingRequest
from providers.inputs.rerank.values import RerankRequest
from providers.moderations.values import ModerationRequest
from providers.served import InputRequest
from providers.value import replace

NOTICE = (
    "Words such as QEMAIL1Z stand for real values that you are not shown. Use each one exactly as it is written, as if "
    "it were the value. Do not explain, translate, split, change or invent such words."
)
"""The system message that a model gets with a request that has placeholders."""
_PREDICTION = "prediction"
_PSEUDONYM = re.compile("p_[0-9a-f]{32}")
_AS_IS = frozenset({"type", "required", "$ref"})
"""The keys of a schema whose values stay: they name types, properties and schemas."""
_INSTANCES = frozenset({"default", "const", "enum", "examples", "example"})
"""The keys of a schema that have values of the described kind, which have no schema in them."""
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""The keys of a schema that have schemas by name."""
_SCHEMAS = frozenset({
    "additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "contentSchema", "else", "if", "items",
    "not", "oneOf", "prefixItems", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
})  # fmt: skip
"""The keys of a schema that have a schema, or a list of them."""
_LEFT_OUT = frozenset({"pattern", "format", "minLength", "maxLength"})
"""The keys of a schema that a placeholder need not fulfil."""
_BROKEN = frozenset({"$id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$schema"})
"""Further keys of a schema in whose values a placeholder would break it."""
_ESCAPED = re.compile(r"\\([^A-Za-z0-9])|\[([^\]])\]")
"""A character that stands for itself in a regular expression."""


class Redacted(Wrapped, frozen=True):
    """A request as its recipient gets it, with the placeholders of a chat by which its answer is restored.

    See `Wrapped`.
    """

    placeholders: Placeholders | None = None

    @property
    def values(self) -> tuple[str, ...]:
        if self.placeholders is None:
            return ()
        return tuple(f"{kind}:{value}" for value, kind in self.placeholders.kinds_of_values.items())

    def wrap_text(self, text: str) -> str:
        return self.placeholders(text) if self.placeholders is not None else text

    def restorer(self, note: WrapperNote, *, is_json: bool) -> AnswerRestorer | None:
        return AnswerRestorer(self.placeholders, is_json=is_json, note=note) if self.placeholders is not None else None


def redact(request: ServedRequest, rules: RedactionRules) -> Redacted:
    """Return the request with placeholders.

    Raises NotWrappable for media, tokens or log probabilities of placeholders, and TooMuchToSearch for a request that
    is too large, or has too many values.
    """
    if rules.media == "refuse" and _has_media(request):
        raise NotWrappable("it has media, in which no values are found")
    match request:
        case chat.ChatRequest():
            return _chat(request, rules)
        case EmbeddingRequest():
            return _embeddings(request, rules)
        case ModerationRequest():
            return _moderations(request, rules)
        case RerankRequest():
            return _rerank(request, rules)
        case DecisionRequest():
            return _decisions(request, rules)
        case TranscriptionRequest() | SpeechRequest():
            return _audio(request, rules)
    raise NotWrappable("its texts are unknown")


def _has_media(request: ServedRequest) -> bool:
    contents: Iterable[object] = ()
    if isinstance(request, chat.ChatRequest | DecisionRequest):
        contents = [message.content for message in request.messages]
    elif isinstance(request, ModerationRequest):
        contents = request.inputs
    elif request.has_file:
        return True
    return any(not isinstance(part, chat.TextPart) for it in contents if isinstance(it, tuple) for part in it)


# --- chats ----------------------------------------------------------------------------------------


def _chat(request: chat.ChatRequest, rules: RedactionRules) -> Redacted:
    named = Placeholders(rules, Clock())
    schemas = _Schemas(named)
    changes = _changes(request, named, schemas)
    if not named:
        if not schemas.break_by_values():
            return Redacted(request, {}, frozenset())
        schemas = _Schemas(named, keeps_others=True)
        changed = replace(request, **_changes(request, named, schemas))
        return Redacted(changed, {}, frozenset(schemas.dropped))
    if request.logprobs or request.top_logprobs:
        raise NotWrappable("it asks for log probabilities, which would be those of placeholders")
    # The system message about placeholders stands before the first message of another role.
    messages = changes["messages"]
    first = next((at for at, it in enumerate(messages) if not isinstance(it, chat.SystemMessage)), len(messages))
    changes["messages"] = (*messages[:first], chat.SystemMessage(NOTICE), *messages[first:])
    return Redacted(replace(request, **changes), named.counts, frozenset(schemas.dropped), named)


def _changes(request: chat.ChatRequest, named: Placeholders, schemas: _Schemas) -> dict[str, Any]:
    changes: dict[str, Any] = {"user": _field(named, request.user)}
    extra = _fields(named, {name: value for name, value in request.extra.items() if name != _PREDICTION})
    changes["tools"] = tuple([schemas.tool(tool) for tool in request.tools])
    if isinstance(answer := request.response_format, chat.JsonSchemaFormat):
        name, description = named(answer.name), named.strings(answer.description)
        changes["response_format"] = replace(
            answer, name=name, schema=schemas.changed(answer.schema), description=description
        )
    changes["messages"] = _messages(named, request.messages, schemas)
    changes["stop"] = named.strings(request.stop)
    if _PREDICTION in request.extra:
        extra[_PREDICTION] = named.strings(request.extra[_PREDICTION])
    changes["extra"] = {name: extra[name] for name in request.extra}
    return changes


def _messages(named: Placeholders, messages: tuple[chat.Message, ...], schemas: _Schemas) -> tuple[chat.Message, ...]:
    """Return messages with placeholders.

    The client's system messages at the beginning are read as one text, too: Messages and Gemini make one of each part.
    """
    first = next((at for at, it in enumerate(messages) if not isinstance(it, chat.SystemMessage)), len(messages))
    leading = [it for it in messages[:first] if isinstance(it, chat.SystemMessage) and it.own is None]
    if len(leading) < 2:
        return tuple([_message(named, message, schemas) for message in messages])
    contents = dict(zip(map(id, leading), _as_one(named, [it.content for it in leading]), strict=True))
    changed: list[chat.Message] = []
    for message in messages:
        content = contents.get(id(message))
        if content is None or not isinstance(message, chat.SystemMessage):
            changed.append(_message(named, message, schemas))
        elif content or not message.content:
            changed.append(replace(message, content=content, name=named.strings(message.name)))
    return tuple(changed)


def _message(named: Placeholders, message: chat.Message, schemas: _Schemas) -> chat.Message:
    match message:
        case chat.SystemMessage():
            if message.own is not None:
                return _own_message(named, message, schemas)
            return replace(message, content=_content(named, message.content), name=named.strings(message.name))
        case chat.UserMessage():
            return replace(message, content=_content(named, message.content), name=named.strings(message.name))
        case chat.ToolMessage():
            return replace(message, content=_content(named, message.content))
        case chat.AssistantMessage():
            if isinstance(message.content, Excerpt):
                # The gateway repeats a part of an answer, which is text alone.
                return replace(message, content=_content(named, message.content))
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


def _own_message(named: Placeholders, message: chat.SystemMessage, schemas: _Schemas) -> chat.SystemMessage:
    """Return a message of the gateway, of which only the client's text and schema at its end are searched."""
    content, own = message.content, message.own
    if not own or not isinstance(content, str):
        return message
    text, _, schema = own.rpartition("\n\n")
    changed = schemas.changed(json.loads(schema))
    quoted = f"{named(text)}\n\n{json.dumps(changed, ensure_ascii=False, separators=(',', ':'))}"
    return replace(message, content=f"{content[: -len(own)]}{quoted}", own=quoted)


def _field(named: Placeholders, value: object) -> Any:
    """Return a field of the request. A pseudonym of the gateway is not searched."""
    return value if isinstance(value, str) and _PSEUDONYM.fullmatch(value) else named.strings(value)


def _fields(named: Placeholders, extra: Mapping[str, object]) -> dict[str, Any]:
    return {name: _field(named, value) for name, value in extra.items()}


def _call(named: Placeholders, call: chat.ToolCall) -> chat.ToolCall:
    return replace(call, arguments=named.arguments(call.arguments)) if call.arguments else call


def _content(named: Placeholders, content: str | tuple[chat.Part, ...]) -> Any:
    """Return the content of a message, whose neighbouring texts are also read as one."""
    if isinstance(content, Own):
        return content
    if isinstance(content, Quoting):
        return "".join([_content(named, part) for part in content.parts])
    if isinstance(content, Excerpt):
        return named.within(content.before, str(content), content.after)
    if isinstance(content, str):
        return named(content)
    parts: list[chat.Part] = []
    for are_texts, neighbours in groupby(content, _is_text):
        group: Any = tuple(neighbours)
        parts += _as_one(named, [group])[0] if are_texts else [_json(named, part) for part in group]
    return tuple(parts)  # of the kinds that the content had


def _is_text(part: chat.Part) -> bool:
    return isinstance(part, chat.TextPart) and not isinstance(part, JsonPart)


def _json(named: Placeholders, part: chat.Part) -> chat.Part:
    return replace(part, text=named.json_text(part.text)) if isinstance(part, JsonPart) else part


def _as_one(named: Placeholders, contents: Sequence[str | tuple[chat.TextPart, ...]]) -> list[Any]:
    """Return contents of the same kinds, whose texts are also read as one text.

    A part that becomes empty is left out, and its cache mark moves to the part before.
    """
    parts = [
        (at, part) for at, it in enumerate(contents) for part in ((chat.TextPart(it),) if isinstance(it, str) else it)
    ]
    kept: list[tuple[int, chat.TextPart]] = []
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


class _Schemas:
    """Replaces the values of schemas: every string, but those that name types, properties and other schemas.

    A placeholder in a schema that is not fulfilled by it would be an error, so some members are left out: those of
    `_LEFT_OUT` in any request with a placeholder, and those in whose value a placeholder would break the schema.

    Args:
        keeps_others: Of `_LEFT_OUT`, only members with a value in them are left out, because the request has no other.

    Attributes:
        dropped: The keys that were left out.
    """

    def __init__(self, named: Placeholders, *, keeps_others: bool = False) -> None:
        self._named = named
        self._keeps_others = keeps_others
        self._unread: list[object] = []
        self._broken = False
        self.dropped: set[str] = set()

    def break_by_values(self) -> bool:
        """Return whether a member was left out in whose value a placeholder would stand."""
        return self._broken or any(map(self._has_value, self._unread))

    def tool(self, tool: chat.Tool) -> chat.Tool:
        """Return a tool with placeholders. Its name stays."""
        description, parameters = self._named.strings(tool.description), self.changed(tool.parameters)
        return replace(tool, description=description, parameters=parameters, own=self.changed(tool.own))

    def changed(self, schema: object) -> Any:
        """Return a schema with placeholders. The names of its properties stay."""
        return self._changed(schema, is_schema=True)

    def _changed(self, value: object, *, is_schema: bool) -> Any:
        """Return a schema, or an unknown member, of which every string is searched, with placeholders."""
        if isinstance(value, str):
            return self._named(value)
        if isinstance(value, list | tuple):
            return [self._changed(item, is_schema=is_schema) for item in value]
        if not isinstance(value, Mapping):
            return value
        changed: dict[str, object] = {}
        for name, inner in value.items():
            if self._is_left_out(name, inner):
                self.dropped.add(name)
            elif is_schema and name in _AS_IS:
                changed[name] = inner
            elif name in _INSTANCES:
                changed[name] = self._named.strings(inner)
            elif name in _NAMED and isinstance(inner, Mapping):
                changed[name] = {key: self._changed(item, is_schema=is_schema) for key, item in inner.items()}
            else:
                changed[name] = self._changed(inner, is_schema=is_schema and name in _SCHEMAS)
        return changed

    def _is_left_out(self, name: str, value: object) -> bool:
        if name in _LEFT_OUT and not self._keeps_others:
            # Whether it has a value counts only if the rest of the request has none.
            self._unread.append(value)
            return True
        if name not in _BROKEN and name not in _LEFT_OUT:
            return False
        is_broken = self._has_value(value)
        self._broken = self._broken or is_broken
        return is_broken

    def _has_value(self, value: object) -> bool:
        """Return whether a value is in a member, also as a regular expression writes it."""
        if isinstance(value, str):
            plain = _ESCAPED.sub(r"\1\2", value)
            return self._named.finds(value) or (plain != value and self._named.finds(plain))
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        return any(map(self._has_value, inner))


# --- embeddings and moderations -------------------------------------------------------------------


def _input(request: InputRequest, named: Placeholders, **changes: Any) -> Redacted:
    """Return a request with its changed members, or the request itself if no value was found."""
    return Redacted(replace(request, **changes) if named else request, named.counts, frozenset())


def _embeddings(request: EmbeddingRequest, rules: RedactionRules) -> Redacted:
    if request.takes_tokens:
        raise NotWrappable("its input is tokens, in which no values are found")
    named = Placeholders(rules, Clock())
    user, extra = _field(named, request.user), _fields(named, request.extra)
    inputs = tuple([named.apart().strings(text) for text in request.inputs])
    return _input(request, named, user=user, extra=extra, inputs=inputs)


def _moderations(request: ModerationRequest, rules: RedactionRules) -> Redacted:
    named = Placeholders(rules, Clock())
    extra = _fields(named, request.extra)
    inputs = tuple([_content(named.apart(), content) for content in request.inputs])
    prompt = _content(named.apart(), request.prompt) if request.prompt is not None else None
    return _input(request, named, extra=extra, inputs=inputs, prompt=prompt)


def _audio(request: TranscriptionRequest | SpeechRequest, rules: RedactionRules) -> Redacted:
    """Return the request as it is if its texts have no value: a placeholder is neither spoken nor restored."""
    named = Placeholders(rules, Clock())
    _fields(named, request.extra)
    voice = (request.voice,) if isinstance(request, SpeechRequest) else ()
    for text in (*request.texts(), *voice):
        named(text)
    if named:
        raise NotWrappable("its texts have personal values, and a placeholder cannot be spoken")
    return _input(request, named)


def _rerank(request: RerankRequest, rules: RedactionRules) -> Redacted:
    """Number query and documents together, also where they are sent in several calls."""
    named = Placeholders(rules, Clock())
    query, _, documents = named(request.query), named.strings(request.before), named.strings(request.documents)
    return _input(request, named, query=query, documents=documents, extra=_fields(named, request.extra))


def _decisions(request: DecisionRequest, rules: RedactionRules) -> Redacted:
    """Number input and questions together, also where these are sent in several calls. Nothing is restored."""
    named = Placeholders(rules, Clock())
    given, schemas = request.input, _Schemas(named)
    content = named(given) if isinstance(given, str) else _messages(named, given, schemas)
    _, questions = ([_question(named, it) for it in some] for some in (request.before, request.questions))
    return _input(request, named, input=content, questions=tuple(questions), extra=_fields(named, request.extra))


def _question(named: Placeholders, question: DecisionQuestion) -> DecisionQuestion:
    instructions = named(question.instructions)
    options = [Option(named.strings(it.value), named.strings(it.description)) for it in question.options]
    return replace(question, instructions=instructions, options=tuple(options))
