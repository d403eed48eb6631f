"""Chats in a region with moderation, in every API, as JSON and as streams, with each kind of judge."""

from __future__ import annotations

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


def ask(served: InputGateway, dialect: str, question: str = "Hello.", *, stream: bool = False, **more: Any) -> Any:
    """Send one question in one API."""
    user = {"role": "user", "content": question}
    streaming = {"stream": True} if stream else {}
    match dialect:
        case "chat":
            return served.post("/v1/chat/completions", {"model": "assistant", "messages": [user], **streaming, **more})
        case "completions":
            return served.post("/v1/completions", {"model": "assistant", "prompt": question, **streaming, **more})
        case "messages":
            body = {"model": "assistant", "max_tokens": 99, "messages": [user], **streaming, **more}
            return served.post("/v1/messages", body)
        case "responses":
            return served.post("/v1/responses", {"model": "assistant", "input": question, **streaming, **more})
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    contents = [{"role": "user", "parts": [{"text": question}]}]
    return served.post(f"/v1beta/models/assistant:{method}", {"contents": contents, **more})


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


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_flagged_answer_ends_with_what_was_released(dialect: str, stream: bool, kind: str) -> None:
    world = World([HARMFUL])
    response = ask(gateway(world, judged_by(kind)), dialect, stream=stream)
    assert response.status_code == 200, response.text
    assert HARM not in response.text
    assert "never shown" not in response.text
    assert "long enough to be judged by itself" in text_of(response, stream=stream)
    end, member = ending_of(dialect, response, stream=stream)
    assert end == ENDS[dialect]
    assert member["moderation"]["direction"] == "output"
    assert "violence" in member["moderation"]["categories"]
    if kind != "webhook":
        assert set(world.prompts) == {"Hello."}


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


@pytest.mark.parametrize("kind", JUDGES)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_flagged_request_reaches_no_model(dialect: str, stream: bool, kind: str) -> None:
    world = World()
    response = ask(gateway(world, judged_by(kind)), dialect, f"Some {HARM}.", stream=stream)
    assert (response.status_code, world.asked) == (400, [])
    assert response.headers["content-type"].startswith("application/json")
    document = response.json()
    error = document["error"]
    if dialect == "gemini":
        found = [it["value"]["moderation"] for it in error["details"] if "moderation" in it.get("value", ())]
        assert found[0]["direction"] == "input"
    else:
        assert error["moderation"]["direction"] == "input"
        assert "violence" in error["moderation"]["categories"]
    assert HARM not in response.text


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_passed_answer_is_complete(dialect: str, stream: bool) -> None:
    world = World([BEGINNING * 4])
    response = ask(gateway(world), dialect, stream=stream)
    _, member = ending_of(dialect, response, stream=stream)
    assert member is None or "moderation" not in member
    assert world.judged[0] == "Hello."
    assert "And another. " in response.text or stream
    assert response.headers.get("x-gateway-moderation") is None


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_without_a_verdict_there_is_no_answer(dialect: str, stream: bool) -> None:
    world = World(judge=lambda _: httpx.Response(200, text="nonsense"))
    response = ask(gateway(world), dialect, stream=stream)
    assert (response.status_code, world.asked) == (503, [])
    assert "moderation" in response.text
    if dialect == "chat":
        error = response.json()["error"]
        assert (error["code"], error["reason"]) == ("moderation_unavailable", "outage")


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_open_policy_goes_on_and_shows_it(dialect: str, stream: bool) -> None:
    world = World(judge=lambda _: httpx.Response(500))
    served = gateway(world, {"regions": {"default": {"moderation": {"on_failure": "open"}}}})
    response = ask(served, dialect, stream=stream)
    assert response.status_code == 200
    assert response.headers["x-gateway-moderation"] == "skipped"
    _, member = ending_of(dialect, response, stream=stream)
    assert member is None or member["moderation"] == {"skipped": True}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_judge_that_dies_after_the_input(dialect: str, on_failure: str) -> None:
    calls: list[str] = []

    def judge(host: str) -> httpx.Response | None:
        calls.append(host)
        return None if len(calls) < 3 else httpx.Response(503)

    world = World([GOOD * 3], judge=judge)
    served = gateway(world, {"regions": {"default": {"moderation": {"on_failure": on_failure}}}})
    response = ask(served, dialect, stream=True)
    assert response.status_code == 200
    if on_failure == "open":
        _, member = ending_of(dialect, response, stream=True)
        assert member["moderation"] == {"skipped": True}
    else:
        assert "moderation" in response.text or "judged" in response.text
        assert response.text.count("error") >= 1


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_next_judge_is_asked_if_one_fails(stream: bool) -> None:
    world = World([HARMFUL], judge=lambda host: httpx.Response(500) if host == "judge.example" else None)
    both = {"regions": {"default": {"moderation": {"input": ["judge", "spare"], "output": ["judge", "spare"]}}}}
    response = ask(gateway(world, both), "chat", stream=stream)
    assert HARM not in response.text
    assert ending_of("chat", response, stream=stream)[0] == "content_filter"


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_each_choice_is_judged(stream: bool) -> None:
    world = World([GOOD, HARMFUL, BEGINNING])
    response = ask(gateway(world), "chat", stream=stream, n=3)
    assert HARM not in response.text
    documents = events_of(response) if stream else [response.json()]
    ends = {it["index"]: it["finish_reason"] for one in documents for it in one["choices"] if it["finish_reason"]}
    assert ends == {0: "stop", 1: "content_filter", 2: "stop"}
    if not stream:
        assert [it["message"]["content"] for it in documents[0]["choices"]] == [GOOD, GOOD, BEGINNING]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", ["chat", "messages", "responses", "gemini"])
@pytest.mark.parametrize("word", ["Rome", HARM])
def test_tool_call_is_judged_and_removed(dialect: str, stream: bool, word: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": json.dumps({"city": word})}}
    world = World(["I look."], message={"tool_calls": [call]}, finish="tool_calls")
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools: dict[str, Any] = {
        "chat": [{"type": "function", "function": {"name": "find", "parameters": schema}}],
        "messages": [{"name": "find", "input_schema": schema}],
        "responses": [{"type": "function", "name": "find", "parameters": schema}],
        "gemini": [{"functionDeclarations": [{"name": "find", "parametersJsonSchema": schema}]}],
    }
    response = ask(gateway(world), dialect, stream=stream, tools=tools[dialect])
    assert response.status_code == 200, response.text
    assert HARM not in response.text
    assert ("Rome" in response.text) is (word == "Rome")
    if word == HARM:
        assert ending_of(dialect, response, stream=stream)[0] == ENDS[dialect]


def test_results_of_tools_are_judged() -> None:
    world = World()
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Find it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": f"found {HARM}"},
    ]
    response = gateway(world).post("/v1/chat/completions", {"model": "assistant", "messages": messages})
    assert (response.status_code, world.asked) == (400, [])


def test_long_chat_costs_one_verdict_a_turn() -> None:
    world = World([GOOD])
    served = gateway(world)
    messages: list[dict[str, str]] = [{"role": "system", "content": "Be kind."}]
    for turn in range(100):
        messages.append({"role": "user", "content": f"Question {turn}?"})
        before = len(world.judged)
        response = served.post("/v1/chat/completions", {"model": "assistant", "messages": messages})
        messages.append({"role": "assistant", "content": response.json()["choices"][0]["message"]["content"]})
        new = world.judged[before:]
        assert new == [*(["Be kind."] if turn == 0 else []), f"Question {turn}?", GOOD]
    other = World([GOOD])
    gateway(other).post("/v1/chat/completions", {"model": "assistant", "messages": messages[:-1]})
    assert len(other.judged) == 1 + 100 + 1 + 1  # each different text once, and the answer


def test_history_that_a_client_invents_is_judged() -> None:
    world = World()
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": f"I said {HARM}"},
        {"role": "user", "content": "Repeat it."},
    ]
    assert gateway(world).post("/v1/chat/completions", {"model": "assistant", "messages": messages}).status_code == 400


@pytest.mark.parametrize("policy", ["refuse", "pass"])
def test_images_without_a_judge(policy: str) -> None:
    world = World()
    served = gateway(world, {"regions": {"default": {"moderation": {"media": policy}}}})
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    messages = [{"role": "user", "content": parts}]
    response = served.post("/v1/chat/completions", {"model": "assistant", "messages": messages})
    if policy == "pass":
        assert response.status_code == 200
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_capability")
        assert world.asked == []


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_required_format_is_held_until_the_whole_is_judged(stream: bool) -> None:
    text = json.dumps({"a": "One. Two.\n" * 20, "b": HARM})
    world = World([text])
    response = ask(gateway(world), "chat", stream=stream, response_format={"type": "json_object"})
    assert "One." not in response.text
    assert ending_of("chat", response, stream=stream)[0] == "content_filter"
    assert world.judged == ["Hello.", text]


def test_controversial_verdict_follows_the_policy() -> None:
    def answered(_: str) -> httpx.Response:
        verdict = "Safety: Controversial\nCategories: Politically Sensitive Topics"
        choice = {"index": 0, "message": {"role": "assistant", "content": verdict}, "finish_reason": "stop"}
        return httpx.Response(200, json={"id": "v", "created": 1, "model": "j", "choices": [choice]})

    blocks = ask(gateway(World(judge=answered), judged_by("qwen3guard")), "chat")
    assert blocks.status_code == 400
    assert blocks.json()["error"]["moderation"]["categories"] == ["politically-sensitive"]
    passing = {"regions": {"default": {"moderation": {"controversial": "pass"}}}}
    assert ask(gateway(World(judge=answered), judged_by("qwen3guard"), passing), "chat").status_code == 200


OUTPUT_ONLY = {"regions": {"default": {"moderation": {"input": None}}}}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_error_before_the_first_text_has_a_status(dialect: str, stream: bool) -> None:
    world = World(judge=lambda _: httpx.Response(500))
    response = ask(gateway(world, OUTPUT_ONLY), dialect, stream=stream)
    assert (response.status_code, len(world.asked)) == (503, 1)
    assert GOOD not in response.text


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_skipped_verdict_on_the_first_text_is_in_the_header(stream: bool) -> None:
    opened = {"regions": {"default": {"moderation": {"on_failure": "open"}}}}
    response = ask(gateway(World(judge=lambda _: httpx.Response(500)), OUTPUT_ONLY, opened), "chat", stream=stream)
    assert (response.status_code, response.headers["x-gateway-moderation"]) == (200, "skipped")
    assert ending_of("chat", response, stream=stream)[1]["moderation"] == {"skipped": True}
