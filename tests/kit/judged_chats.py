"""Chats of a region with moderation: a scripted model with its judges, and one question in each API."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.kit.configs import Config
from tests.kit.input_gateway import InputGateway

HARM = "simulated-harm"
GOOD = "A first sentence, which is long enough to be judged by itself, because it has many words. "
BEGINNING = GOOD + "And another. "
HARMFUL = f"{GOOD}Then comes {HARM}, which is never shown. {GOOD}"
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [model]}, reveal_model: true}}
regions:
  default:
    territories: ["*"]
    boundary: ["*"]
    moderation: {input: [judge], output: [judge], on_failure: closed}
deployments:
  model: {provider: openai-compatible, model: c, endpoint: "https://chat.example/v1", stores: any, processes: any,
          capabilities: [tools, json_object, json_schema, logprobs, n, vision, reasoning]}
  judge: {provider: openai-compatible, model: j, endpoint: "https://judge.example/v1", stores: any, processes: any}
  spare: {provider: openai-compatible, model: j, endpoint: "https://spare.example/v1", stores: any, processes: any}
location: {unknown: default}
resilience: {retry_budget: "off"}
""")
JUDGES = {"webhook": "j", "llama-guard": "Llama-Guard-3-8B", "qwen3guard": "Qwen3Guard-Gen-4B"}
DIALECTS = ("chat", "completions", "messages", "responses", "gemini")
FORMS = {"json": False, "stream": True}
STREAMS = pytest.mark.parametrize("stream", FORMS.values(), ids=FORMS)
"""A test of whole answers and of streams."""
APIS = pytest.mark.parametrize("dialect", DIALECTS)
EACH_CHAT = pytest.mark.parametrize(
    ("dialect", "stream"),
    [pytest.param(api, stream, id=f"{api}-{form}") for api in DIALECTS for form, stream in FORMS.items()],
)
"""A test of each API, with whole answers and streams."""
TOOLS: dict[str, Any] = {
    "chat": [{"type": "function", "function": {"name": "find"}}],
    "messages": [{"name": "find", "input_schema": {"type": "object"}}],
    "responses": [{"type": "function", "name": "find", "parameters": {"type": "object"}}],
    "gemini": [{"functionDeclarations": [{"name": "find"}]}],
}
"""A tool in each API that has tools."""


@dataclass
class World:
    """A model and its judges. `answers` has the text of each choice, `judge` may replace the answer of a judge."""

    answers: Sequence[str] = (GOOD,)
    pieces: int = 7
    judge: Callable[[str], httpx.Response | None] = lambda _: None
    message: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"
    judged: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.host == "chat.example":
            self.asked.append(body)
            return self._stream() if body.get("stream") else self._whole()
        return self._verdict(request, body)

    def _verdict(self, request: httpx.Request, body: Any) -> httpx.Response:
        if request.url.path.endswith("/moderations"):
            texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
            self.judged += texts
            results = [{"flagged": HARM in text, "categories": {"violence": HARM in text}} for text in texts]
            return self.judge(request.url.host) or httpx.Response(200, json={"results": results})
        text = body["messages"][-1]["content"]
        self.judged.append(text)
        self.prompts += [one["content"] for one in body["messages"][:-1]]
        if "llama" in body["model"].lower():
            verdict = "unsafe\nS1" if HARM in text else "safe"
        else:
            verdict = (
                f"Safety: {'Unsafe' if HARM in text else 'Safe'}\nCategories: {'Violent' if HARM in text else 'None'}"
            )
            verdict += "\nRefusal: No" if len(body["messages"]) > 1 else ""
        answer = {"index": 0, "message": {"role": "assistant", "content": verdict}, "finish_reason": "stop"}
        document = {"id": "v", "object": "chat.completion", "created": 1, "model": "j", "choices": [answer]}
        return self.judge(request.url.host) or httpx.Response(200, json=document)

    def _whole(self) -> httpx.Response:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, **self.message},
                "finish_reason": self.finish,
            }
            for index, text in enumerate(self.answers)
        ]
        usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": "c"}
        return httpx.Response(200, json={**head, "choices": choices, "usage": usage})

    def _stream(self) -> httpx.Response:
        chunks = [*self._deltas(), {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}]
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "c"}
        lines = [f"data: {json.dumps({**head, **chunk})}\n\n" for chunk in chunks]
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, text="".join(lines) + "data: [DONE]\n\n", headers=headers)

    def _deltas(self) -> Iterator[dict[str, Any]]:
        for index, text in enumerate(self.answers):
            for start in range(0, len(text), self.pieces):
                delta = {"content": text[start : start + self.pieces]}
                yield {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}
            for name, value in self.message.items():
                delta = {name: [{"index": 0, **call} for call in value] if name == "tool_calls" else value}
                yield {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}
            yield {"choices": [{"index": index, "delta": {}, "finish_reason": self.finish}]}


def gateway(world: World, *patches: str | Mapping[str, Any]) -> InputGateway:
    return InputGateway(world, CONFIG.merge(*patches))


def judged_by(kind: str) -> dict[str, Any]:
    return {"deployments": {"judge": {"model": JUDGES[kind]}}}


def ask(
    served: InputGateway,
    dialect: str,
    question: str = "Hello.",
    *,
    stream: bool = False,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Any:
    """Send one question in one API."""
    user = {"role": "user", "content": question}
    streaming = {"stream": True} if stream else {}
    match dialect:
        case "chat":
            return served.post(
                "/v1/chat/completions", {"model": "assistant", "messages": [user], **streaming, **more}, headers
            )
        case "completions":
            return served.post(
                "/v1/completions", {"model": "assistant", "prompt": question, **streaming, **more}, headers
            )
        case "messages":
            body = {"model": "assistant", "max_tokens": 99, "messages": [user], **streaming, **more}
            return served.post("/v1/messages", body, headers)
        case "responses":
            return served.post("/v1/responses", {"model": "assistant", "input": question, **streaming, **more}, headers)
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    contents = [{"role": "user", "parts": [{"text": question}]}]
    return served.post(f"/v1beta/models/assistant:{method}", {"contents": contents, **more}, headers)


def events_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def ending_of(dialect: str, response: httpx.Response, *, stream: bool) -> tuple[Any, Any]:
    """Return why the answer ended, as its API names it, and `x_gateway` of the body or of the event that ends it."""
    documents = events_of(response) if stream else [response.json()]
    found = [document["x_gateway"] for document in documents if "x_gateway" in document]
    member = found[-1] if found else None
    match dialect:
        case "chat" | "completions":
            ends = [it["finish_reason"] for one in documents for it in one.get("choices", ()) if it["finish_reason"]]
        case "messages" if stream:
            ends = [one["delta"]["stop_reason"] for one in documents if one["type"] == "message_delta"]
        case "messages":
            ends = [documents[0]["stop_reason"]]
        case "responses":
            last = documents[-1]["response"] if stream else documents[0]
            details = last["incomplete_details"]
            ends = [details["reason"] if details else last["status"]]
        case _:
            ends = [it["finishReason"] for one in documents for it in one["candidates"] if "finishReason" in it]
    (end,) = ends
    return end, member


ENDS = {
    "chat": "content_filter",
    "completions": "content_filter",
    "messages": "refusal",
    "responses": "content_filter",
    "gemini": "SAFETY",
}


def text_of(response: httpx.Response, *, stream: bool) -> str:
    """Return all strings of an answer, one after another: the text, and some words of its API."""
    documents = events_of(response) if stream else [response.json()]
    words = {"content", "text", "delta"}
    return "".join(text for document in documents for name, text in _strings(document) if name in words)


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, name)
