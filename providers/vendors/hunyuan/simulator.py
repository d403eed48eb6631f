"""The simulator of Hunyuan's native API: signed requests, answers in `Response`, errors with status 200.

Otherwise, its requests and answers have the form of the vendor's compatible API, in PascalCase.

Source: Tencent Cloud API 3.0, hunyuan 2023-09-01, and tencentcloud-sdk-python-hunyuan 3.1.180, read 2026-11-20. It may
be stricter than the vendor in two points: unknown fields are always refused, and so is a user message directly after a
tool result, which the vendor does not document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from providers.catalogue import FactsFile
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, load_models, model_facts
from providers.chat import ChatCompletion, ChatRequest
from providers.compatible.dialect import CompatibleDialect, read_dialect
from providers.compatible.simulator import simulator_named
from providers.compatible.simulator_answer import SimulatorFormat, encode_answer, encode_chunks, encode_event
from providers.compatible.simulator_request import as_openai, objections
from providers.failures import FailureKind, InvalidRequest
from providers.json_values import JsonError, as_map, dumps, loads, loads_text, read_list, read_map, read_str
from providers.openai_json import decode_request
from providers.testkit.answer_pieces import with_stop_left_in
from providers.testkit.simulator import IncomingRequest, RequestRejected, failure_text
from providers.value import replace
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.hunyuan", "hunyuan")
_ACTION = {"x-tc-action": "ChatCompletions", "x-tc-version": "2023-09-01"}
_AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 Credential=[^/,\s]+/(?P<date>\d{4}-\d\d-\d\d)/hunyuan/tc3_request, "
    r"SignedHeaders=content-type;host, Signature=[0-9a-f]{64}"
)
_INVALID = "InvalidParameter"
_TOO_LONG = (
    "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens. "
    "Please reduce the length of the input messages."
)
_SERVER_ERROR_IN_A_STREAM = 4000


@cache
def _dialect() -> CompatibleDialect:
    return read_dialect(as_map(_FACTS.read()["dialect"]))


@dataclass(frozen=True, slots=True)
class HunyuanSimulator:
    """See `providers.testkit.simulator.Simulator`."""

    name: str = "hunyuan"

    @property
    def format(self) -> SimulatorFormat:
        """The form of answers. Each event has usage."""
        return replace(simulator_named("hunyuan-compatible").format, usage="each")

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        """See `providers.testkit.simulator.Simulator`. The form of the signature is checked, not its key."""
        if incoming.method != "POST" or not incoming.path.endswith("/"):
            raise _refused("InvalidRequest", f"{incoming.method} {incoming.path} is not an action")
        for code, message in _refusals_of_head(incoming.headers):
            raise _refused(code, message)
        try:
            body = _as_compatible(as_map(loads(incoming.body)))
        except JsonError:
            raise _refused(_INVALID, "The body is not valid JSON.") from None
        facts = self._facts(read_str(body, "model") or "")
        for code, message in (*_refusals(body, facts), *_objections(body, facts, incoming.path)):
            raise _refused(code, message)
        try:
            return decode_request(as_openai(body, _dialect(), facts))
        except InvalidRequest as error:
            raise _refused(_INVALID, str(error)) from None

    def _facts(self, model: str) -> ModelFacts:
        facts = model_facts(load_models(_FACTS), model)
        return ModelFacts(features=_dialect().native) if facts is UNKNOWN_MODEL else facts

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`."""
        answer = as_map(_native(encode_answer(with_stop_left_in(completion, request), self.format)))
        body = {"Response": {**answer, "RequestId": completion.id}}
        return WireResponse(200, _headers(completion.id), dumps(body), 0)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `providers.testkit.simulator.Simulator`. There is no end mark."""
        chunks = encode_chunks(with_stop_left_in(completion, request), self.format)
        return tuple(encode_event(_native(_with_texts(as_map(chunk))), self.format) for chunk in chunks)

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`."""
        code = self.format.errors.get(kind) or self.format.errors[FailureKind.UNAVAILABLE]
        return WireResponse(status, _headers("simulated"), dumps(_error(code[0], failure_text(kind, _TOO_LONG))), 0)

    def write_error_event(self, kind: FailureKind) -> bytes:
        """See `providers.testkit.simulator.Simulator`."""
        code, _ = self.format.errors[kind] if kind is not FailureKind.UNAVAILABLE else (_SERVER_ERROR_IN_A_STREAM, "")
        return encode_event({"ErrorMsg": {"Msg": failure_text(kind, _TOO_LONG), "Code": code}}, self.format)


def _with_texts(chunk: Mapping[str, object]) -> dict[str, object]:
    """Return a chunk in which each choice has a text and a finish, which may be empty, as the vendor's chunks have."""
    choices = [
        {
            **choice,
            "delta": {**delta, "content": delta.get("content") or ""},
            "finish_reason": choice.get("finish_reason") or "",
        }
        for choice in map(as_map, read_list(chunk, "choices"))
        for delta in (read_map(choice, "delta"),)
    ]
    return {**chunk, "choices": choices}


def _refusals_of_head(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield an error for a wrong action, and for a signature of the wrong form or date. Any key will do."""
    for name, value in _ACTION.items():
        if headers.get(name) != value:
            yield "InvalidAction", f"{name} must be {value}"
    signed = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    timestamp = headers.get("x-tc-timestamp", "")
    if signed is None or not timestamp.isdigit():
        yield "AuthFailure.SignatureFailure", "The request has no signature in the form of TC3-HMAC-SHA256."
    elif datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%d") != signed["date"]:
        yield "AuthFailure.SignatureExpire", "The date of the signature is not the timestamp's, in UTC."


def _refusals(body: Mapping[str, object], facts: ModelFacts) -> Iterator[tuple[str, str]]:
    """Yield the errors of a parsed body that only the native API has."""
    messages = [as_map(message) for message in read_list(body, "messages")]
    if not read_str(body, "model"):
        yield "InvalidParameterValue.Model", "Model does not exist."
    if next((message.get("role") for message in messages if message.get("role") != "system"), "") == "assistant":
        yield _INVALID, "The first message must be of the role user or tool."
    for parts in (read_list(message, "content") for message in messages):
        if parts and not any(as_map(part).get("type") == "text" for part in parts):
            yield _INVALID, "Contents must have a text."
    if "enable_thinking" in body and "enable_thinking" not in facts.flags:
        yield _INVALID, "EnableThinking is not supported by this model."


def _objections(body: Mapping[str, object], facts: ModelFacts, path: str) -> Iterator[tuple[str, str]]:
    """Yield the errors that the compatible API has too."""
    for message in objections(body, _dialect(), facts, path):
        yield ("UnknownParameter" if "Extra inputs" in message else _INVALID), message


def _as_compatible(native: Mapping[str, object]) -> dict[str, object]:
    """Return the request in the form of the compatible API."""
    body: dict[str, Any] = dict(as_map(_plain(native)))
    messages = [as_map(message) for message in read_list(body, "messages")]
    body["messages"] = [
        {"content" if name == "contents" else name: value for name, value in message.items()} for message in messages
    ]
    for tool in read_list(body, "tools"):
        if isinstance(function := as_map(tool).get("function"), dict):
            function["parameters"] = _schema(function)
    if custom := read_map(read_map(body, "custom_tool"), "function"):
        del body["custom_tool"]
        body["tool_choice"] = {"type": "function", "function": {"name": custom.get("name")}}
    return body


def _plain(value: object) -> object:
    """Return the value with the names of the compatible API."""
    if isinstance(value, list):
        return [_plain(member) for member in value]
    names = {name: re.sub(r"\B([A-Z])", r"_\1", name).lower() for name in as_map(value)}
    return {names[name]: _plain(member) for name, member in as_map(value).items()} if names else value


def _native(value: object) -> object:
    """Return the value with the names of the native API."""
    if isinstance(value, list):
        return [_native(member) for member in value]
    names = {name: name.title().replace("_", "") for name in as_map(value)}
    return {names[name]: _native(member) for name, member in as_map(value).items()} if names else value


def _schema(function: Mapping[str, object]) -> object:
    try:
        schema = loads_text(read_str(function, "parameters") or "")
    except JsonError:
        return None
    return schema if isinstance(schema, dict) else None


def _refused(code: str, message: str) -> RequestRejected:
    return RequestRejected(message, WireResponse(200, _headers("simulated"), dumps(_error(code, message)), 0))


def _error(code: str, message: str) -> dict[str, object]:
    return {"Response": {"Error": {"Code": code, "Message": message}, "RequestId": "simulated"}}


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": "application/json", "x-tc-requestid": request_id}


SIMULATOR = HunyuanSimulator()
