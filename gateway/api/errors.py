"""All errors that a client can get: their codes, HTTP statuses and types.

`from_domain` turns the errors of the inner layers (InvalidRequest, UnsupportedFeature, Refused, AssistantNotFound,
ClientChanged, PlanExhausted, LimitReached, CallRefused) into an `ApiError`, which has a code. `encode_error` writes it
in OpenAI's envelope.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.execution.exchange import ClientChanged
from gateway.execution.retry import rule_of
from gateway.execution.run import PlanExhausted
from gateway.model.consent import ConsentRequest
from gateway.model.decision import Refused
from gateway.model.help import HelpUnanswerable
from gateway.model.moderation import Flagged, NoVerdict
from gateway.model.record import AttemptRecord
from gateway.model.refusal_reason import REASON_BY_CODE, STATUS, RefusalReason
from gateway.model.region_text import Sentence, Sentences
from gateway.model.served import OtherInput
from gateway.service.assistants import AssistantNotFound
from gateway.usage.client_limits import LimitReached
from gateway.usage.refusals import CallRefused
from providers.failures import FailureKind, InvalidRequest, UnsupportedFeature

_TYPE_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    451: "permission_error",
}
_OUTWARD: dict[FailureKind, str] = {
    FailureKind.CONNECT: "provider_error",
    FailureKind.UNAVAILABLE: "provider_error",
    FailureKind.RATE_LIMITED: "rate_limited",
    FailureKind.QUOTA: "no_healthy_deployment",
    FailureKind.SILENT: "deadline_exceeded",
    FailureKind.CREDENTIALS: "provider_error",
    FailureKind.MODEL_NOT_FOUND: "provider_error",
    FailureKind.GEO_REFUSED: "provider_error",
    FailureKind.CONTEXT_LENGTH: "context_length_exceeded",
    FailureKind.FIELD_REFUSED: "provider_error",
    FailureKind.INVALID_REQUEST: "invalid_request",
    FailureKind.REFUSED_HERE: "unsupported_capability",
    FailureKind.UNSUPPORTED: "unsupported_capability",
    FailureKind.CONTENT_FILTER: "content_filter",
    FailureKind.MALFORMED: "provider_error",
    FailureKind.NOT_JSON: "provider_error",
    FailureKind.NOT_VALID: "provider_error",
    FailureKind.INTERRUPTED: "provider_error",
    FailureKind.TOO_LARGE: "provider_error",
    FailureKind.DEADLINE: "deadline_exceeded",
    FailureKind.OVERLOADED: "overloaded",
}
# A client that reads `error.attempts` must find it, also if no deployment was asked.
_LISTS_ATTEMPTS = frozenset({"provider_error", "no_healthy_deployment", "overloaded", "deadline_exceeded"})
_UNKNOWN_MODEL = "the requested model is not an assistant of the configuration"
_DEFAULT_RETRY_S = 1.0
_NEVER_AGAIN = frozenset({401, 501})
_POLICY = frozenset(map(RefusalReason, "territory approval age consent moderation".split()))
_RETRYABLE = frozenset({"rate_limited", "no_healthy_deployment", "overloaded"})


@dataclass(slots=True)
class ApiError(Exception):
    """An error as the client gets it."""

    code: str
    message: str
    param: str | None = None
    """The field of the request that caused the error."""
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the error object."""
    log_message: str | None = None
    """The message for the log, if `message` has a name that the client made up."""
    sentence: Sentence | None = None
    """The sentence for the end user. None if no version of the config is known."""
    sentences: Sentences | None = None
    """It in all languages, if it is not that of the reason."""
    token_issuer: str = ""
    """The name of the issuer whose valid token has no client, for the log."""
    outer: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the object that has the error as a member, such as `x_gateway`."""

    def __post_init__(self) -> None:
        """Let no client repeat what the same request can never get, such as an answer to a wrong key."""
        if self.status in _NEVER_AGAIN or self.is_of_policy:
            self.headers = {"x-should-retry": "false", **self.headers}

    @property
    def is_of_policy(self) -> bool:
        """Whether a rule for the user, the place or the content refuses the request: no repetition is answered."""
        return self.reason in _POLICY and self.code != "wrong_cell"  # that cell answers

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return STATUS[self.code]

    @property
    def reason(self) -> RefusalReason:
        """The member of the closed set of reasons."""
        return REASON_BY_CODE[self.code]

    @property
    def user_fields(self) -> dict[str, str]:
        """The members of an error object that are for the end user."""
        sentence = self.sentence
        return {"user_message": sentence.text, "user_message_language": sentence.language} if sentence else {}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def encode_error(error: ApiError) -> dict[str, object]:
    """Return the error in OpenAI's envelope."""
    status = error.status
    kind = _TYPE_BY_STATUS.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    body: dict[str, object] = {
        "message": error.message,
        "type": kind,
        "param": error.param,
        "code": error.code,
        "reason": error.reason,
    }
    if error.code in _LISTS_ATTEMPTS:
        body["attempts"] = []
    return {"error": {**body, **error.user_fields, **error.extra}, **error.outer}


def from_domain(error: Exception, attempts: list[AttemptRecord], *, quoting: bool = True) -> ApiError:
    """Return the error for the client. An error that no layer raises on purpose becomes `internal_error`.

    With `quoting`, the provider's message about an invalid request may be shown, and its `param`. The message usually
    names the model.
    """
    match error:
        case ApiError():
            return error
        case InvalidRequest():
            return ApiError("invalid_request", str(error), error.param, log_message=error.log_message)
        case UnsupportedFeature():
            return ApiError("unsupported_capability", str(error), error.param)
        case AssistantNotFound():
            name = error.name if len(error.name) <= 100 else f"{error.name[:100]}…"
            hint = error.question or "GET /v1/models lists the available assistants"
            message = f"the assistant {name!r} does not exist for this key; {hint}"
            return ApiError("model_not_found", message, error.param, log_message=_UNKNOWN_MODEL)
        case Refused():
            return _from_refusal(error)
        case ClientChanged():
            message = "the key belongs to another client since the configuration was reloaded: repeat the request"
            return ApiError("invalid_api_key", message, headers={"www-authenticate": "Bearer"})
        case OtherInput():
            return ApiError(error.code, error.message)
        case LimitReached():
            return ApiError("rate_limited", error.message, retry_after_s=error.retry_after_s)
        case CallRefused():
            again, budget = error.should_retry, error.budget
            headers = {} if again is None else {"x-should-retry": "true" if again else "false"}
            extra = {"budget": budget} if budget is not None else {}
            return ApiError(
                error.code, error.message, None, error.retry_after_s, headers, extra, sentences=error.sentences
            )
        case Flagged():
            found = {"direction": "input", "categories": list(error.categories)}
            message = "the request was refused by the moderation of this region"
            return ApiError("content_filter", message, extra={"moderation": found})
        case HelpUnanswerable():
            message = (
                f"the answer would be a text for the user, and `{error.param}` requires another: show `user_message`"
            )
            return ApiError("content_filter", message, error.param)
        case NoVerdict():
            message = "the moderation of this region does not answer, and no request is answered without it"
            return ApiError("moderation_unavailable", message, retry_after_s=_DEFAULT_RETRY_S)
        case PlanExhausted():
            return _from_exhausted(error, attempts, quoting=quoting)
    message = "the gateway has an internal error: give its operator the `x-request-id`, which is in the log"
    return ApiError("internal_error", message)


def _from_refusal(error: Refused) -> ApiError:
    refusal = error.refusal
    headers: dict[str, str] = {}
    extra: dict[str, object] = {}
    if refusal.home is not None:
        headers["location"] = refusal.home
        extra["home"] = refusal.home
    if refusal.age is not None:
        extra["age"] = refusal.age
    if error.consent is not None:
        extra["consent"] = _encode_consent(error.consent)
    retry_after_s = refusal.retry_after_s or (_DEFAULT_RETRY_S if refusal.code in _RETRYABLE else None)
    shown = refusal.code, refusal.message, refusal.param, retry_after_s, headers, extra, refusal.log_message
    return ApiError(*shown, sentences=refusal.sentences)


def _encode_consent(consent: ConsentRequest) -> dict[str, object]:
    """Return what a client needs to ask its user for consent, and to send the consent with the next request."""
    return {
        "recipient": consent.recipient,
        "place": {"stores": consent.stores, "processes": consent.processes},
        "would_send": list(consent.would_send),
        **({"redacted": list(consent.redacted)} if consent.redacted else {}),
        "token": consent.token,
        "expires_at": consent.expires_at,
        **({"note": consent.note} if consent.note else {}),
        **({"hand_off": str(consent.hand_off)} if consent.hand_off is not None else {}),
    }


def _from_exhausted(error: PlanExhausted, attempts: list[AttemptRecord], *, quoting: bool) -> ApiError:
    failure = error.failure
    # A reload or a breaker can remove all steps while the request runs. Then no provider was asked.
    is_unasked = failure.kind is FailureKind.UNAVAILABLE and not attempts
    code = "no_healthy_deployment" if is_unasked else _OUTWARD[failure.kind]
    message = failure.message
    is_about_input = failure.kind is FailureKind.INVALID_REQUEST or (
        failure.kind is FailureKind.REFUSED_HERE and failure.status in (400, 413)
    )
    if is_about_input and failure.detail and quoting:
        # The provider describes the mistake in the client's own input, or its size.
        message = f"{message}: {failure.detail[:500]}"
    # A key in its cooldown is not used, so an earlier retry would get the same error.
    cooldown_s = rule_of(failure).cooldown_s
    retry_after_s = (failure.retry_after_s or cooldown_s or _DEFAULT_RETRY_S) if code in _RETRYABLE else None
    # SDKs should retry an overloaded assistant: it may have a free slot soon.
    headers = {"x-should-retry": "false"} if attempts and code != "overloaded" else {}
    if code == "overloaded" and not attempts and failure.should_retry is not None:
        headers = {"x-should-retry": "true" if failure.should_retry else "false"}
        retry_after_s = failure.retry_after_s
    extra: dict[str, object] = {}
    if STATUS[code] >= 429:
        extra["attempts"] = [_encode_attempt(attempt) for attempt in attempts]
    # The field is shown only if the request is wrong. In other failures it comes from the provider's own message.
    is_shown = STATUS[code] == 400 and (quoting or failure.unsent)
    return ApiError(code, message, failure.param if is_shown else None, retry_after_s, headers, extra)


def _encode_attempt(attempt: AttemptRecord) -> dict[str, object]:
    failure = attempt.failure
    return {
        "deployment": attempt.deployment,
        "reason": failure.kind if failure else None,
        "status": failure.status if failure else None,
        "duration_ms": round(attempt.duration_s * 1000, 1),
        **attempt.decision_fields(),
    }


def blocking_link(error: ApiError, page: str | None) -> dict[str, str]:
    """Return the `link` to the authority that blocks the request (RFC 7725, section 4), if there is one."""
    return {"link": f'<{page}>; rel="blocked-by"'} if error.status == 451 and page is not None else {}


def whole_seconds(retry_after_s: float) -> str:
    """Return a value for `retry-after`: whole seconds, rounded up, at least one (RFC 9110, section 10.2.3)."""
    return str(max(1, math.ceil(retry_after_s)))
