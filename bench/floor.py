"""The minimum cost of the platform: uvicorn, uvloop and httptools with an application that reads a body and answers at
once.
No provider call, no decision, no JSON: a Python gateway on this server cannot cost less. The figure also shows how slow
a machine's Python is, so results from two machines can be compared by their ratio to it.

    uvicorn bench.floor:app
"""

from __future__ import annotations

from typing import Any

_ANSWER = (
    b'{"id":"chatcmpl-floor","object":"chat.completion","created":1,"model":"floor","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"' + b"floor " * 100 + b'"},"finish_reason":"stop"}]}'
)
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())],
}
_BODY = {"type": "http.response.body", "body": _ANSWER}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the body of a request and send a fixed answer."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send(_START)
    await send(_BODY)
