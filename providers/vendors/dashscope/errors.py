"""Classify DashScope's errors: by code, else by status; by whole sentences of the message.

Source: Alibaba Cloud Model Studio, error codes, and dashscope 2.0.2, read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.failures import Failure, FailureKind
from providers.formats.alibaba_error_codes import kind_of_code
from providers.json_values import read_map, read_str
from providers.reading.error_classification import Phrases, blames_itself, by_status, failure, plain_text
from providers.wire import WireResponse

# A model's name has no code in some answers of the native API, and a prompt that is too long or a model's wrong path in
# none. source: bodies captured by several projects; as_of 2026-11-20.
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


_PATH_HINT = "`api` of the model in the catalogue's dashscope.toml names the wrong path"


_SITE_HINT = "a key belongs to one site, and this one may belong to another"


def holds_error(body: Mapping[str, object]) -> bool:
    """Whether a body is an error, whatever its status: a native one (`code` at the top) or the compatible API's."""
    return bool(read_str(body, "code") or body.get("error"))


def classify(body: Mapping[str, object], response: WireResponse) -> Failure:
    """The failure that an error body stands for; `response.status` is below 400 where only the body speaks."""
    source = read_map(body, "error") or body
    code = read_str(source, "code") or ""
    detail = read_str(source, "message") or read_str(body, "error") or plain_text(response)
    kind = kind_of_code(code)
    if kind is None or blames_itself(kind, response):
        kind = by_status(response.status) if response.status >= 400 else FailureKind.UNAVAILABLE
    if (told := _WRONG_PATH.kind_of(kind, detail)) is not kind:
        kind, detail = told, f"{_PATH_HINT}: {detail}"
    kind = _MESSAGES.kind_of(kind, detail)
    if kind is FailureKind.CREDENTIALS:
        detail = f"{_SITE_HINT}: {detail}"
    return failure(response, kind, code=code or None, detail=detail, request_id=read_str(body, "request_id"))
