"""Answers of the two simulated providers of a plan execution."""

import httpx

from providers.chat import ChatCompletion

SSE = {"content-type": "text/event-stream"}


def error(status: int, code: str | None = None, **headers: str) -> httpx.Response:
    body = {"error": {"message": "words with sk-first-secret in them", "type": "x", "code": code}}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


def chunk(text: str | None = None, finish: str | None = None) -> bytes:
    delta = f'"content":"{text}"' if text is not None else ""
    reason = f'"{finish}"' if finish else "null"
    return b'data: {"id":"s1","model":"m1","created":1,"choices":[{"index":0,"delta":{%s},"finish_reason":%s}]}\n\n' % (
        delta.encode(),
        reason.encode(),
    )


def text_of(completion: ChatCompletion | None) -> object:
    assert completion is not None
    return completion.choices[0].message.content
