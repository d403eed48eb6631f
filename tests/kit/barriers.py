"""A route with a barrier: its configuration, its scripted deployments, and the consent that a client is asked for."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.kit.configs import Config, key_hash
from tests.kit.input_gateway import InputGateway

CONFIG = Config.parse("""
version: 1
assistants:
  assistant: {routes: {default: [house, {hand_off: {when: [capability, context, failure]}}, cloud]}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  house: {provider: openai-compatible, model: h, endpoint: "https://house.example/v1", stores: any, processes: any,
          capabilities: [tools]}
  small: {provider: openai-compatible, model: s, endpoint: "https://small.example/v1", stores: any, processes: any,
          capabilities: []}
  cloud: {provider: openai-compatible, model: c, endpoint: "https://cloud.example/v1", stores: any, processes: any,
          capabilities: [tools, vision, n, json_object], consent: {mode: per_request, recipient: Cloud}}
  other: {provider: openai-compatible, model: o, endpoint: "https://other.example/v1", stores: any, processes: any,
          capabilities: [tools, vision]}
location: {unknown: default}
clients: {app: {keys: [], may_assert: [consent, user]}}
resilience: {retry_budget: "off", attempts: {per_deployment: 1}}
secrets: {consent: "${CONSENT_KEY}"}
""").merge({"clients": {"app": {"keys": [key_hash("gk-1")]}}})
KEY = {"authorization": "Bearer gk-1"}
NEVER = {**KEY, "x-gateway-hand-off": "never"}
STANDING: dict[str, Any] = {"deployments": {"cloud": {"consent": {"mode": "standing"}}}}
GRANTED = {**KEY, "x-gateway-user": "u", "x-gateway-consent": "granted"}
FREE: dict[str, Any] = {"deployments": {"cloud": {"consent": None}}}
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
PICTURE: dict[str, Any] = {"messages": [{"role": "user", "content": [{"type": "text", "text": "See"}, PIXEL]}]}
TOO_LONG = {"error": {"message": "too long", "code": "context_length_exceeded", "type": "invalid_request_error"}}


def barrier(
    *when: str, share: str = "conversation", before: Any = ("house",), behind: Any = ("cloud",)
) -> dict[str, Any]:
    step = {"hand_off": {"when": list(when), "share": share}}
    return {"assistants": {"assistant": {"routes": {"default": [*before, step, *behind]}}}}


def whole(text: str, model: str = "m", **message: Any) -> httpx.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    head = {"id": "x", "object": "chat.completion", "created": 1, "model": model}
    return httpx.Response(200, json={**head, "choices": [choice], "usage": usage})


def streamed(text: str) -> httpx.Response:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}]
    lines = "".join(f"data: {json.dumps({**head, **chunk})}\n\n" for chunk in chunks)
    return httpx.Response(200, text=f"{lines}data: [DONE]\n\n", headers={"content-type": "text/event-stream"})


def broken_off(text: str) -> httpx.Response:
    """Return a stream without an end."""
    whole = streamed(text).text.replace('"finish_reason": "stop"', '"finish_reason": null')
    return httpx.Response(200, text=whole[: whole.index("data: [DONE]")], headers={"content-type": "text/event-stream"})


@dataclass
class Providers:
    """Deployments by their host. One without an answer of its own answers with its name."""

    answers: dict[str, Callable[[Any], httpx.Response] | httpx.Response] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name, body = request.url.host.partition(".")[0], json.loads(request.content)
        self.asked.append((name, body))
        own = self.answers.get(name)
        if own is not None:
            return own(body) if callable(own) else httpx.Response(own.status_code, content=own.content)
        return streamed(name) if body.get("stream") else whole(name)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.asked]


def served_by(providers: Providers, *patches: str | Mapping[str, Any]) -> InputGateway:
    return InputGateway(providers, CONFIG.merge(*patches), {"CONSENT_KEY": "k" * 40})


def failing(status: int, document: Any = None) -> httpx.Response:
    return httpx.Response(status, json=document or {"error": {"message": "no", "code": "x"}})


def consent_of(response: httpx.Response) -> Any:
    """Return the question to the user of a 403, in any form of errors."""
    error = response.json()["error"]
    if "details" in error:
        (found,) = (it["value"]["consent"] for it in error["details"] if "consent" in it.get("value", {}))
        return found
    return error["consent"]
