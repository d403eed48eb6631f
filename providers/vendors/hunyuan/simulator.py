"""The simulator of Hunyuan's native API: signed requests, answers in `Response`, errors with status 200.

Source: Tencent Cloud API 3.0 and tencentcloud-sdk-python-hunyuan 3.1.180, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from providers.catalogue import FactsFile
from providers.catalogue.models import UNKNOWN_MODEL, ModelFacts, load_models, model_facts
from providers.chat import ChatCompletion, ChatRequest, Choice, ToolCall, Usage, said_in
from providers.failures import FailureKind, InvalidRequest
from providers.json_values import JsonError, as_map, dumps, loads, read_str
from providers.openai_json import decode_request
from providers.testkit.answer_pieces import cut, cut_in_two, with_stop_left_in
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.hunyuan.simulator_request import as_openai, refusals, refusals_of_head
from providers.wire import WireResponse

_FACTS = FactsFile("providers.vendors.hunyuan", "hunyuan")
_NOTE = "以上内容为AI生成，不代表开发者立场，请勿删除或修改本标记"
_SENSITIVE = "sensitive"
_ERRORS = {
    FailureKind.RATE_LIMITED: "RequestLimitExceeded",
    FailureKind.QUOTA: "FailedOperation.ResourcePackExhausted",
    FailureKind.CREDENTIALS: "AuthFailure.SecretIdNotFound",
    FailureKind.GEO_REFUSED: "UnauthorizedOperation",
    FailureKind.MODEL_NOT_FOUND: "InvalidParameterValue.Model",
    FailureKind.CONTEXT_LENGTH: "InvalidParameter",
    FailureKind.CONTENT_FILTER: "OperationDenied.TextIllegalDetected",
    FailureKind.INVALID_REQUEST: "InvalidParameter",
}
_TOO_LONG = (
    "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens. "
    "Please reduce the length of the input messages."
)
_SERVER_ERROR = "FailedOperation.EngineServerError"


@dataclass(frozen=True, slots=True)
class HunyuanSimulator:
    """See `providers.testkit.simulator.Simulator`."""

    name: str = "hunyuan"

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        """See `providers.testkit.simulator.Simulator`. The form of the signature is checked, not its key."""
        if incoming.method != "POST" or not incoming.path.endswith("/"):
            raise _refused("InvalidRequest", f"{incoming.method} {incoming.path} is not an action")
        for code, message in refusals_of_head(incoming.headers):
            raise _refused(code, message)
        try:
            body = as_map(loads(incoming.body))
        except JsonError:
            raise _refused("InvalidParameter", "The body is not valid JSON.") from None
        for code, message in refusals(body, self._facts(read_str(body, "Model") or "")):
            raise _refused(code, message)
        try:
            return decode_request(as_openai(body))
        except InvalidRequest as error:
            raise _refused("InvalidParameter", str(error)) from None

    def _facts(self, model: str) -> ModelFacts:
        facts = model_facts(load_models(_FACTS), model)
        return ModelFacts(features=frozenset({"tools", "vision"})) if facts is UNKNOWN_MODEL else facts

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`."""
        completion = with_stop_left_in(completion, request)
        choices = [
            {"Index": choice.index, "FinishReason": _finish_reason(choice), "Message": _message(choice)}
            for choice in completion.choices
        ]
        answer = {**_head(completion), "Choices": choices, **_usage(completion.usage), "RequestId": completion.id}
        return WireResponse(200, _headers(completion.id), dumps({"Response": answer}), 0)

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """See `providers.testkit.simulator.Simulator`. Each event has usage; there is no end mark."""
        events = []
        completion = with_stop_left_in(completion, request)
        for choice in completion.choices:
            for delta, reason in _deltas(choice):
                entry = {"Index": choice.index, "Delta": {"Role": "assistant", **delta}, "FinishReason": reason}
                events.append(_event({**_head(completion), "Choices": [entry], **_usage(completion.usage)}))
        return tuple(events)

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """See `providers.testkit.simulator.Simulator`."""
        body = _error(_ERRORS.get(kind, _SERVER_ERROR), _error_text(kind))
        return WireResponse(status, _headers("simulated"), dumps(body), 0)

    def write_error_event(self, kind: FailureKind) -> bytes:
        """See `providers.testkit.simulator.Simulator`."""
        code = _ERRORS.get(kind, 4000)
        return _event({"ErrorMsg": {"Msg": _error_text(kind), "Code": code}})


def _error_text(kind: FailureKind) -> str:
    return _TOO_LONG if kind is FailureKind.CONTEXT_LENGTH else f"Simulated failure: {kind.value}."


def _refused(code: str, message: str) -> RequestRejected:
    return RequestRejected(message, WireResponse(200, _headers("simulated"), dumps(_error(code, message)), 0))


def _error(code: str, message: str) -> dict[str, object]:
    return {"Response": {"Error": {"Code": code, "Message": message}, "RequestId": "simulated"}}


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": "application/json", "x-tc-requestid": request_id}


def _event(value: Mapping[str, object]) -> bytes:
    return b"data: " + dumps(value) + b"\n\n"


def _head(completion: ChatCompletion) -> dict[str, object]:
    return {"Note": _NOTE, "Created": completion.created, "Id": completion.id}


def _finish_reason(choice: Choice) -> str:
    reason = _SENSITIVE if choice.finish_reason == "content_filter" else choice.finish_reason
    return choice.raw_finish_reason or reason


def _message(choice: Choice) -> dict[str, object]:
    message = choice.message
    body: dict[str, object] = {"Role": "assistant", "Content": said_in(message)}
    if message.reasoning is not None:
        body["ReasoningContent"] = message.reasoning
    if message.tool_calls:
        body["ToolCalls"] = [_call(index, call, call.arguments) for index, call in enumerate(message.tool_calls)]
    return body


def _deltas(choice: Choice) -> Iterator[tuple[dict[str, object], str]]:
    message = choice.message
    for piece in cut(message.reasoning or ""):
        yield {"Content": "", "ReasoningContent": piece}, ""
    for piece in cut(said_in(message)):
        yield {"Content": piece}, ""
    for index, call in enumerate(message.tool_calls):
        for half in cut_in_two(call.arguments) or ("",):
            yield {"Content": "", "ToolCalls": [_call(index, call, half)]}, ""
    yield {"Content": ""}, _finish_reason(choice)


def _call(index: int, call: ToolCall, arguments: str) -> dict[str, object]:
    function = {"Name": call.name, "Arguments": arguments}
    return {"Id": call.id, "Type": "function", "Index": index, "Function": function}


def _usage(usage: Usage | None) -> dict[str, object]:
    if usage is None:
        return {}
    counts: dict[str, object] = {
        "PromptTokens": usage.prompt_tokens,
        "CompletionTokens": usage.completion_tokens,
        "TotalTokens": usage.total_tokens,
        "PromptTokensDetails": {"CachedTokens": str(usage.cached_tokens)},
        "CompletionTokensDetails": {"ReasoningTokens": usage.reasoning_tokens},
    }
    return {"Usage": counts}


SIMULATOR = HunyuanSimulator()
