"""What DashScope's error codes mean: by code, else by status; by text, where that is a whole sentence.

Source: Alibaba Cloud Model Studio, error codes, and dashscope 2.0.2, read 2026-11-20. A prompt that is too long has
no code of its own (`InvalidParameter`, like any wrong request), but a sentence, and so has a model that lives on the
other of the two native paths.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.classify import blames_itself, by_code, by_status, failure, plain_text
from providers.failures import Failure, FailureKind
from providers.json_values import read_map, read_str
from providers.phrases import Phrases
from providers.wire import WireResponse

__all__ = ["classify", "holds_error", "kind_of_code"]

# An entry covers its own sub-codes (`AccessDenied` also `AccessDenied.Unpurchased`); the longer entry wins. The codes
# of status 500 and 503 are not here: the status says all. A 400 with `InternalError.Algo` is a wrong request, and a 500
# with `InternalError.Algo.InvalidParameter` none.
# `insufficient_quota` is a limit of tokens per minute here, unlike at OpenAI.
_BY_CODE = {
    "AccessDenied": FailureKind.CREDENTIALS,
    "AllocationQuota": FailureKind.QUOTA,
    "Arrearage": FailureKind.QUOTA,
    "BadRequest": FailureKind.INVALID_REQUEST,
    "CommodityNotPurchased": FailureKind.QUOTA,
    "CustomRoleBlocked": FailureKind.CONTENT_FILTER,
    "DataInspectionFailed": FailureKind.CONTENT_FILTER,
    "FaqRuleBlocked": FailureKind.CONTENT_FILTER,
    "IPInfringementSuspect": FailureKind.CONTENT_FILTER,
    "InvalidApiKey": FailureKind.CREDENTIALS,
    "InvalidParameter": FailureKind.INVALID_REQUEST,
    "InvalidURL": FailureKind.INVALID_REQUEST,
    "Model.AccessDenied": FailureKind.CREDENTIALS,
    "Model.NotExist": FailureKind.MODEL_NOT_FOUND,
    "ModelNotFound": FailureKind.MODEL_NOT_FOUND,
    "PostpaidBillOverdue": FailureKind.QUOTA,
    "PrepaidBillOverdue": FailureKind.QUOTA,
    "Throttling": FailureKind.RATE_LIMITED,
    "UnsupportedOperation": FailureKind.INVALID_REQUEST,
    "Workspace.AccessDenied": FailureKind.CREDENTIALS,
    "data_inspection_failed": FailureKind.CONTENT_FILTER,
    "insufficient_quota": FailureKind.RATE_LIMITED,
    "invalid_api_key": FailureKind.CREDENTIALS,
    "invalid_parameter_error": FailureKind.INVALID_REQUEST,
    "limit_burst_rate": FailureKind.RATE_LIMITED,
    "limit_requests": FailureKind.RATE_LIMITED,
    "model_not_found": FailureKind.MODEL_NOT_FOUND,
    "model_not_supported": FailureKind.MODEL_NOT_FOUND,
}
# A model's name has no code in some answers of the native API, and a prompt that is too long or a model's wrong path in
# none. source: bodies captured by several projects; as_of 2026-11-20.
_WRONG_PATH = Phrases({"url error, please check url！": FailureKind.MODEL_NOT_FOUND})
_MESSAGES = Phrases(
    {
        "Model not exist.": FailureKind.MODEL_NOT_FOUND,
        "Range of input length should be [1, {most}]": FailureKind.CONTEXT_LENGTH,
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, {most}]": (
            FailureKind.CONTEXT_LENGTH
        ),
    }
)
_WRAPPER = "InternalError.Algo."
_PATH_HINT = "`api` of the model in the catalogue's dashscope.toml names the wrong path"
_SITE_HINT = "a key belongs to one site, and this one may belong to another"


def holds_error(body: Mapping[str, object]) -> bool:
    """Whether a body is an error, whatever its status: a native one (`code` at the top) or the compatible API's."""
    return bool(read_str(body, "code") or body.get("error"))


def kind_of_code(code: str) -> FailureKind | None:
    """What a native code says by itself; None where it leaves that to the status."""
    return by_code(code.removeprefix(_WRAPPER), _BY_CODE)


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """The failure that an error body stands for; `response.status` is below 400 where only the body speaks."""
    source = read_map(body, "error") or body
    code = read_str(source, "code") or ""
    detail = read_str(source, "message") or read_str(body, "error") or plain_text(response)
    kind = kind_of_code(code)
    if kind is None or blames_itself(kind, response):
        kind = by_status(response.status) if response.status >= 400 else FailureKind.UNAVAILABLE
    if (told := _WRONG_PATH.kind_of(kind, detail)) is not kind:
        kind, detail = told, f"{_PATH_HINT}: {detail}"
    kind = _MESSAGES.kind_of(kind, detail)
    if kind is FailureKind.CREDENTIALS:
        detail = f"{_SITE_HINT}: {detail}"
    return failure(response, kind, code=code or None, detail=detail, request_id=read_str(body, "request_id"))
