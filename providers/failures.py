"""All failures of providers, as values, and the exceptions of this library.

A `Failure` describes what went wrong. The gateway decides by its kind alone, never by its text, whether to retry, to
fail over or to take a deployment out of use. `ProviderError` is the root of all exceptions of this library:

    ProviderError
    ├── UnsupportedFeature     the adapter cannot express this request; nothing was sent
    ├── InvalidRequest         the client's request is not a valid chat request
    └── ProviderFailed         carries a Failure
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from providers.value import Value

LACKABLE = frozenset({"content_filter", "context_length", "geo_refused", "model_not_found", "quota", "rate_limited"})
"""The failure kinds that a vendor may lack. Every vendor has the others."""


class FailureKind(StrEnum):
    """The kind of a failure. It decides on retry, failover and breaker."""

    CONNECT = "connect"
    """Connection refused or reset, DNS or TLS error, before any byte of a response."""
    UNAVAILABLE = "unavailable"
    """408, 409, 5xx or 529: the provider is not able to answer now."""
    RATE_LIMITED = "rate_limited"
    """429, with or without a time to wait."""
    QUOTA = "quota"
    """Quota used up or bill unpaid: 402 and some 429."""
    SILENT = "silent"
    """No first token in time."""
    CREDENTIALS = "credentials"
    """The provider refused the key or the account: 401 or 403."""
    MODEL_NOT_FOUND = "model_not_found"
    """The configured model or path does not exist: 404."""
    GEO_REFUSED = "geo_refused"
    """The vendor does not serve the territory that the gateway calls from."""
    CONTEXT_LENGTH = "context_length"
    """The prompt is longer than the model accepts."""
    FIELD_REFUSED = "field_refused"
    """The provider refused a field that no client has sent: one of the gateway or of an adapter."""
    INVALID_REQUEST = "invalid_request"
    """400 or 422: the request is wrong at every provider."""
    REFUSED_HERE = "refused_here"
    """The provider does not take this request, for a reason that concerns no other one: tools that the model does not
    have, a file of another account, a size above a limit of this server or account (413)."""
    UNSUPPORTED = "unsupported"
    """The adapter cannot express the request. Nothing was sent."""
    CONTENT_FILTER = "content_filter"
    """The provider's safety system refused."""
    MALFORMED = "malformed"
    """HTML, invalid JSON, or an empty or truncated answer."""
    NOT_JSON = "not_json"
    """The provider answered, but the text of the model is not the JSON object that the request asks for."""
    NOT_VALID = "not_valid"
    """The provider answered with JSON that does not match the schema that the request asks for."""
    INTERRUPTED = "interrupted"
    """A stream broke, stalled or failed after it had begun."""
    TOO_LARGE = "too_large"
    """The answer exceeds the limits of this library."""
    DEADLINE = "deadline"
    """The request's deadline has passed."""
    OVERLOADED = "overloaded"
    """The gateway's limit of concurrent calls is reached. Nothing was sent."""


class About(StrEnum):
    """The subject of a failure."""

    REQUEST = "request"
    """This request, and no other request."""
    KEY = "key"
    """The key, its account, or the model on it."""
    DEPLOYMENT = "deployment"
    """The server."""


ABOUT: Mapping[FailureKind, About] = {
    **dict.fromkeys(FailureKind, About.REQUEST),
    **dict.fromkeys(
        (
            *(FailureKind.RATE_LIMITED, FailureKind.QUOTA, FailureKind.CREDENTIALS),
            *(FailureKind.MODEL_NOT_FOUND, FailureKind.GEO_REFUSED),
        ),
        About.KEY,
    ),
    **dict.fromkeys(
        (
            *(FailureKind.CONNECT, FailureKind.UNAVAILABLE, FailureKind.SILENT),
            *(FailureKind.MALFORMED, FailureKind.INTERRUPTED),
        ),
        About.DEPLOYMENT,
    ),
}
"""The subject of failures of a kind, unless the failure has its own."""


class Failure(Value, frozen=True):
    """A classified failure."""

    kind: FailureKind
    """The kind. It decides on retry and failover."""
    message: str
    """The message for the client and the log. It never contains a secret, and no text of the provider that could name
    the operator's account."""
    detail: str = ""
    """The provider's own text, for the log only. Redact secrets before it is written."""
    status: int | None = None
    """The provider's HTTP status, or None if there was no response."""
    code: str | None = None
    """The provider's error code."""
    retry_after_s: float | None = None
    """The time that the provider asks to wait, in seconds."""
    request_id: str | None = None
    """The provider's id of the call."""
    param: str | None = None
    """The request field that is wrong, if the provider names it as OpenAI does."""
    should_retry: bool | None = None
    """The value of the provider's `x-should-retry` header, or None if there is none."""
    unsent: bool = False
    """Whether it is certain that no byte of the request was sent."""
    about: About | None = None
    """The subject, if it differs from `ABOUT`. Read `concerns`."""
    is_stated: bool = True
    """Whether the provider's words or the HTTP standard show it. A guess may be about this request."""
    was_kept: bool = False
    """Whether a kept connection ended under the request, soon and without a byte of an answer. That shows nothing about
    the provider: on a new connection it may answer."""
    rule: str = ""
    """The rule that judged, in words: "minimax code 1008", "status 403 alone"."""

    @property
    def concerns(self) -> About:
        """The subject of the failure."""
        return self.about or ABOUT[self.kind]


class ProviderError(Exception):
    """The root of all exceptions of this library."""


class UnsupportedFeature(ProviderError):
    """A feature cannot be expressed by this adapter or in the canonical request. Nothing was sent.

    Args:
        feature: The feature, a member of `FEATURES` or another word for it.
        message: The message for the client.
        param: The request field, or None if unknown.

    Attributes:
        feature: The argument of this name.
        param: The argument of this name.
    """

    def __init__(self, feature: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.feature = feature
        self.param = param


class InvalidRequest(ProviderError):
    """The request is not a valid chat request.

    Args:
        message: The message for the client.
        param: The request field, such as `messages[3].content`, or None if unknown.
        log_message: The message for the log, if `message` has a name that the client made up; else None.

    Attributes:
        param: The argument of this name.
        log_message: The argument of this name.
    """

    def __init__(self, message: str, param: str | None = None, *, log_message: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.log_message = log_message


class ProviderFailed(ProviderError):
    """The provider failed to answer.

    Args:
        failure: The classified failure. Its message is that of the exception.

    Attributes:
        failure: The argument of this name.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
