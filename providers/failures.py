"""The one closed set of ways in which a provider can fail, as values.

A `Failure` says what went wrong; what follows from it (retry, failover, bench) is decided by its kind alone,
in the gateway's execution, never by its text. `ProviderError` is the root of what this library raises:

    ProviderError
    ├── UnsupportedFeature     the adapter can't express this request; nothing was sent
    ├── InvalidRequest         the client's request is not a chat request
    └── ProviderFailed         carries a Failure
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "Failure",
    "FailureKind",
    "InvalidRequest",
    "ProviderError",
    "ProviderFailed",
    "UnsupportedFeature",
]


class FailureKind(StrEnum):
    """What went wrong, as finely as any decision needs."""

    CONNECT = "connect"  # refused, reset, DNS, TLS: before any byte of a response
    UNAVAILABLE = "unavailable"  # 408, 409, 5xx, 529: the provider says "not now"
    RATE_LIMITED = "rate_limited"  # 429, with or without a time to wait
    QUOTA = "quota"  # spent quota, unpaid bill: 402, some 429
    SILENT = "silent"  # no first token in time
    CREDENTIALS = "credentials"  # our key or account is refused: 401, 403
    MODEL_NOT_FOUND = "model_not_found"  # our model or path is not there: 404
    GEO_REFUSED = "geo_refused"  # the vendor doesn't serve the place that we call from
    CONTEXT_LENGTH = "context_length"  # the prompt is longer than this model takes
    FIELD_REFUSED = "field_refused"  # a field that no client has asked for is refused: the gateway's, or an adapter's
    INVALID_REQUEST = "invalid_request"  # 400, 413, 422: the request is wrong wherever it is sent
    UNSUPPORTED = "unsupported"  # the adapter can't express it; nothing was sent
    CONTENT_FILTER = "content_filter"  # the provider's safety system refused
    MALFORMED = "malformed"  # HTML, broken JSON, an empty or cut answer
    INTERRUPTED = "interrupted"  # a stream broke, stalled or went wrong after it had begun
    TOO_LARGE = "too_large"  # the answer is beyond our bounds
    DEADLINE = "deadline"  # the request's own time is spent
    OVERLOADED = "overloaded"  # our own bound on calls at once; nothing was sent


@dataclass(frozen=True, slots=True)
class Failure:
    """One classified failure.

    kind: decides retry and failover.
    message: for the client and the log; never a secret, never the provider's text where that may name our account.
    detail: the provider's own words, for the log only; the reader must redact secrets before writing it.
    status: the provider's HTTP status, None where there was none.
    code: the provider's own error code.
    retry_after_s: how long the provider asks us to wait, in seconds.
    request_id: the provider's id of the call.
    param: where in the request the mistake is, if the provider said so in OpenAI's terms.
    should_retry: what the provider says of asking again (`x-should-retry`), None where it says nothing.
    unsent: no byte of the request has left, for sure.
    """

    kind: FailureKind
    message: str
    detail: str = ""
    status: int | None = None
    code: str | None = None
    retry_after_s: float | None = None
    request_id: str | None = None
    param: str | None = None
    should_retry: bool | None = None
    unsent: bool = False


class ProviderError(Exception):
    """Root of everything that this library raises on purpose."""


class UnsupportedFeature(ProviderError):
    """`feature` can't be expressed, by this adapter or in the canonical request; nothing was sent.

    `param` names the place in the request, where it is known.
    """

    def __init__(self, feature: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.feature = feature
        self.param = param


class InvalidRequest(ProviderError):
    """The request is not a chat request: `param` names the place (`messages[3].content`)."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ProviderFailed(ProviderError):
    """Carries a Failure across layers."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
