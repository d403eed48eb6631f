"""Classify a failed response by its status, its code and the whole sentence of its message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from providers.failures import Failure, FailureKind
from providers.json_values import JsonError, as_list, as_map, loads, mend_surrogates, read_str
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
"""What may stand for a model or a number: one word of visible ASCII. Nobody's text is that."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """Sentence -> kind. A name in braces, such as `{model}`, is any one word; blanks around a sentence don't count.

    instead_of: the kind that is looked at.
    """

    kinds: Mapping[str, FailureKind] = field(default_factory=dict)
    instead_of: FailureKind = FailureKind.INVALID_REQUEST

    def kind_of(self, kind: FailureKind, message: str) -> FailureKind:
        """The kind of an error that its code and status call `kind`, by what it says.

        Only what would else be the client's own mistake is looked at, if no other kind is stated: whatever says more
        than that is believed.
        """
        if kind is not self.instead_of:
            return kind
        message = message.strip()
        return next((told for said, told in self.kinds.items() if _pattern(said).fullmatch(message)), kind)


@cache
def _pattern(sentence: str) -> re.Pattern[str]:
    return re.compile(_A_WORD.join(map(re.escape, _GAP.split(sentence))))


MESSAGES: dict[FailureKind, str] = {
    FailureKind.UNAVAILABLE: "the provider is not able to answer right now",
    FailureKind.RATE_LIMITED: "the provider limits the rate of requests",
    FailureKind.QUOTA: "the provider's quota for this deployment is spent",
    FailureKind.CREDENTIALS: "the provider refuses this deployment's credentials or account",
    FailureKind.MODEL_NOT_FOUND: "the provider doesn't know this deployment's model or path",
    FailureKind.GEO_REFUSED: "the provider doesn't serve the place that this gateway calls from",
    FailureKind.CONTEXT_LENGTH: "the prompt is longer than the model takes",
    FailureKind.INVALID_REQUEST: "the provider refuses the request as invalid",
    FailureKind.FIELD_REFUSED: "the provider refuses a field that no client has sent",
    FailureKind.CONTENT_FILTER: "the provider's safety system refused",
    FailureKind.MALFORMED: "the provider's answer is not what its API documents",
}
"""What is said outward of each kind: the provider's own text goes to the log, or nowhere."""


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
"""A provider's own word, which its SDK takes before any status (openai-python 3.51, `_should_retry` in
`_base_client.py`, read in November 2026)."""


def by_status(status: int) -> FailureKind:
    """The kind for a status of which nothing else is known: a redirect or a 2xx is not an answer either.

    Nor is another 4xx (405, 415, 421, …): it is about how the gateway speaks to what stands there. The client has no
    part in that, so that the words aren't for it to read, and somebody else may be asked.
    """
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return FailureKind.UNAVAILABLE if status >= 500 else FailureKind.MALFORMED


def by_code(code: str, kinds: Mapping[str, FailureKind]) -> FailureKind | None:
    """The kind of a code, or of its longest beginning that ends at a dot: `Throttling` is `Throttling.Rate` too."""
    while code:
        if code in kinds:
            return kinds[code]
        code = code.rpartition(".")[0]
    return None


def blames_itself(kind: FailureKind, response: WireResponse) -> bool:
    """Whether a code calls the request wrong, and a status the server: the same request may be answered by another try,
    or by somebody else."""
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
    """The Failure of a response; the wait comes from its headers unless the body named one.

    limits: the headers of the provider's limits, asked where the rate is limited and nothing else names a wait.
    `x-should-retry` is what the provider itself says of asking again.
    """
    if retry_after is None:
        retry_after = retry_after_s(response.headers, response.received_at)
    if retry_after is None and limits is not None and kind is FailureKind.RATE_LIMITED:
        retry_after = wait_s(read_limits(response.headers, response.received_at, limits))
    detail = detail or plain_text(response)
    return Failure(
        kind=kind,
        message=MESSAGES.get(kind, kind.value),
        detail=mend_surrogates((detail or "")[:_MOST_DETAIL]),
        status=response.status,
        code=mend_surrogates(code[:200]) if code else None,
        retry_after_s=retry_after,
        request_id=mend_surrogates(request_id[:200]) if request_id else request_id_of(response.headers),
        param=mend_surrogates(param[:200]) if param else None,
        should_retry=_SHOULD_RETRY.get(response.headers.get("x-should-retry", "").strip().lower()),
    )


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """The provider's own id of the call, under the first of its usual names that is there."""
    return next(filter(None, (headers.get(name) for name in _REQUEST_IDS)), None)


def plain_text(response: WireResponse) -> str:
    """What an error says whose body is no JSON object, but a text, or a JSON string; of an answer, nothing."""
    if response.status < 400 or is_html(response.headers.get("content-type", "")):
        return ""
    start = response.body[: 4 * _MOST_DETAIL].strip()
    if start.startswith((b"{", b"[", b"<")):
        return ""
    text = start.decode("utf-8", "replace")
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def mistakes_in(body: Mapping[str, object]) -> str:
    """What a web framework (FastAPI) says of a request: its words, or those of each mistake with its place. What was
    sent, which it repeats beside them, is left out."""
    detail = body.get("detail") or as_map(body.get("message")).get("detail")
    if isinstance(detail, str):
        return detail
    told: list[str] = []
    for mistake in map(as_map, as_list(detail)[:_MOST_MISTAKES]):
        place = ".".join(
            str(part) for part in as_list(mistake.get("loc")) if isinstance(part, str | int) and part != "body"
        )
        told.append(": ".join(filter(None, (place, read_str(mistake, "msg")))))
    return "; ".join(filter(None, told))


def error_object(body: bytes) -> dict[str, object]:
    """The JSON object of an error body, unwrapped from a one-element array or from an event stream's first `data:`.

    Empty where there is none: HTML, plain text, a cut body.
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
    """Whether this is a page for people: a portal, a firewall, a load balancer."""
    return content_type.lower().startswith("text/html")
