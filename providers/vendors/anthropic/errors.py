"""Classify Anthropic's errors: by `details.error_code`, then `type`, then HTTP status, then known sentences.

Source: anthropic 2.10.0 (error types and codes), platform.claude.com on errors and rate limits, public captures of the
refusal by geography; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.failures import Failure, FailureKind
from providers.formats.alibaba_error_codes import STREAMS_ONLY, kind_of_code
from providers.json_values import read_map, read_str
from providers.reading.error_classification import Phrases, by_status, failure
from providers.reading.rate_limits import LimitHeaders
from providers.wire import WireResponse

_BY_CODE = {
    "cmek_key_disabled": FailureKind.CREDENTIALS,
    "cmek_key_network_blocked": FailureKind.CREDENTIALS,
    "contract_spend_limit_reached": FailureKind.QUOTA,
    "enforced_spend_limit_reached": FailureKind.QUOTA,
    "linked_organization_billing_unavailable": FailureKind.QUOTA,
    "linked_organization_spend_limit_reached": FailureKind.QUOTA,
    "organization_on_hold": FailureKind.CREDENTIALS,
    "organization_type_not_supported": FailureKind.CREDENTIALS,
    "ramp_limit_exceeded": FailureKind.RATE_LIMITED,
}
_BY_TYPE = {
    "api_error": FailureKind.UNAVAILABLE,
    "authentication_error": FailureKind.CREDENTIALS,
    "billing_error": FailureKind.QUOTA,
    "conflict_error": FailureKind.UNAVAILABLE,
    # An edge in front of the API does not serve the gateway's location.
    "forbidden": FailureKind.GEO_REFUSED,
    "invalid_request_error": FailureKind.INVALID_REQUEST,
    "not_found_error": FailureKind.MODEL_NOT_FOUND,
    "overloaded_error": FailureKind.UNAVAILABLE,
    "permission_error": FailureKind.CREDENTIALS,
    "rate_limit_error": FailureKind.RATE_LIMITED,
    "request_too_large": FailureKind.INVALID_REQUEST,
    "timeout_error": FailureKind.UNAVAILABLE,
}
# These errors have the type of an invalid request, and mostly no code. source: bodies captured by users, 2024-11 to
# 2026-08.
_MESSAGES = Phrases(
    {
        "prompt is too long: {tokens} tokens > {most} maximum": FailureKind.CONTEXT_LENGTH,
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
        "purchase credits.": FailureKind.QUOTA,
        "You have reached your specified API usage limits. You will regain access on {day} at {time} UTC.": (
            FailureKind.QUOTA
        ),
        "You have reached your specified workspace API usage limits. You will regain access on {day} at {time} UTC.": (
            FailureKind.QUOTA
        ),
    }
)
_LIMITS = LimitHeaders("anthropic-ratelimit-{of}-{part}", ("requests", "tokens", "input-tokens", "output-tokens"))


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure for an error body. If `response.status` is below 400, only the body shows the error."""
    error = read_map(body, "error")
    error_type = read_str(error, "type") or ""
    code = read_str(read_map(error, "details"), "error_code") or ""
    kind = _BY_CODE.get(code) or _BY_TYPE.get(error_type)
    if not error and (native := read_str(body, "code")):
        # Alibaba's Anthropic-compatible endpoint sends errors in the form of its native API.
        code, kind = native, kind_of_code(native)
    if kind is None:
        kind = by_status(response.status) if response.status >= 400 else FailureKind.UNAVAILABLE
    detail = read_str(error, "message") or read_str(body, "error") or read_str(body, "message")
    kind = STREAMS_ONLY.kind_of(_MESSAGES.kind_of(kind, detail or ""), detail or "")
    return failure(
        response,
        kind,
        code=code or error_type or None,
        detail=detail,
        request_id=read_str(body, "request_id") or response.headers.get("request-id"),
        limits=_LIMITS,
    )
