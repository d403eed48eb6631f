"""Classify a failed response by its status, its error code and its message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from providers.failures import Failure, FailureKind
from providers.json_values import JsonError, as_list, as_map, loads, read_str, repair_surrogates
from providers.reading.rate_limits import LimitHeaders, read_limits, retry_after_s, wait_s
from providers.wire import WireResponse

__all__ = [
    "MESSAGES",
    "Phrases",
    "blames_itself",
    "by_code",
    "by_status",
    "error_object",
    "failure",
    "is_html",
    "mistakes_in",
    "plain_text",
    "request_id_of",
]


_GAP = re.compile(r"\{[a-z]+\}")


_A_WORD = r"[!-~]{1,256}"
"""The pattern of a placeholder for a model or a number: one word of visible ASCII, which can't match a prompt."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """Kinds of failures by the whole sentence of an error message.

    Attributes:
        kinds: Kinds by sentence. A name in braces, such as `{model}`, matches any one word. White space around a
            sentence is ignored.
        instead_of: The kind that the sentences refine. Errors of other kinds keep their kind.

    Example:
        >>> from providers.contract import FailureKind, Phrases
        >>> phrases = Phrases({"The model {model} is overloaded.": FailureKind.UNAVAILABLE})
        >>> phrases.kind_of(FailureKind.INVALID_REQUEST, "The model parrot-2 is overloaded.").value
        'unavailable'
    """

    kinds: Mapping[str, FailureKind] = field(default_factory=dict)
    instead_of: FailureKind = FailureKind.INVALID_REQUEST

    def kind_of(self, kind: FailureKind, message: str) -> FailureKind:
        """Return the kind of an error according to its message.

        By default only errors that would count as the client's mistake are refined. A more specific kind, from the
        status or the error code, is trusted.

        Args:
            kind: The kind according to status and error code.
            message: The message of the error.

        Returns:
            The kind of the matching sentence, or else `kind`.
        """
        if kind is not self.instead_of:
            return kind
        message = message.strip()
        matches = (refined for sentence, refined in self.kinds.items() if _pattern(sentence).fullmatch(message))
        return next(matches, kind)


@cache
def _pattern(sentence: str) -> re.Pattern[str]:
    return re.compile(_A_WORD.join(map(re.escape, _GAP.split(sentence))))


MESSAGES: dict[FailureKind, str] = {
    FailureKind.UNAVAILABLE: "the provider is not able to answer right now",
    FailureKind.RATE_LIMITED: "the provider limits the rate of requests",
    FailureKind.QUOTA: "the provider's quota for this deployment is used up",
    FailureKind.CREDENTIALS: "the provider refuses this deployment's credentials or account",
    FailureKind.MODEL_NOT_FOUND: "the provider doesn't know this deployment's model or path",
    FailureKind.GEO_REFUSED: "the provider doesn't serve the territory that this gateway calls from",
    FailureKind.CONTEXT_LENGTH: (
        "this model's maximum context length is exceeded: the prompt is too long and exceeds the context "
        "window; shorten `messages` or ask for fewer tokens"
    ),
    FailureKind.INVALID_REQUEST: "the provider refuses the request as invalid",
    FailureKind.FIELD_REFUSED: "the provider refuses a field that no client has sent",
    FailureKind.CONTENT_FILTER: "the request was rejected as a result of the safety system of the provider",
    FailureKind.MALFORMED: "the provider's answer is not what its API documents",
}
"""The message for clients of each kind. The provider's own text is written to the log only.

Clients recognize a context overflow and a content filter by words of OpenAI's messages, not by the code. So these two
contain the words that LiteLLM 1.109, langchain-openai 1.7 and @langchain/openai 1.5 look for in their mapping of
errors, read in November 2026. No message contains words that mean another error there, such as "rate limit".
"""


_BY_STATUS = {
    400: FailureKind.INVALID_REQUEST,
    401: FailureKind.CREDENTIALS,
    402: FailureKind.QUOTA,
    403: FailureKind.CREDENTIALS,
    404: FailureKind.MODEL_NOT_FOUND,
    408: FailureKind.UNAVAILABLE,
    409: FailureKind.UNAVAILABLE,
    410: FailureKind.MODEL_NOT_FOUND,
    413: FailureKind.INVALID_REQUEST,
    422: FailureKind.INVALID_REQUEST,
    424: FailureKind.UNAVAILABLE,
    425: FailureKind.UNAVAILABLE,
    429: FailureKind.RATE_LIMITED,
    451: FailureKind.GEO_REFUSED,
}


_MOST_DETAIL = 2000


_MOST_MISTAKES = 8


_REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "x-tc-requestid",
    "apim-request-id",
    "x-ds-trace-id",
    "x-siliconcloud-trace-id",
    "x-amzn-requestid",
)


_SHOULD_RETRY = {"true": True, "false": False}
"""Values of `x-should-retry`. The vendor's SDK gives this header priority over the status (openai-python 3.51,
`_should_retry` in `_base_client.py`, read in November 2026)."""


def by_status(status: int) -> FailureKind:
    """Return the kind of a response of which only the status is known.

    A redirect, a 2xx or another 4xx (405, 415, 421, …) is `MALFORMED`: it concerns how the gateway calls the server,
    not the client's request, so another deployment may be tried.

    Args:
        status: The HTTP status.

    Returns:
        The kind.
    """
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return FailureKind.UNAVAILABLE if status >= 500 else FailureKind.MALFORMED


def by_code(code: str, kinds: Mapping[str, FailureKind]) -> FailureKind | None:
    """Return the kind of an error code, or of its longest prefix that ends at a dot.

    Args:
        code: The provider's error code.
        kinds: Kinds by code or prefix. `Throttling` also matches `Throttling.Rate`.

    Returns:
        The kind, or None if the code is unknown.
    """
    while code:
        if code in kinds:
            return kinds[code]
        code = code.rpartition(".")[0]
    return None


def blames_itself(kind: FailureKind, response: WireResponse) -> bool:
    """Return whether an error's code blames the request while its status blames the server.

    Such a request may succeed when it is repeated or sent to another deployment.

    Args:
        kind: The kind according to the error code.
        response: The response.

    Returns:
        Whether the kind is `INVALID_REQUEST` and the status is 500 or more.
    """
    return kind is FailureKind.INVALID_REQUEST and response.status >= 500


def failure(
    response: WireResponse,
    kind: FailureKind,
    *,
    code: str | None = None,
    detail: str | None = None,
    request_id: str | None = None,
    param: str | None = None,
    retry_after: float | None = None,
    limits: LimitHeaders | None = None,
) -> Failure:
    """Build the `Failure` of a response.

    The time to wait comes from `retry_after`, the `retry-after` headers or the headers of the rate limits, in this
    order.

    Args:
        response: The response.
        kind: The kind of the failure.
        code: The provider's error code. One of more than six words becomes the detail, unless there is one.
        detail: The provider's message, for the log. Without it, a plain text body is used.
        request_id: The provider's id of the call, if the body contains it.
        param: The request field that is wrong.
        retry_after: The time to wait in seconds, if the body contains it.
        limits: The provider's rate limit headers. They are read only if the rate is limited and no time was found.

    Returns:
        The failure, with a message for the client that does not contain the provider's text.
    """
    if retry_after is None:
        retry_after = retry_after_s(response.headers, response.received_at)
    if retry_after is None and limits is not None and kind is FailureKind.RATE_LIMITED:
        retry_after = wait_s(read_limits(response.headers, response.received_at, limits))
    detail = detail or plain_text(response)
    if code is not None and _is_sentence(code):
        code, detail = None, detail or code
    return Failure(
        kind=kind,
        message=MESSAGES.get(kind, kind.value),
        detail=repair_surrogates((detail or "")[:_MOST_DETAIL]),
        status=response.status,
        code=repair_surrogates(code[:200]) if code else None,
        retry_after_s=retry_after,
        request_id=repair_surrogates(request_id[:200]) if request_id else request_id_of(response.headers),
        param=repair_surrogates(param[:200]) if param else None,
        should_retry=_SHOULD_RETRY.get(response.headers.get("x-should-retry", "").strip().lower()),
    )


def _is_sentence(code: str) -> bool:
    """Return whether a code has more than six words, as one that repeats a prompt has. xAI's codes have five or six."""
    return len(code.split(maxsplit=6)) > 6


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a call.

    Args:
        headers: The headers of the response, with lower-case names.

    Returns:
        The value of the first known header that is present, or None.
    """
    return next(filter(None, (headers.get(name) for name in _REQUEST_IDS)), None)


def plain_text(response: WireResponse) -> str:
    """Return the message of an error whose body is plain text or a JSON string.

    Args:
        response: The response.

    Returns:
        The text. Empty for a status below 400, HTML and JSON objects.
    """
    if response.status < 400 or is_html(response.headers.get("content-type", "")):
        return ""
    start = response.body[: 4 * _MOST_DETAIL].strip()
    if start.startswith((b"{", b"[", b"<")):
        return ""
    text = start.decode("utf-8", "replace")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def mistakes_in(body: Mapping[str, object]) -> str:
    """Return the messages in an error body of FastAPI, without the input that it repeats.

    Args:
        body: The parsed body.

    Returns:
        `detail` if it is a text, or else the messages with their paths, separated by `; `.
    """
    detail = body.get("detail") or as_map(body.get("message")).get("detail")
    if isinstance(detail, str):
        return detail
    messages: list[str] = []
    for mistake in map(as_map, as_list(detail)[:_MOST_MISTAKES]):
        path = ".".join(
            str(part) for part in as_list(mistake.get("loc")) if isinstance(part, str | int) and part != "body"
        )
        messages.append(": ".join(filter(None, (path, read_str(mistake, "msg")))))
    return "; ".join(filter(None, messages))


def error_object(body: bytes) -> dict[str, object]:
    """Return the JSON object of an error body, also from a one-element array or the first `data:` of an event stream.

    Args:
        body: The body.

    Returns:
        The object. Empty if there is none: HTML, plain text, a truncated body.
    """
    text = body.strip()
    if not text.startswith((b"{", b"[")):
        lines = [line.strip() for line in text.splitlines()[:64]]
        text = next((line[5:].strip() for line in lines if line.startswith(b"data:")), b"")
    try:
        value = loads(text)
    except JsonError:
        return {}
    if isinstance(value, list) and value:
        value = value[0]
    return dict(as_map(value))


def is_html(content_type: str) -> bool:
    """Return whether a response is an HTML page, such as one of a captive portal, a firewall or a load balancer.

    Args:
        content_type: The value of `content-type`.

    Returns:
        Whether it is HTML.
    """
    return content_type.lower().startswith("text/html")
