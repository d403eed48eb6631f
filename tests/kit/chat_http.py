"""Chat requests over HTTP, and the events of a streamed answer."""

import json
from typing import Any

import httpx

EU = {"cf-ipcountry": "DE"}
CHAT = "/v1/chat/completions"


def body(**more: Any) -> dict[str, Any]:
    return {"model": "assistant", "messages": [{"role": "user", "content": "Hello! Who are you?"}], **more}


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    """Return the status, the code and the param of a refusal."""
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


def events_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def events_in(data: bytes) -> list[Any]:
    """Return the events of a stream. Each must be one line of JSON."""
    blocks = data.decode("utf-8").split("\n\n")
    assert blocks.pop() == ""
    found: list[Any] = []
    for block in blocks:
        assert block.startswith("data: ")
        text = block.removeprefix("data: ")
        assert "\n" not in text
        found.append(text if text == "[DONE]" else json.loads(text))
    return found
