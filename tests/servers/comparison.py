"""The requests that a server is asked directly and through the gateway, and the form in which the two answers are compared."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import httpx

from tests.kit.gateway_process import APP_KEY
from tests.servers.llamacpp_server import CONTEXT_TOKENS

__all__ = ["FORMS", "HELLO", "OPTIONS", "SAME", "TOOL", "Both", "called", "folded", "image"]

FORMS: dict[str, dict[str, Any]] = {"whole": {}, "stream": {"stream": True, "stream_options": {"include_usage": True}}}
HELLO = {"role": "user", "content": "Hello"}
_PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": _PARAMETERS}}


def called(arguments: str) -> list[dict[str, Any]]:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sun"}
    return [HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, result]


def image(number: int) -> list[dict[str, Any]]:
    url = {"url": "data:image/png;base64,iVBORw0KGgo="}
    return [
        {"role": "user", "content": [{"type": "text", "text": f"{number}"}, {"type": "image_url", "image_url": url}]}
    ]


SAME: dict[str, list[dict[str, Any]]] = {
    "a text": [HELLO],
    "a system message": [{"role": "system", "content": "Be brief."}, HELLO],
    "a developer message": [{"role": "developer", "content": "Be brief."}, HELLO],
    "turns": [HELLO, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And now?"}],
    "a part": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    "text of many languages": [{"role": "user", "content": "Grüß 你好 🙂 \0"}],
    "the result of a call": called('{"city":"Ulm"}'),
    "an empty text": [{"role": "user", "content": ""}],
    "a prompt that is too long": [{"role": "user", "content": "long " * CONTEXT_TOKENS}],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "stop": {"stop": ["e"]},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "json_object": {"response_format": {"type": "json_object"}},
    "a schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": _PARAMETERS}}
    },
    "a schema that is none": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "nonsense"}}}
    },
    "tools": {"tools": [TOOL]},
    "a forced call": {"tools": [TOOL], "tool_choice": "required"},
    "penalties": {"frequency_penalty": 0.5, "presence_penalty": 0.2, "seed": 3},
    "a warm sample": {"temperature": 0.9, "top_p": 0.8, "seed": 7},
    "more than the context has": {"max_tokens": 5 * CONTEXT_TOKENS},
}


class Both:
    """The server and a gateway before it; each request goes to one of them."""

    def __init__(self, server: str, gateway: str, http: httpx.Client, model: str = "tiny") -> None:
        self.server = server + "/v1/chat/completions"
        self.gateway = gateway
        self._http = http
        self._model = model

    def direct(self, body: dict[str, Any]) -> httpx.Response:
        return self._http.post(self.server, json=_complete(body) | {"model": self._model})

    def through(
        self, body: dict[str, Any], key: str = APP_KEY, assistant: str = "llama", path: str = "/v1/chat/completions"
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return self._http.post(self.gateway + path, json=_complete(body) | {"model": assistant}, headers=headers)


def _complete(body: dict[str, Any]) -> dict[str, Any]:
    return {"temperature": 0, "max_tokens": 12} | body


def folded(response: httpx.Response) -> Any:
    """Return what a client gets, alike for a stream and a whole answer: choices and usage, or how it was refused."""
    if response.status_code != 200:
        return response.status_code // 100
    if not response.headers["content-type"].startswith("text/event-stream"):
        events = [response.json()]
    else:
        events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith('data: {"')]
    choices: dict[int, Any] = defaultdict(lambda: {"text": "", "calls": defaultdict(str), "tokens": [], "finish": None})
    usage = None
    for event in events:
        if "error" in event:
            return "an error in the stream"
        usage = event.get("usage") or usage
        for one in event["choices"]:
            choice, said = choices[one["index"]], one.get("message") or one["delta"]
            choice["text"] += said.get("content") or ""
            choice["finish"] = one.get("finish_reason") or choice["finish"]
            choice["tokens"] += [token["token"] for token in (one.get("logprobs") or {}).get("content") or []]
            for at, call in enumerate(said.get("tool_calls") or []):
                function = call["function"]
                choice["calls"][call.get("index", at)] += function.get("name", "") + function.get("arguments", "")
    return dict(choices), usage["prompt_tokens"], usage["completion_tokens"]
