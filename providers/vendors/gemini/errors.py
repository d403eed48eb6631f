"""Classify the errors of Gemini and Vertex AI.

Source: ai.google.dev on errors, and public captures of error details and of errors within streams; read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from providers.failures import Failure, FailureKind
from providers.json_values import as_map, read_int, read_list, read_map, read_str
from providers.reading.error_classification import Phrases, by_status, failure
from providers.reading.rate_limits import parse_duration_s
from providers.wire import WireResponse

_BY_STATUS_WORD = {
    "INVALID_ARGUMENT": FailureKind.INVALID_REQUEST,
    "OUT_OF_RANGE": FailureKind.INVALID_REQUEST,
    # "User location is not supported", or an unpaid bill: the operator must fix both, and both fail over.
    "FAILED_PRECONDITION": FailureKind.GEO_REFUSED,
    "UNAUTHENTICATED": FailureKind.CREDENTIALS,
    "PERMISSION_DENIED": FailureKind.CREDENTIALS,
    "NOT_FOUND": FailureKind.MODEL_NOT_FOUND,
    "RESOURCE_EXHAUSTED": FailureKind.RATE_LIMITED,
    "ABORTED": FailureKind.UNAVAILABLE,
    "CANCELLED": FailureKind.UNAVAILABLE,
    "DEADLINE_EXCEEDED": FailureKind.UNAVAILABLE,
    "INTERNAL": FailureKind.UNAVAILABLE,
    "UNAVAILABLE": FailureKind.UNAVAILABLE,
    "UNKNOWN": FailureKind.UNAVAILABLE,
}
# An invalid model name, and a prompt that is too long for the model. source: bodies captured by several projects; as_of
# 2026-11-20.
_MESSAGES = Phrases(
    {
        "* GenerateContentRequest.model: unexpected model name format": FailureKind.MODEL_NOT_FOUND,
        "The input token count ({tokens}) exceeds the maximum number of tokens allowed ({most}).": (
            FailureKind.CONTEXT_LENGTH
        ),
    }
)
# Used-up prepaid credit has the status word of a rate limit, but another HTTP status. source: "Depleted prepay credits
# now return HTTP 402 instead of 429", Google in its forum (discuss.ai.google.dev, 183654); as_of 2026-11-22.
_NO_CREDIT = 402
_WAIT_IN_TEXT = re.compile(r"Please retry in ([0-9.hms]{2,32}?)\.?\s*\Z")
_BAD_KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED"})


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure for an error body: by the reason in its details, its status word, then the HTTP status.

    In a stream that began with 200, the status is in the body. The text counts only if it is a known sentence about the
    model's name or the prompt's length.
    """
    error = read_map(body, "error")
    details = [as_map(detail) for detail in read_list(error, "details")]
    reasons = {read_str(detail, "reason") for detail in details}
    status_word = read_str(error, "status")
    kind = _BY_STATUS_WORD.get(status_word or "")
    code = status_word
    if bad_key := sorted(_BAD_KEY_REASONS.intersection(reasons)):
        kind, code = FailureKind.CREDENTIALS, bad_key[0]
    status = response.status if response.status >= 400 else read_int(error, "code") or 0
    if kind is FailureKind.RATE_LIMITED and (status == _NO_CREDIT or any(_is_daily(detail) for detail in details)):
        kind = FailureKind.QUOTA
    if kind is None:
        kind = by_status(status) if 400 <= status < 600 else FailureKind.UNAVAILABLE
    detail = read_str(error, "message")
    kind = _MESSAGES.kind_of(kind, detail or "")
    return failure(response, kind, code=code, detail=detail, retry_after=_wait_s(details, detail or ""))


def _is_daily(detail: Mapping[str, object]) -> bool:
    """Return whether the detail names a daily quota. A short wait does not help then."""
    violations = (as_map(violation) for violation in read_list(detail, "violations"))
    return any("PerDay" in (read_str(violation, "quotaId") or "") for violation in violations)


def _wait_s(details: Sequence[Mapping[str, object]], message: str) -> float | None:
    """Return the time to wait from the error's details, or else from its text. Gemini sends no `retry-after` header."""
    delays = [read_str(detail, "retryDelay") for detail in details]
    delays += [read_str(read_map(detail, "metadata"), "quotaResetDelay") for detail in details]
    if match := _WAIT_IN_TEXT.search(message):
        delays.append(match[1])
    return next((wait for delay in delays if delay and (wait := parse_duration_s(delay)) is not None), None)
