"""Classify the errors of a compatible vendor: by code, then type, then HTTP status.

Its text counts only if it is a whole sentence that the vendor's TOML file lists (see
`providers.reading.error_classification`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from providers.compatible.dialect import Errors
from providers.failures import Failure, FailureKind
from providers.json_values import parent_object, read_int, read_map
from providers.openai_json.read_errors import BY_CODE, BY_TYPE, by_sentence, code_of_block
from providers.reading.error_classification import blames_itself, by_code, by_status, failure, mistakes_in, plain_text
from providers.wire import WireResponse

_NO_HTTP_ERROR = 200


def holds_error(body: Mapping[str, object], rule: Errors) -> bool:
    """Return whether a body is an error although its status is a success."""
    if body.get("error"):
        return True
    if rule.status_at and _text_at(body, rule.status_at) not in ("", "0"):
        return True
    if "choices" in body:
        return False
    return any(_text_at(body, path) not in ("", "0") for path in (*rule.code_at, *rule.type_at, *rule.message_at))


def classify(body: Mapping[str, object], response: WireResponse, rule: Errors, sites: Iterable[str]) -> Failure:
    """Return the failure for an error body.

    Args:
        body: The parsed body.
        response: The response. If its status is below 400, only the body shows the error.
        rule: The vendor's rules for errors.
        sites: The vendor's sites. Each has its own keys, so the detail of a refused key names the other sites. The
            key is never tried there.
    """
    codes = [code for path in rule.code_at if (code := _text_at(body, path)) not in ("", "0")]
    codes += filter(None, [code_of_block(read_map(body, "error"))])
    # A known inner code is more exact than an unknown outer one.
    code = next((one for one in codes if one in BY_CODE or by_code(one, rule.codes)), codes[0] if codes else "")
    error_type = _first(body, rule.type_at)
    detail = _first(body, rule.message_at) or mistakes_in(body) or plain_text(response)
    kind = (
        rule.statuses.get(str(response.status))
        or by_code(code, rule.codes)
        or by_code(error_type, rule.types)
        or BY_CODE.get(code)
        or BY_CODE.get(error_type)
    )
    if kind is None and response.status < 400:
        kind = BY_TYPE.get(error_type)
    if kind is None or blames_itself(kind, response):
        status = response.status if response.status >= 400 else (_number(code) or _NO_HTTP_ERROR)
        kind = by_status(status) if 400 <= status < 600 else FailureKind.UNAVAILABLE
    kind = by_sentence(rule.messages.kind_of(kind, detail), detail)
    site_names = sorted(sites)
    if kind is FailureKind.CREDENTIALS and len(site_names) > 1:
        detail = f"this key may belong to another site (each of {', '.join(site_names)} has its own keys): {detail}"
    headers = (response.headers.get(name) for name in rule.request_id_headers)
    request_id = _first(body, rule.request_id_at) or next(filter(None, headers), None)
    return failure(
        response,
        kind,
        code=code or error_type or None,
        detail=detail,
        request_id=request_id,
        param=_param(body),
        limits=rule.limits,
    )


def _param(body: Mapping[str, object]) -> str | None:
    return _text_at(body, "error.param") or None


def _first(body: Mapping[str, object], paths: Iterable[str]) -> str:
    return next(filter(None, (_text_at(body, path) for path in paths)), "")


def _text_at(body: Mapping[str, object], path: str) -> str:
    """Return the text, or the integer as text, at a dotted path, or "" if there is neither."""
    source, last = parent_object(body, path)
    value = source.get(last)
    if isinstance(value, str):
        return value
    number = read_int(source, last)
    return "" if number is None else str(number)


def _number(code: str) -> int | None:
    return int(code) if code.isascii() and code.isdigit() and len(code) == 3 else None
