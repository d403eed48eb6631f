"""Classify Alibaba Cloud's error codes. Its Anthropic-compatible endpoint sends them too.

Source: Alibaba Cloud Model Studio, error codes, and dashscope 2.0.2, read 2026-11-20.
"""

from __future__ import annotations

from providers.failures import FailureKind
from providers.reading.error_classification import Phrases, by_code

# An entry covers its sub-codes (`AccessDenied` also covers `AccessDenied.Unpurchased`); the longest match wins. Codes
# of status 500 and 503 are not listed, because the status is enough. A 400 with `InternalError.Algo` is an invalid
# request, but a 500 with `InternalError.Algo.InvalidParameter` is not.
# `insufficient_quota` is a limit on tokens per minute here, unlike at OpenAI.
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


_WRAPPER = "InternalError.Algo."


def kind_of_code(code: str) -> FailureKind | None:
    """Return the failure kind of a native code, or None if the status decides."""
    return by_code(code.removeprefix(_WRAPPER), _BY_CODE)


# A model that streams only, and a request without a stream. The gateway chooses whether it requests a stream, because
# it can fold one. So the catalogue lacks a fact, and the client is not to blame. ModelScope has the last sentence.
# source: infiniflow/ragflow, issue 7506; BerriAI/litellm, issue 10938; langgenius/dify-official-plugins, pull request
# 2626; musistudio/claude-code-router, issue 948; as_of 2026-11-23.
STREAMS_ONLY = Phrases(
    {
        f"{prefix}{sentence}": FailureKind.FIELD_REFUSED
        for prefix in ("", "<400> InternalError.Algo.InvalidParameter: ")
        for sentence in (
            "This model only support stream mode, please enable the stream parameter to access the model.",
            "parameter.enable_thinking must be set to false for non-streaming calls",
            "parameter.enable_thinking only support stream",
            "parameter.enable_thinking only support stream call",
            "This model only supports incremental_output set to True.",
            "enable thinking can not be support when `stream=False`.",
        )
    }
)
