"""Record one exchange with a provider and print it with its secrets masked, for `gateway providers check`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from gateway.execution.redaction import parts_of
from gateway.execution.transport import Transport, UpstreamResponse
from gateway.execution.upstream_request import Headers, UpstreamRequest
from providers.auth import Secret
from providers.transport.connection import Tap

_MASK = "(masked)"
_MAX_SHOWN_CHARACTERS = 4096
_MAX_RECORDED_BYTES = 65536
"""More than is printed, so that a secret at the end of the printed part is complete when it is masked."""
_DERIVED_SECRET = re.compile(r"[^\s,;=]{16,}")
_OUR_HEADERS = frozenset({"user-agent", "accept-encoding"})


class ExchangeLog(msgspec.Struct):
    """A transport that records one request and its answer. It sends through another transport."""

    transport: Transport
    request_line: str = ""
    request_headers: Headers = []
    request_body: bytes = b""
    status: int | None = None
    answer_headers: Mapping[str, str] = {}
    answer_body: bytearray = msgspec.field(default_factory=bytearray)

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send the request and record it. See `Transport.send`."""
        head = request.head
        self.request_line = f"{head.method} {head.origin}{head.target}"
        self.request_headers = [*head.headers, *request.credential.headers]
        self.request_body = request.body
        response = await self.transport.send(request)
        self.status, self.answer_headers = response.status, response.headers
        return _LoggedResponse(response, self.answer_body)

    async def aclose(self) -> None:
        await self.transport.aclose()


class _LoggedResponse(UpstreamResponse):
    """An answer whose first bytes are recorded while they are read."""

    __slots__ = ("_bytes", "_response")

    def __init__(self, response: UpstreamResponse, recorded: bytearray) -> None:
        self.status, self.headers, self.received_at = response.status, response.headers, response.received_at
        self._response = response
        self._bytes = recorded

    async def read(self, _: Tap | None = None) -> bytes:
        data = await self._response.read()
        self._bytes += data[: max(_MAX_RECORDED_BYTES - len(self._bytes), 0)]
        return data

    async def close(self) -> None:
        await self._response.close()


def exchange_text(log: ExchangeLog, mask: Callable[[str], str]) -> str:
    """Return the exchange as masked text. Control characters are not removed."""
    lines = [mask(log.request_line)]
    lines += [f"  {name}: {mask(value)}" for name, value in log.request_headers]
    lines += ["", *_indented(log.request_body, mask), ""]
    if log.status is None:
        lines.append("no answer")
    else:
        lines.append(f"{log.status}")
        lines += [f"  {name}: {mask(value)}" for name, value in log.answer_headers.items() if name != "set-cookie"]
        lines += ["", *_indented(bytes(log.answer_body), mask)]
    return "\n".join(lines)


def secret_mask(log: ExchangeLog, public: Iterable[tuple[str, str]], secrets: Iterable[Secret]) -> Callable[[str], str]:
    """Return a function that masks each secret, its parts, and values that were derived from it for this request.

    `public` are the headers that the adapter wrote. All other headers of the request are treated as credentials.
    """
    known = {*public, *((name, value) for name, value in log.request_headers if name in _OUR_HEADERS)}
    names = {name for name, _ in log.request_headers}
    words = {part for secret in secrets for part in parts_of(secret)}
    for header in log.request_headers:
        if header not in known:
            words |= {header[1], *_DERIVED_SECRET.findall(header[1])} - names
    longest_first = sorted(filter(None, words), key=len, reverse=True)
    if not longest_first:
        return lambda text: text
    pattern = re.compile("|".join(re.escape(word) for word in longest_first))
    return lambda text: pattern.sub(_MASK, text)


def _indented(body: bytes, mask: Callable[[str], str]) -> list[str]:
    """Return the body as indented lines. JSON is formatted over several lines."""
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        text = body.decode("utf-8", "replace")
    text = mask(text)
    cut = text if len(text) <= _MAX_SHOWN_CHARACTERS else text[:_MAX_SHOWN_CHARACTERS] + " …"
    return [f"  {line}".rstrip() for line in cut.split("\n")]
