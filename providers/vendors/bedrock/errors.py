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
    # A 429, of which the service model says that it may be retried and is no throttling.
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


_NOT_FROM_HERE = "Access to Anthropic models is not allowed from unsupported countries, regions, or territories."


_TOO_LONG = ("Input is too long for requested model.", "prompt is too long: {tokens} tokens > {most} maximum")


# A model's name is wrong, a maker doesn't serve the place that we call from, or the prompt is too long: a
# ValidationException like any other.
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
        **{f"The model returned the following errors: {said}": FailureKind.CONTEXT_LENGTH for said in _TOO_LONG},
        _NOT_FROM_HERE: FailureKind.GEO_REFUSED,
        f"{_NOT_FROM_HERE} Please refer to https://www.anthropic.com/supported-countries for more information on the "
        "countries and regions Anthropic currently supports.": FailureKind.GEO_REFUSED,
    }
)


# The text of these repeats what was signed, session tokens included.
_SAY_WHAT_WAS_SIGNED = frozenset({"incompletesignature", "invalidsignature"})


def classify(name: str, body: Mapping[str, object], response: WireResponse) -> Failure:
    """What an exception means: by its name, else by the HTTP status; by its text, where that is a whole sentence."""
    word = name.partition(":")[0].rpartition("#")[2]
    key = word.lower().removesuffix("exception")
    kind = _BY_NAME.get(key)
    if kind is None:
        kind = by_status(response.status) if response.status >= 400 else FailureKind.UNAVAILABLE
    detail = read_str(body, "message") or read_str(body, "Message")
    kind = _MESSAGES.kind_of(kind, detail or "")
    return failure(
        response,
        kind,
        code=word or None,
        detail=None if key in _SAY_WHAT_WAS_SIGNED else detail,
        request_id=response.headers.get("x-amzn-requestid"),
    )
