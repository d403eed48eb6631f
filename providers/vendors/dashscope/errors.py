"""Classify DashScope's errors: by code, else by status, then by known sentences of the message.

Source: Alibaba Cloud Model Studio, error codes, and dashscope 2.0.2, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.failures import Failure, FailureKind
from providers.formats.alibaba_error_codes import STREAMS_ONLY, kind_of_code
from providers.json_values import read_map, read_str
from providers.reading.error_classification import Phrases, blames_itself, by_status, failure, plain_text
from providers.wire import WireResponse

# Some answers of the native API have no code for a wrong model name. None has a code for a prompt that is too long, or
# for the wrong path of a model. source: bodies captured by several projects; as_of 2026-11-20.
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


_PATH_HINT = "the model's `api` in the catalogue's dashscope.toml selects the wrong path"


_SITE_HINT = "each site has its own keys, and this key may belong to another site"


def holds_error(body: Mapping[str, object]) -> bool:
    """Return whether a body is an error of the native API (`code` at the top) or of the compatible API."""
    return bool(read_str(body, "code") or body.get("error"))


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """Return the failure for an error body. If `response.status` is below 400, only the body shows the error."""
    source = read_map(body, "error") or body
    code = read_str(source, "code") or ""
    detail = read_str(source, "message") or read_str(body, "error") or plain_text(response)
    kind = kind_of_code(code)
    if kind is None or blames_itself(kind, response):
        kind = by_status(response.status) if response.status >= 400 else FailureKind.UNAVAILABLE
    if (by_sentence := _WRONG_PATH.kind_of(kind, detail)) is not kind:
        kind, detail = by_sentence, f"{_PATH_HINT}: {detail}"
    kind = STREAMS_ONLY.kind_of(_MESSAGES.kind_of(kind, detail), detail)
    if kind is FailureKind.CREDENTIALS:
        detail = f"{_SITE_HINT}: {detail}"
    return failure(response, kind, code=code or None, detail=detail, request_id=read_str(body, "request_id"))
