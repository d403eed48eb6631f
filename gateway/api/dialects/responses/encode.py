"""Write items, usage and the object `response`, for whole answers and for the events of a stream.

Texts are passed as the inside of a JSON string (`escaped`), because a stream receives and sends them in that form.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec
import orjson

from gateway.api.dialects.labelling import MEMBER, label_answer
from gateway.api.dialects.responses.echo import echo_of, encode_echo
from gateway.api.dialects.responses.tools import CUSTOM, INPUT, TOOL_SEARCH, ToolNames
from gateway.execution.exchange import AnswerStyle
from gateway.execution.resume_request import estimated_tokens
from gateway.model.record import Record
from providers import chat
from providers.chat.messages import is_data_uri, split_data_uri
from providers.formats.reasoning_state import join_call_id
from providers.value import Value

_INCOMPLETE: dict[chat.FinishReason, bytes] = {
    "length": b"max_output_tokens",
    "content_filter": b"content_filter",
    # An unknown reason is never presented as a natural end.
    "other": b"max_output_tokens",
}
_BYTES_A_TOKEN = 4
_WRITTEN = ("text", "refusal", "arguments", "input")
"""The members of items and their parts that have what a model wrote."""
_NO_ECHO = encode_echo(echo_of({}, (), ToolNames()), 0)
USUAL_TIER = b"default"
_TIERS = chat.SERVICE_TIERS - {"auto"}
_EMPTY = chat.Choice(chat.AssistantMessage(""), "stop")
COMPLETED, INCOMPLETE, FAILED, IN_PROGRESS = b"completed", b"incomplete", b"failed", b"in_progress"


class ResponsesRequest(Value, frozen=True):
    """The parts of a request on which its answer depends."""

    echo: bytes = _NO_ECHO
    """The members of `response` that repeat the request, as JSON with a comma before each."""
    names: ToolNames = msgspec.field(default_factory=ToolNames)
    wants_state: bool = False
    """The client takes reasoning state as `encrypted_content`. Else it is in the ids of calls, as in chat."""
    body_bytes: int = 0
    previous: str | None = None
    """The id of the answer that it continues, over WebSocket."""


def escape(text: str) -> bytes:
    """Return a text as the inside of a JSON string."""
    return orjson.dumps(text)[1:-1]


def item_id(kind: bytes, record: Record, index: int) -> bytes:
    """Return the id of the item at this position of `output`. `kind` is a prefix such as `msg`."""
    return b"%b_%b_%d" % (kind, escape(record.request_id), index)


def text_part(escaped: bytes, annotations: bytes = b"[]", logprobs: bytes = b"[]") -> bytes:
    """Return the part of a message with the model's text."""
    return b'{"type":"output_text","annotations":%b,"logprobs":%b,"text":"%b"}' % (annotations, logprobs, escaped)


def refusal_part(escaped: bytes) -> bytes:
    """Return the part of a message with the model's refusal."""
    return b'{"type":"refusal","refusal":"%b"}' % escaped


def message_item(id: bytes, status: bytes, parts: Sequence[bytes]) -> bytes:
    """Return a message of the model."""
    members = id, status, b",".join(parts)
    return b'{"id":"%b","type":"message","status":"%b","role":"assistant","content":[%b]}' % members


def summary_part(escaped: bytes) -> bytes:
    """Return the part of a reasoning item with its text."""
    return b'{"type":"summary_text","text":"%b"}' % escaped


def reasoning_item(id: bytes, status: bytes, summary: bytes, state: str | None) -> bytes:
    """Return a reasoning item of the parts of a summary, with commas, and the opaque state of the model, if any."""
    opaque = b"" if state is None else b',"encrypted_content":' + orjson.dumps(state)
    return b'{"id":"%b","type":"reasoning","status":"%b","summary":[%b]%b}' % (id, status, summary, opaque)


def image_item(id: bytes, url: str) -> bytes:
    """Return an image that the model has generated: its data in base64, or its address if that is all that is known."""
    result = orjson.dumps(split_data_uri(url)[1] if is_data_uri(url) else url)
    return b'{"id":"%b","type":"image_generation_call","status":"completed","result":%b}' % (id, result)


def call_item(id: bytes, status: bytes, call: bytes, arguments: bytes, kind: str | None = None) -> bytes:
    """Return a call of its members that do not change, escaped arguments, and a kind of `ToolNames.kinds`."""
    if kind == CUSTOM:
        given = escape(custom_input(arguments))
        return b'{"id":"%b","type":"custom_tool_call","status":"%b",%b,"input":"%b"}' % (id, status, call, given)
    if kind == TOOL_SEARCH:
        found = orjson.dumps(_object_in(arguments) or {})
        return b'{"id":"%b","type":"tool_search_call","status":"%b",%b,"arguments":%b}' % (id, status, call, found)
    return b'{"id":"%b","type":"function_call","status":"%b",%b,"arguments":"%b"}' % (id, status, call, arguments)


def custom_input(arguments: bytes) -> str:
    """Return the input of a custom tool. `arguments` (escaped): of the function that stands for it.

    Some models name the only argument otherwise, or write the plain input.
    """
    value = _object_in(arguments) or {}
    given = value.get(INPUT, next(iter(value.values())) if len(value) == 1 else None)
    return given if isinstance(given, str) else orjson.loads(b'"%b"' % arguments)


def _object_in(arguments: bytes) -> dict[str, object] | None:
    try:
        value = orjson.loads(orjson.loads(b'"%b"' % arguments))
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def call_members(call_id: str, name: str, signature: str | None, asked: ResponsesRequest) -> bytes:
    """Return the members of a function call that do not change: its id, its name and its group."""
    outward = call_id if asked.wants_state else join_call_id(call_id, signature)
    namespace, plain = asked.names.split(name)
    if asked.names.kinds.get(name) == TOOL_SEARCH:
        return orjson.dumps({"call_id": outward, "execution": "client"})[1:-1]
    members = {"call_id": outward, "name": plain}
    if namespace is not None:
        members["namespace"] = namespace
    return orjson.dumps(members)[1:-1]


def encode_usage(usage: chat.Usage) -> bytes:
    """Return token counts."""
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},"output_tokens":%d,'
        b'"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
    ) % (
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
        usage.prompt_tokens + usage.completion_tokens,
    )


def estimated_usage(asked: ResponsesRequest, output: bytes) -> chat.Usage:
    """Return an estimate of the usage of these items, whose provider counted nothing. Both counts are above 0."""
    items = orjson.loads(b"[%b]" % output)
    parts = [part for item in items for part in (item, *item.get("content", ()), *item.get("summary", ()))]
    words = [part[name] for part in parts for name in _WRITTEN if isinstance(part.get(name), str)]
    return chat.Usage(max(1, asked.body_bytes // _BYTES_A_TOKEN), max(1, estimated_tokens("".join(words))))


def encode_logprobs(logprobs: chat.Logprobs) -> bytes:
    """Return the log probabilities of a text, as a list of tokens."""
    tokens = logprobs.get("content")
    return orjson.dumps(tokens if isinstance(tokens, list | tuple) else [])


def encode_annotation(annotation: chat.Annotation) -> Mapping[str, object]:
    """Return an annotation. In chat, the members of a citation are in an object with the name of its type."""
    kind = annotation.get("type")
    inner = annotation.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, dict) else annotation


class ResponseHead(msgspec.Struct):
    """The members of `response` that are the same in each of its occurrences, such as `created` in Unix seconds."""

    record: Record
    asked: ResponsesRequest
    model: str
    created: int
    tier: bytes = USUAL_TIER

    def encode(
        self,
        status: bytes,
        output: bytes = b"",
        usage: bytes = b"null",
        error: bytes = b"null",
        finish: chat.FinishReason = "stop",
        member: Mapping[str, object] | None = None,
    ) -> bytes:
        """Return the object with these items, between which are commas, and the value of `x_gateway`."""
        details = b'{"reason":"%b"}' % _INCOMPLETE[finish] if status == INCOMPLETE else b"null"
        created, completed = self.created, b"null"
        if status == COMPLETED or not created:
            now = time.time()
            created = created or int(now)
            if status == COMPLETED:
                completed = b"%d" % (now if now > created else created)
        return (
            b'{"id":"resp_%b","object":"response","created_at":%d,"completed_at":%b,"status":"%b","background":false,'
            b'"error":%b,"incomplete_details":%b,"model":%b,"output":[%b],"previous_response_id":%b,"store":false,'
            b'"max_tool_calls":null,"truncation":"disabled","service_tier":"%b"%b,"usage":%b%b}'
        ) % (
            escape(self.record.request_id),
            created,
            completed,
            status,
            error,
            details,
            orjson.dumps(self.model),
            output,
            orjson.dumps(self.asked.previous),
            self.tier,
            self.asked.echo,
            usage,
            b',"%b":%b' % (MEMBER.encode(), orjson.dumps(member)) if member else b"",
        )


def tier_of(tier: str, style: AnswerStyle) -> bytes:
    """Return the provider's word for how it processed the request, if the model is revealed, or else the usual one."""
    return tier.encode() if tier in _TIERS and style.shown_model is None else USUAL_TIER


def status_of(finish: chat.FinishReason) -> bytes:
    """Return the status of an answer that ended for this reason."""
    return INCOMPLETE if finish in _INCOMPLETE else COMPLETED


def encode_answer(
    completion: chat.ChatCompletion, style: AnswerStyle, record: Record, asked: ResponsesRequest
) -> bytes:
    """Return the body of a whole answer. An answer of this API has one choice."""
    completion, member = label_answer(completion, style, record, is_estimated=completion.usage is None)
    choice = completion.choices[0] if completion.choices else _EMPTY
    status = status_of(choice.finish_reason)
    tier = USUAL_TIER if completion.service_tier is None else tier_of(completion.service_tier, style)
    head = ResponseHead(record, asked, style.shown_model or completion.model, completion.created, tier)
    output = b",".join(_items(choice, status, record, asked))
    usage = completion.usage or estimated_usage(asked, output)
    return head.encode(status, output, encode_usage(usage), finish=choice.finish_reason, member=member)


def _items(choice: chat.Choice, status: bytes, record: Record, asked: ResponsesRequest) -> list[bytes]:
    """Return the items of an answer. Only the last one can be incomplete."""
    message = choice.message
    written: list[bytes] = []
    content = message.content if isinstance(message.content, str) else chat.text_of(message.content)
    parts: list[bytes] = []
    if content or choice.logprobs:
        annotations = orjson.dumps([encode_annotation(one) for one in message.annotations])
        logprobs = encode_logprobs(choice.logprobs) if choice.logprobs else b"[]"
        parts.append(text_part(escape(content), annotations, logprobs))
    if message.refusal:
        parts.append(refusal_part(escape(message.refusal)))
    if not parts and not message.tool_calls and not message.images and status == COMPLETED:
        parts.append(text_part(b""))
    calls = message.tool_calls
    # The state of the first call belongs to the reasoning before it, if no text stands between.
    held = calls[0].signature if calls and asked.wants_state and not parts and message.reasoning else None

    def status_at(*, is_last: bool) -> bytes:
        return status if is_last else COMPLETED

    if message.reasoning:
        last = status_at(is_last=not parts and not calls)
        written.append(reasoning_item(item_id(b"rs", record, 0), last, summary_part(escape(message.reasoning)), held))
    if parts:
        written.append(message_item(item_id(b"msg", record, len(written)), status_at(is_last=not calls), parts))
    written += [image_item(item_id(b"ig", record, len(written) + n), url) for n, url in enumerate(message.images)]
    for position, call in enumerate(calls):
        if asked.wants_state and call.signature and not (position == 0 and held):
            written.append(reasoning_item(item_id(b"rs", record, len(written)), COMPLETED, b"", call.signature))
        members = call_members(call.id, call.name, call.signature, asked)
        last = status_at(is_last=position == len(calls) - 1)
        kind = asked.names.kinds.get(call.name)
        written.append(call_item(item_id(b"fc", record, len(written)), last, members, escape(call.arguments), kind))
    return written
