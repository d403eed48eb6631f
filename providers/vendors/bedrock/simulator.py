"""The simulator of Bedrock's Converse.

It reads requests leniently: as those of Anthropic's Messages, which have the same blocks under other names. Unknown
fields and odd conversations are accepted. The tests check the adapter's requests against botocore's model.

Source of formats and refusals: botocore 1.44.5 (the service model of bedrock-runtime), docs.aws.amazon.com; read
2026-11-20.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from providers.catalogue import FactsFile
from providers.chat import ChatCompletion, ChatRequest, Choice, Usage, text_of
from providers.failures import FailureKind, InvalidRequest
from providers.json_values import JsonError, as_list, as_map, dumps, loads, loads_text, read_list, read_map, read_str
from providers.openai_json.fields import integer, mapping
from providers.testkit.answer_pieces import arguments_of, cut, cut_in_two
from providers.testkit.claude_messages import read_body as read_messages
from providers.testkit.request_checks import required_objects
from providers.testkit.simulator import IncomingRequest, RequestRejected, error_words, failure_text
from providers.value import replace
from providers.vendors.bedrock.event_stream import CONTENT_TYPE, encode_message
from providers.wire import WireResponse

_PATH = re.compile(r"(/[^?#]*)?/(?P<model>[^/?#]+)/(?P<method>converse|converse-stream)")
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/[a-z0-9-]+/bedrock/aws4_request, "
    r"SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*x-amz-date[a-z0-9;-]*, Signature=[0-9a-f]{64}"
)
_REQUEST_ID = "00000000-0000-4000-8000-000000000000"
_HEADERS = {"content-type": "application/json", "x-amzn-requestid": _REQUEST_ID}
_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "content_filtered"}
_WORDS = error_words(FactsFile("providers.vendors.bedrock", "bedrock"))
_TOO_LONG = "Input is too long for requested model."
_IN_A_STREAM = frozenset({"ThrottlingException", "ValidationException", "ServiceUnavailableException"})


@dataclass(frozen=True, slots=True)
class BedrockSimulator:
    """See `providers.testkit.simulator.Simulator`. Streams use Amazon's binary framing."""

    name: str = "bedrock"
    stream_type: str = CONTENT_TYPE

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        path = _PATH.fullmatch(incoming.path)
        if incoming.method != "POST" or path is None:
            raise _refused(404, "UnknownOperationException", f"no operation at {incoming.path[:200]}")
        is_signed = _SIGNED.fullmatch(incoming.headers.get("authorization", "")) and incoming.headers.get("x-amz-date")
        if not is_signed and not incoming.bearer:
            raise _refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        try:
            body = loads(incoming.body)
            return read_body(body, unquote(path["model"]), stream=path["method"] == "converse-stream")
        except JsonError:
            raise _refused(400, "SerializationException", "The request body is not valid JSON") from None
        except InvalidRequest as error:
            raise _refused(400, "ValidationException", str(error)) from None

    def refuse_token(self) -> WireResponse:
        return _refused(403, "ExpiredTokenException", "The security token included in the request is expired").response

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        choice = completion.choices[0]
        message = {"role": "assistant", "content": list(_blocks(choice))}
        body = {
            "output": {"message": message},
            "stopReason": _stop_reason(choice),
            "usage": _usage(completion.usage),
            "metrics": {"latencyMs": 1},
        }
        return WireResponse(200, _HEADERS, dumps(body), 0)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `providers.testkit.simulator.Simulator`. Usage is sent after the end of the message."""
        choice = completion.choices[0]
        events = [_event("messageStart", {"role": "assistant"})]
        for index, block in enumerate(_blocks(choice)):
            events += _block_events(index, block)
        events.append(_event("messageStop", {"stopReason": _stop_reason(choice)}))
        return (*events, _event("metadata", {"usage": _usage(completion.usage), "metrics": {"latencyMs": 1}}))

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`. There is no `retry-after`. A filtered answer is not an error."""
        if kind is FailureKind.CONTENT_FILTER:
            usage = _usage(None)
            body = {"output": {"message": {"role": "assistant", "content": []}}, "stopReason": "content_filtered"}
            return WireResponse(200, _HEADERS, dumps({**body, "usage": usage}), 0)
        return _error(status, _WORDS.of(kind, status), failure_text(kind, _TOO_LONG))

    def write_error_event(self, kind: FailureKind) -> bytes:
        """See `providers.testkit.simulator.Simulator`. A filtered answer ends with `content_filtered`."""
        if kind is FailureKind.CONTENT_FILTER:
            return _event("messageStop", {"stopReason": "content_filtered"})
        name = _WORDS.of(kind, 503)
        message = failure_text(kind, _TOO_LONG)
        if name not in _IN_A_STREAM:
            return encode_message({":message-type": "error", ":error-code": name, ":error-message": message}, b"")
        headers = {":exception-type": name[0].lower() + name[1:], ":content-type": "application/json"}
        return encode_message({**headers, ":message-type": "exception"}, dumps({"message": message}))


def _refused(status: int, name: str, message: str) -> RequestRejected:
    return RequestRejected(message, _error(status, name, message))


def _error(status: int, name: str, message: str) -> WireResponse:
    return WireResponse(status, {**_HEADERS, "x-amzn-errortype": f"{name}:"}, dumps({"message": message}), 0)


def _event(name: str, body: Mapping[str, object]) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, dumps(body))


def _stop_reason(choice: Choice) -> str:
    return choice.raw_finish_reason or _STOP.get(choice.finish_reason, choice.finish_reason)


def _usage(usage: Usage | None) -> dict[str, object]:
    usage = usage or Usage()
    return {
        "inputTokens": usage.prompt_tokens - usage.cached_tokens,
        "outputTokens": usage.completion_tokens,
        "totalTokens": usage.total_tokens,
        "cacheReadInputTokens": usage.cached_tokens,
    }


def _blocks(choice: Choice) -> Iterator[dict[str, object]]:
    message = choice.message
    if message.reasoning:
        signature = base64.b64encode(b"simulated thought").decode()
        yield {"reasoningContent": {"reasoningText": {"text": message.reasoning, "signature": signature}}}
    if text := text_of(message.content) + (message.refusal or ""):
        yield {"text": text}
    for call in message.tool_calls:
        yield {"toolUse": {"toolUseId": call.id, "name": call.name, "input": arguments_of(call)}}


def _block_events(index: int, block: Mapping[str, object]) -> Iterator[bytes]:
    """Yield the events of a block. Only a tool call has a start event."""
    deltas: list[dict[str, object]]
    if use := as_map(block.get("toolUse")):
        start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
        yield _event("contentBlockStart", {"start": start, "contentBlockIndex": index})
        pieces = cut_in_two(dumps(use["input"]).decode()) if use["input"] else ("",)
        deltas = [{"toolUse": {"input": piece}} for piece in pieces]
    elif thought := as_map(as_map(block.get("reasoningContent")).get("reasoningText")):
        deltas = [{"reasoningContent": {"text": piece}} for piece in cut(str(thought["text"]))]
        deltas.append({"reasoningContent": {"signature": thought["signature"]}})
    else:
        deltas = [{"text": piece} for piece in cut(str(block["text"]))]
    for delta in deltas:
        yield _event("contentBlockDelta", {"delta": delta, "contentBlockIndex": index})
    yield _event("contentBlockStop", {"contentBlockIndex": index})


SIMULATOR = BedrockSimulator()


_DOCUMENTS = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
}


_CHOICES = ("tool", "any", "auto")


def read_body(value: object, model: str, *, stream: bool) -> ChatRequest:
    """Return the request. Raises InvalidRequest without messages."""
    body = mapping(value, "request")
    config, tools = read_map(body, "inferenceConfig"), read_map(body, "toolConfig")
    own, output = read_map(body, "additionalModelRequestFields"), read_map(body, "outputConfig")
    specs = [read_map(as_map(entry), "toolSpec") for entry in read_list(tools, "tools")]
    choice = read_map(tools, "toolChoice")
    messages = {
        "model": model,
        "stream": stream,
        "system": body.get("system"),
        "messages": [
            {"role": entry.get("role"), "content": _read_blocks(entry.get("content"))}
            for entry in required_objects(body, "messages")
        ],
        "temperature": config.get("temperature"),
        "top_p": config.get("topP"),
        "stop_sequences": config.get("stopSequences"),
        "tools": [{**it, "input_schema": read_map(it, "inputSchema").get("json")} for it in specs],
        "tool_choice": next(({"type": kind, **as_map(choice[kind])} for kind in _CHOICES if kind in choice), {}),
        "thinking": own.get("thinking"),
        "output_config": {"effort": output.get("effort"), "format": {"schema": _schema(output)}},
    }
    return replace(
        read_messages(messages),
        max_tokens=integer(config, "maxTokens", "inferenceConfig.maxTokens", 1, 2**31),
        extra={name: value for name, value in own.items() if name != "thinking"},
    )


def _read_blocks(content: object) -> list[object]:
    return [_read_block(as_map(block)) for block in as_list(content)]


def _read_block(block: Mapping[str, object]) -> dict[str, object]:
    if image := read_map(block, "image"):
        return {"type": "image", "source": _source(image, f"image/{image.get('format')}")}
    if document := read_map(block, "document"):
        mime = _DOCUMENTS.get(read_str(document, "format") or "", "application/octet-stream")
        return {"type": "document", "source": _source(document, mime), "title": document.get("name")}
    if use := read_map(block, "toolUse"):
        return {"type": "tool_use", "id": use.get("toolUseId"), "name": use.get("name"), "input": use.get("input")}
    if result := read_map(block, "toolResult"):
        is_error = result.get("status") == "error"
        content = _read_blocks(result.get("content"))
        return {"type": "tool_result", "tool_use_id": result.get("toolUseId"), "content": content, "is_error": is_error}
    if thought := read_map(read_map(block, "reasoningContent"), "reasoningText"):
        return {"type": "thinking", "thinking": thought.get("text")}
    # A thought without text, and the mark of a cache, have nothing to read.
    return {"type": "text", "text": block["text"]} if "text" in block else {}


def _source(block: Mapping[str, object], mime: str) -> dict[str, object]:
    return {"media_type": mime, "data": read_map(block, "source").get("bytes")}


def _schema(output: Mapping[str, object]) -> object:
    text_format = read_map(output, "textFormat")
    if not text_format:
        return None
    try:
        return loads_text(read_str(read_map(read_map(text_format, "structure"), "jsonSchema"), "schema") or "")
    except JsonError:
        path = "outputConfig.textFormat.structure.jsonSchema.schema"
        raise InvalidRequest(f"{path} is not a valid JSON schema", path) from None
