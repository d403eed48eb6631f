"""Send bad tokens to a gateway from many addresses of this machine, at a steady rate, and count the statuses.

Run as a process of its own, so that it does not share an interpreter with what is measured:
`python -m tests.e2e.bad_token_senders PORT RATE SECONDS` prints the counts as JSON. With port 0 the tokens go to a server
of this process, which refuses them without a look: this machine has the work of sending, and the gateway has none.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections import Counter
from contextlib import suppress

ADDRESSES = 50
_FIRST = 10


def _part(members: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()


def _start() -> str:
    """Return a token of the issuer that could be valid, without its signature."""
    now = int(time.time())
    members = {"iss": "https://login.example", "aud": "api://gateway", "iat": now, "exp": now + 3000, "sub": "mallory"}
    return f"{_part({'alg': 'RS256', 'kid': 'r1', 'typ': 'JWT'})}.{_part({**members, 'groups': ['lab']})}"


async def _send(port: int, number: int, rate: float, until: float, start: str, statuses: Counter[int]) -> None:
    """Send tokens with a new wrong signature each, over one connection, at fixed times whatever the answers take."""
    address = f"127.0.0.{_FIRST + number}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    due = time.monotonic() + number / ADDRESSES / rate
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        due += 1 / rate
        signature = base64.urlsafe_b64encode(os.urandom(256)).rstrip(b"=").decode()
        body = b'{"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}'
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {start}.{signature}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        lower = answer.lower()
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        statuses[int(answer[9:12])] += 1
        if b"connection: close" in lower:
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.close()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of a connection with 401."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n{}")
    writer.close()


async def _send_all(port: int, rate: float, seconds: float) -> Counter[int]:
    statuses: Counter[int] = Counter()
    if port == 0:
        server = await asyncio.start_server(_refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
    start, until = _start(), time.monotonic() + seconds
    await asyncio.gather(
        *(_send(port, number, rate / ADDRESSES, until, start, statuses) for number in range(ADDRESSES))
    )
    return statuses


if __name__ == "__main__":
    port, rate, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(_send_all(int(port), float(rate), float(seconds)))))
