"""Classify errors in OpenAI's wire format by code, type and message."""

from __future__ import annotations

import re
from collections.abc import Mapping

from providers.failures import Failure, FailureKind
from providers.formats.alibaba_error_codes import STREAMS_ONLY
from providers.json_values import read_int, read_map, read_str
from providers.reading.error_classification import Phrases, by_status, failure, mistakes_in
from providers.reading.rate_limits import LimitHeaders
from providers.wire import WireResponse

_OUTERMOST = re.compile(r"[.\[]")


_FIELDS = {
    "input": "messages",
    "instructions": "messages",
    "max_output_tokens": "max_completion_tokens",
    "reasoning": "reasoning_effort",
    "text": "response_format",
}


def chat_param(param: str | None) -> str | None:
    """Return the chat field for a parameter of the Responses API, without its inner path. Other fields are unchanged.

    An inner path is dropped, because an item of `input` is less than a message.
    """
    if not param:
        return None
    return _FIELDS.get(_OUTERMOST.split(param, maxsplit=1)[0], param)


# Messages of a 400 without a code about settings of the operator: a model's name or a key.
_OF_OPERATORS = Phrases(
    dict.fromkeys(
        (
            "invalid model ID",  # OpenAI, for a name that no model can have
            "model not found",  # llama.cpp as a router
            "model '{model}' not found",
            "{model} is not a valid model ID",  # OpenRouter
            # LiteLLM's proxy; some versions write the exception, some its detail.
            "/chat/completions: Invalid model name passed in model={model}. Call `/v1/models` to view available models "
            "for your key.",
            "{'error': '/chat/completions: Invalid model name passed in model={model}. Call `/v1/models` to view "
            "available models for your key.'}",
        ),
        FailureKind.MODEL_NOT_FOUND,
    )
    | dict.fromkeys(  # xAI
        (
            "Incorrect API key provided. You can obtain an API key from https://console.x.ai.",
            "Incorrect API key provided: {key}. You can obtain an API key from https://console.x.ai.",
        ),
        FailureKind.CREDENTIALS,
    )
)


_LIMIT = "This model's maximum context length is {most} tokens. However, "


_EITHER = "Please reduce the length of the input prompt or the number of requested output tokens."


# Messages of vLLM. DeepSeek has the first of them.
_OF_VLLM = (
    f"{_LIMIT}you requested {{all}} tokens ({{prompt}} in the messages, {{answer}} in the completion). "
    "Please reduce the length of the messages or completion.",
    f"{_LIMIT}you requested {{prompt}} tokens in the messages, Please reduce the length of the messages.",
    f"{_LIMIT}your request has {{prompt}} input tokens. Please reduce the length of the input messages.",
    f"{_LIMIT}you requested {{answer}} output tokens and your prompt contains at least {{prompt}} input tokens, "
    f"for a total of at least {{all}} tokens. {_EITHER}",
    f"{_LIMIT}you requested {{answer}} output tokens and your prompt contains {{prompt}} input tokens, "
    f"for a total of {{all}} tokens ({{prompt}} + {{answer}} = {{all}} > {{most}}). {_EITHER}",
    "'max_tokens' or 'max_completion_tokens' is too large: {answer}. This model's maximum context length is {most} "
    "tokens and your request has {prompt} input tokens ({answer} > {most} - {prompt}).",
    "You passed {prompt} input tokens and requested {answer} output tokens. However, the model's context length is "
    "only {most} tokens, resulting in a maximum input length of {room} tokens. "
    "Please reduce the length of the input prompt.",
)


_ENDS = ("", " None", " (parameter={parameter}, value={value})")


_OTHERS = (
    # SGLang; the first is Together's, too.
    "The input ({prompt} tokens) is longer than the model's context length ({most} tokens).",
    "Requested token count exceeds the model's maximum context length of {most} tokens. You requested a total of "
    "{all} tokens: {prompt} tokens from the input messages and {answer} tokens for the completion. Please reduce the "
    "number of tokens in the input messages or the completion to fit within the limit.",
    # xAI
    "This model's maximum prompt length is {most} but the request contains {prompt} tokens.",
    # OpenRouter
    *(
        "This endpoint's maximum context length is {most} tokens. However, you requested about {all} tokens ({prompt} "
        f"of text input, {tools}{{answer}} in the output). Please reduce the length of either one, or use the {how} "
        "to compress your prompt automatically."
        for tools in ("", "{tools} of tool input, ")
        for how in ('"middle-out" transform', "context-compression plugin")
    ),
)


TOO_LONG = Phrases(
    dict.fromkeys(
        (*(f"{sentence}{end}" for sentence in _OF_VLLM for end in _ENDS), *_OTHERS),
        FailureKind.CONTEXT_LENGTH,
    )
)


# xAI answers 403 for blocked content; at other vendors 403 concerns the key. source: bodies captured by several
# projects.
_BLOCKED = Phrases(
    {
        f"Content violates usage guidelines. {whose}Failed check: {{check}}": FailureKind.CONTENT_FILTER
        for whose in (
            "",
            "Team: {team}, API key ID: {key}, ",
            "Team: {team}, API key ID: {key}, Model: {model}, ",
        )
    },
    instead_of=FailureKind.CREDENTIALS,
)


# xAI answers 429 for spent credits, too. source: continuedev/continue, issue 10373; as_of 2026-02-09.
_SPENT = Phrases(
    {
        "Your team {team} has either used all available credits or reached its monthly spending limit. To continue "
        "making API requests, please purchase more credits or raise your spending limit.": FailureKind.QUOTA
    },
    instead_of=FailureKind.RATE_LIMITED,
)


def by_sentence(kind: FailureKind, text: str) -> FailureKind:
    """Return the kind of an error by its whole message, or else `kind`, that by its code and status."""
    for phrases in (_OF_OPERATORS, TOO_LONG, _BLOCKED, _SPENT, STREAMS_ONLY):
        kind = phrases.kind_of(kind, text)
    return kind


def code_of_block(error: Mapping[str, object]) -> str | None:
    """Return the code for an error that reports blocked content in another member than `code`.

    OpenAI has `misalignment`. OpenRouter has `metadata` of a moderation error, whose 403 would otherwise concern the
    key.
    """
    if error.get("misalignment"):
        return "misalignment_policy_violation"
    return "content_policy_violation" if "flagged_input" in read_map(error, "metadata") else None


_LIMITS = LimitHeaders()


BY_CODE = {
    "context_length_exceeded": FailureKind.CONTEXT_LENGTH,
    "insufficient_quota": FailureKind.QUOTA,
    "billing_not_active": FailureKind.QUOTA,
    "billing_hard_limit_reached": FailureKind.QUOTA,
    # "Retrying these errors won't restore access", whatever the type. source: help.openai.com, 5955604 and 6614457.
    "credit_balance_exhausted": FailureKind.QUOTA,
    "organization_spend_limit_exceeded": FailureKind.QUOTA,
    "organization_usage_limit_exceeded": FailureKind.QUOTA,
    "project_spend_limit_exceeded": FailureKind.QUOTA,
    "invalid_prompt": FailureKind.CONTENT_FILTER,
    "content_policy_violation": FailureKind.CONTENT_FILTER,
    "content_filter": FailureKind.CONTENT_FILTER,
    "bio_policy": FailureKind.CONTENT_FILTER,
    "misalignment_policy_violation": FailureKind.CONTENT_FILTER,
    "image_content_policy_violation": FailureKind.CONTENT_FILTER,
    # Codes of DashScope, which is also called in OpenAI's wire format: in its compatible mode or through a proxy.
    "data_inspection_failed": FailureKind.CONTENT_FILTER,
    "DataInspectionFailed": FailureKind.CONTENT_FILTER,
    "InternalError.Algo.DataInspectionFailed": FailureKind.CONTENT_FILTER,
    "CustomRoleBlocked": FailureKind.CONTENT_FILTER,
    "FaqRuleBlocked": FailureKind.CONTENT_FILTER,
    "IPInfringementSuspect": FailureKind.CONTENT_FILTER,
    "data_residency_mismatch": FailureKind.CREDENTIALS,
    "unsupported_country_region_territory": FailureKind.GEO_REFUSED,
    "incorrect_hostname": FailureKind.CREDENTIALS,
    "invalid_api_key": FailureKind.CREDENTIALS,
    "model_not_found": FailureKind.MODEL_NOT_FOUND,
    "rate_limit_exceeded": FailureKind.RATE_LIMITED,
}


BY_TYPE = {
    "invalid_request_error": FailureKind.INVALID_REQUEST,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "authentication_error": FailureKind.CREDENTIALS,
    "permission_error": FailureKind.CREDENTIALS,
    "insufficient_quota": FailureKind.QUOTA,
}


NO_HTTP_ERROR = 200


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Classify an error body: by its code, then its type, then the HTTP status. The whole message may refine the kind.

    `error` is an object at OpenAI, a string at some servers, and absent if its fields are at the top level.
    """
    error = body.get("error")
    source = error if isinstance(error, dict) else body
    text = error if isinstance(error, str) else read_str(source, "message") or mistakes_in(body)
    code = read_str(source, "code") or code_of_block(source)
    word = read_str(source, "type")
    status = response.status if response.status >= 400 else read_int(source, "code") or NO_HTTP_ERROR
    kind = BY_CODE.get(code or "") or BY_CODE.get(word or "")
    if kind is None and response.status < 400:
        kind = BY_TYPE.get(word or "") or (by_status(status) if 400 <= status < 600 else FailureKind.UNAVAILABLE)
    kind = kind or by_status(status)
    if kind is FailureKind.RATE_LIMITED and word == "insufficient_quota":
        kind = FailureKind.QUOTA
    return failure(
        response,
        by_sentence(kind, text or ""),
        code=code or word,
        detail=text,
        param=chat_param(read_str(source, "param")),
        request_id=read_str(body, "request_id"),
        limits=_LIMITS,
    )
