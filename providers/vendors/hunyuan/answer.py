"""Read Hunyuan's native answers. Whole answers are in `Response`, stream events are not; errors have status 200.

Source: tencentcloud-sdk-python-hunyuan 3.1.180 (models, errorcodes) and the vendor's error-code page, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.chat import ChatCompletion, FinishReason, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import are_counts, as_map, read_count, read_int, read_list, read_map, read_str
from providers.openai_json.read_errors import TOO_LONG
from providers.reading.error_classification import by_code, by_status, error_object, failure, plain_text
from providers.reading.folding import fold
from providers.reading.stream_assembler import Assembler
from providers.reading.token_counts import count_completion
from providers.wire import WireResponse

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "sensitive": "content_filter",
    "content_filter": "content_filter",
}
# An entry covers its sub-codes; the longest match wins.
_BY_CODE = {
    "AuthFailure": FailureKind.CREDENTIALS,
    "FailedOperation.ConsoleServerError": FailureKind.UNAVAILABLE,
    "FailedOperation.EngineRequestTimeout": FailureKind.UNAVAILABLE,
    "FailedOperation.EngineServerError": FailureKind.UNAVAILABLE,
    "FailedOperation.EngineServerLimitExceeded": FailureKind.RATE_LIMITED,
    "FailedOperation.FreeResourcePackExhausted": FailureKind.QUOTA,
    "FailedOperation.ResourcePackExhausted": FailureKind.QUOTA,
    "FailedOperation.ServiceNotActivated": FailureKind.QUOTA,
    "FailedOperation.ServiceStop": FailureKind.QUOTA,
    "FailedOperation.ServiceStopArrears": FailureKind.QUOTA,
    "FailedOperation.UserUnAuthError": FailureKind.CREDENTIALS,
    "InternalError": FailureKind.UNAVAILABLE,
    "InvalidParameter": FailureKind.INVALID_REQUEST,
    "InvalidParameterValue": FailureKind.INVALID_REQUEST,
    "InvalidParameterValue.Model": FailureKind.MODEL_NOT_FOUND,
    "LimitExceeded": FailureKind.RATE_LIMITED,
    "MissingParameter": FailureKind.INVALID_REQUEST,
    "OperationDenied.ImageIllegalDetected": FailureKind.CONTENT_FILTER,
    "OperationDenied.TextIllegalDetected": FailureKind.CONTENT_FILTER,
    "RequestLimitExceeded": FailureKind.RATE_LIMITED,
    "ResourceInsufficient": FailureKind.QUOTA,
    "ResourceUnavailable": FailureKind.QUOTA,
    "UnauthorizedOperation": FailureKind.CREDENTIALS,
    "UnknownParameter": FailureKind.INVALID_REQUEST,
    "UnsupportedRegion": FailureKind.CREDENTIALS,
}
_MODERATED = "1"
_NO_HTTP_ERROR = 200


def read_completion(response: WireResponse, model: str) -> ChatCompletion:
    """Read the whole answer of a 2xx body.

    Raises:
        ProviderFailed: The body is an error with status 200, or has no choices.
    """
    body = error_object(response.body)
    answer = read_map(body, "Response") or body
    if _error_of(answer):
        raise ProviderFailed(classify(body, response))
    if not read_list(answer, "Choices") and not _is_moderated(answer):
        raise ProviderFailed(failure(response, FailureKind.MALFORMED, detail="no choices in the answer"))
    reader = HunyuanReader(model)
    reader.read_chunk(answer, "message")
    reader.assembler.complete()
    return fold(reader.assembler.take())


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure for an error body: by its code, else by the HTTP status."""
    answer = read_map(body, "Response") or body
    error = _error_of(answer)
    code = read_str(error, "Code") or str(read_int(error, "Code") or "")
    kind = by_code(code, _BY_CODE)
    if kind is None:
        kind = by_status(response.status) if response.status >= 400 else FailureKind.UNAVAILABLE
    detail = read_str(error, "Message") or read_str(error, "Msg") or plain_text(response)
    # No sentence of the vendor's own is documented. Its servers of open models repeat vLLM's.
    kind = TOO_LONG.kind_of(kind, detail)
    if kind is FailureKind.CREDENTIALS:
        detail = f"the key may belong to Tencent Cloud's other site (mainland or international): {detail}"
    return failure(response, kind, code=code or None, detail=detail, request_id=read_str(answer, "RequestId"))


def _is_moderated(source: Mapping[str, object]) -> bool:
    """Return whether this choice, or this answer, is marked as blocked by the vendor's safety system."""
    return read_str(source, "ModerationLevel") == _MODERATED


def _error_of(answer: Mapping[str, object]) -> Mapping[str, object]:
    return read_map(answer, "Error") or read_map(answer, "ErrorMsg")


class HunyuanReader:
    """Read the events of one answer into its `assembler`."""

    def __init__(self, model: str) -> None:
        self.assembler = Assembler(model)

    def read_chunk(self, chunk: Mapping[str, object], event: str) -> None:
        """Read one event, or a whole answer, which may be in `Response`."""
        answer = read_map(chunk, "Response") or chunk
        if _error_of(answer):
            self.assembler.fail(classify(answer, WireResponse(_NO_HTTP_ERROR, {}, b"", 0)))
            return
        id = read_str(answer, "Id") or read_str(answer, "RequestId")
        self.assembler.identify(id=id, created=read_int(answer, "Created"))
        blocked = _is_moderated(answer)
        choices = read_list(answer, "Choices")
        if blocked and not choices:
            # The vendor sends no choice for a blocked answer.
            self.assembler.filtered()
        for entry in choices:
            choice = as_map(entry)
            self._read_choice(choice, blocked or _is_moderated(choice))
        if usage := read_map(answer, "Usage"):
            self.assembler.usage(_usage(usage))

    def _read_choice(self, source: Mapping[str, object], blocked: bool) -> None:
        index = read_int(source, "Index") or 0
        message = read_map(source, "Delta") or read_map(source, "Message")
        if thoughts := read_str(message, "ReasoningContent"):
            self.assembler.reasoning(thoughts, index)
        if text := read_str(message, "Content"):
            self.assembler.text(text, index)
        for entry in read_list(message, "ToolCalls"):
            self._read_call(as_map(entry), index)
        if blocked:
            self.assembler.filtered(index)
        raw_reason = read_str(source, "FinishReason")
        if raw_reason:
            reason = _FINISH.get(raw_reason, "other")
            self.assembler.finish(reason, index, raw_reason[:100] if reason == "other" else None)
        else:
            self.assembler.see(index)

    def _read_call(self, source: Mapping[str, object], choice: int) -> None:
        function = read_map(source, "Function")
        self.assembler.tool_call(
            read_str(function, "Arguments") or "",
            choice=choice,
            index=read_int(source, "Index"),
            id=read_str(source, "Id"),
            name=read_str(function, "Name"),
        )


def _usage(source: Mapping[str, object]) -> Usage:
    # This vendor sends the count of cached tokens as a string.
    prompt, completion = read_count(source, "PromptTokens"), read_count(source, "CompletionTokens")
    reasoning = read_count(read_map(source, "CompletionTokensDetails"), "ReasoningTokens")
    return Usage(
        prompt if are_counts(source, "PromptTokens", "CompletionTokens") else 0,
        count_completion(prompt, completion, reasoning, source.get("TotalTokens")),
        read_count(read_map(source, "PromptTokensDetails"), "CachedTokens"),
        reasoning,
    )
