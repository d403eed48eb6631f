"""Classify the exceptions of bedrock-runtime.

Source: botocore 1.44.5 (ConverseResponse, ConverseStreamOutput and the errors of bedrock-runtime),
docs.aws.amazon.com on Converse; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.failures import Failure, FailureKind
from providers.json_values import read_str
from providers.reading.error_classification import Phrases, by_status, failure
from providers.wire import WireResponse

_BY_NAME = {
    "accessdenied": FailureKind.CREDENTIALS,
    "expiredtoken": FailureKind.CREDENTIALS,
    "incompletesignature": FailureKind.CREDENTIALS,
    "internalserver": FailureKind.UNAVAILABLE,
    "invalidsignature": FailureKind.CREDENTIALS,
    "missingauthenticationtoken": FailureKind.CREDENTIALS,
    "modelerror": FailureKind.UNAVAILABLE,
    # Status 429. According to the service model it may be retried, and it is not throttling.
    "modelnotready": FailureKind.UNAVAILABLE,
    "modelstreamerror": FailureKind.UNAVAILABLE,
    "modeltimeout": FailureKind.UNAVAILABLE,
    "resourcenotfound": FailureKind.MODEL_NOT_FOUND,
    "servicequotaexceeded": FailureKind.QUOTA,
    "serviceunavailable": FailureKind.UNAVAILABLE,
    "throttling": FailureKind.RATE_LIMITED,
    "unrecognizedclient": FailureKind.CREDENTIALS,
    "validation": FailureKind.INVALID_REQUEST,
}


_UNSUPPORTED_LOCATION = "Access to Anthropic models is not allowed from unsupported countries, regions, or territories."


_TOO_LONG = ("Input is too long for requested model.", "prompt is too long: {tokens} tokens > {most} maximum")


# A wrong model name, a location that the model's maker does not serve, and a prompt that is too long have the name of
# other invalid requests: ValidationException.
# source: bodies captured by users; as_of 2026-11-20.
_MESSAGES = Phrases(
    {
        "The provided model identifier is invalid.": FailureKind.MODEL_NOT_FOUND,
        **{
            f"Invocation of model ID {{model}} with on-demand throughput isn{apostrophe}t supported. Retry your "
            "request with the ID or ARN of an inference profile that contains this model.": FailureKind.MODEL_NOT_FOUND
            for apostrophe in ("'", "\u2019")
        },
        **dict.fromkeys(_TOO_LONG, FailureKind.CONTEXT_LENGTH),
        **{f"The model returned the following errors: {text}": FailureKind.CONTEXT_LENGTH for text in _TOO_LONG},
        _UNSUPPORTED_LOCATION: FailureKind.GEO_REFUSED,
        f"{_UNSUPPORTED_LOCATION} Please refer to https://www.anthropic.com/supported-countries for more information "
        "on the countries and regions Anthropic currently supports.": FailureKind.GEO_REFUSED,
    }
)


# The texts of these errors repeat the signed data, including session tokens. They must not reach the log.
_REPEATS_SIGNED_DATA = frozenset({"incompletesignature", "invalidsignature"})


def classify(name: str, body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure for an exception: by its name or the HTTP status, then by known sentences of its text."""
    exception = name.partition(":")[0].rpartition("#")[2]
    key = exception.lower().removesuffix("exception")
    kind = _BY_NAME.get(key)
    if kind is None:
        kind = by_status(response.status) if response.status >= 400 else FailureKind.UNAVAILABLE
    detail = read_str(body, "message") or read_str(body, "Message")
    kind = _MESSAGES.kind_of(kind, detail or "")
    return failure(
        response,
        kind,
        code=exception or None,
        detail=None if key in _REPEATS_SIGNED_DATA else detail,
        request_id=response.headers.get("x-amzn-requestid"),
    )
