"""Requests through a connection pool."""

from __future__ import annotations

from providers.transport import Pool, PooledResponse


def anyone(_: str, __: object) -> None:
    pass


async def send(
    pool: Pool, origin: str, body: bytes = b"{}", connect_s: float = 5, permit: object = None
) -> PooledResponse:
    return await pool.send(origin, "POST", "/v1", "a: b\r\n", body, connect_s, permit)


async def ask(pool: Pool, origin: str) -> bytes:
    """One exchange, read to its end and given back."""
    response = await send(pool, origin)
    try:
        body = b""
        while data := await response.read():
            body += data
        return body
    finally:
        response.close()
