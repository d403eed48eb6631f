"""One exchange with a provider, kept for a person to read, with everything secret masked: `gateway providers check`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.execution.transports import Headers, Incoming, Transport
from gateway.model.permit import AnyPermit
from providers.auth import Secret

__all__ = ["ExchangeLog", "shown_exchange"]

_MASK = "(masked)"
_SHOWN_BYTES = 4096


@dataclass(slots=True)
class ExchangeLog:
    """A transport that keeps what one request and its answer were. It opens nothing by itself."""

    transport: Transport
    request_line: str = ""
    request_headers: Headers = field(default_factory=list)
    request_body: bytes = b""
    status: int | None = None
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    answer_body: bytearray = field(default_factory=bytearray)

    async def send(
        self, permit: AnyPermit, method: str, target: str, headers: Headers, body: bytes, connect_s: float
    ) -> Incoming:
        """See Transport."""
        self.request_line = f"{method} {permit.origin}{target}"
        self.request_headers, self.request_body = headers, body
        incoming = await self.transport.send(permit, method, target, headers, body, connect_s)
        self.status, self.answer_headers = incoming.status, incoming.headers
        return _Kept(incoming, self.answer_body)

    async def aclose(self) -> None:
        """Close every connection."""
        await self.transport.aclose()


class _Kept:
    """An answer whose first bytes are kept while they are read."""

    def __init__(self, incoming: Incoming, kept: bytearray) -> None:
        self.status, self.headers = incoming.status, incoming.headers
        self._incoming = incoming
        self._bytes = kept

    async def read(self) -> bytes:
        data = await self._incoming.read()
        self._bytes += data[: max(_SHOWN_BYTES - len(self._bytes), 0)]
        return data

    async def close(self) -> None:
        await self._incoming.close()


def shown_exchange(log: ExchangeLog, public: Iterable[tuple[str, str]], secrets: Iterable[Secret]) -> str:
    """The exchange in lines. `public` are the headers that the adapter wrote: what came on top of them opens doors."""
    open_headers = {*public, *((name, value) for name, value in log.request_headers if name in _OWN)}
    lines = [log.request_line]
    lines += [f"  {pair[0]}: {pair[1] if pair in open_headers else _MASK}" for pair in log.request_headers]
    lines += ["", *_indented(log.request_body), ""]
    if log.status is None:
        lines.append("no answer")
    else:
        lines.append(f"{log.status}")
        lines += [f"  {name}: {value}" for name, value in log.answer_headers.items() if name != "set-cookie"]
        lines += ["", *_indented(bytes(log.answer_body))]
    text = "\n".join(lines)
    for secret in secrets:
        text = text.replace(secret.reveal(), _MASK)
    return text


_OWN = frozenset({"user-agent", "accept-encoding"})


def _indented(body: bytes) -> list[str]:
    """The body as a person reads it: JSON over several lines, anything else as it is, without control characters."""
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        text = body.decode("utf-8", "replace")
    cut = text if len(text) <= _SHOWN_BYTES else text[:_SHOWN_BYTES] + " …"
    visible = ["".join(c if c.isprintable() else "?" for c in line) for line in cut.split("\n")]
    return [f"  {line}".rstrip() for line in visible]
