"""Every path that accepts a prompt: how a client writes a request there, and what it reads in the answer.

`PROMPT_FORMS` has all forms. `tests/e2e/test_fence_paths.py` checks that each POST path of the
OpenAPI document belongs to a form.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Outcome:
    """The content of an answer.

    Attributes:
        text: The text.
        code: The code of the error, also of one inside a stream.
        done: Whether the end of a whole answer was read.
    """

    text: str = ""
    code: str | None = None
    done: bool = False


@dataclass(frozen=True)
class PromptForm:
    """The form of the requests and answers at one or two paths.

    Attributes:
        name: The name of the form.
        paths: The paths as the OpenAPI document has them.
        write: Returns the path and the body for an assistant, a prompt, and whether to stream.
        read: Reads one object of an answer: the whole body, or one object of a stream.
        shapes: Whether the form has whole answers (False) and streams (True).
        asks: A provider is asked. If not, the gateway answers by itself.
    """

    name: str
    paths: tuple[str, ...]
    write: Callable[[str, str, bool], tuple[str, dict[str, Any]]]
    read: Callable[[Any, Outcome], None]
    shapes: tuple[bool, ...] = (False, True)
    asks: bool = True

    def __str__(self) -> str:
        return self.name

    def outcome_of(self, text: str, content_type: str) -> Outcome:
        """Return what a client has read, also of a stream that has not ended."""
        outcome = Outcome()
        if content_type.startswith("text/event-stream"):
            lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
            objects = [json.loads(line) for line in lines if line != "[DONE]"]
            outcome.done = "[DONE]" in lines
        else:
            body = json.loads(text)
            objects = body if isinstance(body, list) else [body]
        for one in objects:
            self.read(one, outcome)
        if not content_type.startswith("text/event-stream") and objects[0].get("object") in _WHOLE:
            outcome.done = True  # it need not have a count of tokens
        return outcome


_WHOLE = ("chat.completion", "text_completion")


def _chat(assistant: str, prompt: str, stream: bool) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": prompt}]
    return "/v1/chat/completions", {"model": assistant, "messages": messages, "stream": stream}


def _read_openai(one: Any, outcome: Outcome) -> None:
    if one.get("error"):
        outcome.code = one["error"]["code"]
        return
    for choice in one["choices"]:
        message = choice.get("message")
        said = choice.get("text") or (message or choice.get("delta") or {}).get("content")
        outcome.text += said or ""
    # A stream ends with [DONE]; a whole answer has a message, or the object and usage of a legacy completion.
    is_chunk = one["object"] == "chat.completion.chunk" or one.get("usage") is None
    outcome.done = outcome.done or not is_chunk


def _completions(assistant: str, prompt: str, stream: bool) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"model": assistant, "prompt": prompt, "stream": stream}


def _responses(assistant: str, prompt: str, stream: bool) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"model": assistant, "input": prompt, "stream": stream}


def _read_responses(one: Any, outcome: Outcome) -> None:
    if "type" not in one:
        if one.get("error"):
            outcome.code = one["error"]["code"]
            return
        if "input_tokens" in one:
            return
        contents = [part for item in one["output"] for part in item.get("content") or ()]
        outcome.text = "".join(part.get("text", "") for part in contents)
        outcome.done = True
    elif one["type"] == "response.output_text.delta":
        outcome.text += one["delta"]
    elif one["type"] == "response.failed":
        outcome.code = one["response"]["error"]["code"]
    elif one["type"] in ("response.completed", "response.incomplete"):
        outcome.done = True


def _count_responses(assistant: str, prompt: str, _: bool) -> tuple[str, dict[str, Any]]:
    return "/v1/responses/input_tokens", {"model": assistant, "input": prompt}


def _messages(assistant: str, prompt: str, stream: bool) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": prompt}]
    return "/v1/messages", {"model": assistant, "max_tokens": 1024, "messages": messages, "stream": stream}


def _count_messages(assistant: str, prompt: str, _: bool) -> tuple[str, dict[str, Any]]:
    return "/v1/messages/count_tokens", {"model": assistant, "messages": [{"role": "user", "content": prompt}]}


def _read_messages(one: Any, outcome: Outcome) -> None:
    kind = one.get("type")
    if kind == "error":
        outcome.code = one["error"]["code"]
    elif kind == "message":
        outcome.text, outcome.done = "".join(part.get("text", "") for part in one["content"]), True
    elif kind == "content_block_delta":
        outcome.text += one["delta"].get("text", "")
    elif kind == "message_stop":
        outcome.done = True


def _gemini(method: str) -> Callable[[str, str, bool], tuple[str, dict[str, Any]]]:
    def write(assistant: str, prompt: str, stream: bool) -> tuple[str, dict[str, Any]]:
        path = f"/v1beta/models/{assistant}:{'streamGenerateContent' if stream else 'generateContent'}{method}"
        if method == "countTokens":
            path = f"/v1beta/models/{assistant}:{method}"
        return path, {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}

    return write


def _read_gemini(one: Any, outcome: Outcome) -> None:
    if "error" in one:
        outcome.code = one["error"]["details"][0]["reason"]
        return
    for candidate in one.get("candidates", ()):
        outcome.text += "".join(part.get("text", "") for part in candidate["content"]["parts"])
        outcome.done = outcome.done or "finishReason" in candidate


_GENERATE = "/v1beta/models/{assistant}:generateContent"
_STREAM = "/v1beta/models/{assistant}:streamGenerateContent"
PROMPT_FORMS = (
    PromptForm("chat", ("/v1/chat/completions",), _chat, _read_openai),
    PromptForm("completions", ("/v1/completions",), _completions, _read_openai),
    PromptForm("responses", ("/v1/responses",), _responses, _read_responses),
    PromptForm(
        "responses-count",
        ("/v1/responses/input_tokens",),
        _count_responses,
        _read_responses,
        shapes=(False,),
        asks=False,
    ),
    PromptForm("messages", ("/v1/messages",), _messages, _read_messages),
    PromptForm(
        "messages-count", ("/v1/messages/count_tokens",), _count_messages, _read_messages, shapes=(False,), asks=False
    ),
    PromptForm("gemini", (_GENERATE, _STREAM), _gemini("?alt=sse"), _read_gemini),
    PromptForm("gemini-array", (_STREAM,), _gemini(""), _read_gemini, shapes=(True,)),
    PromptForm(
        "gemini-count",
        ("/v1beta/models/{assistant}:countTokens",),
        _gemini("countTokens"),
        _read_gemini,
        shapes=(False,),
        asks=False,
    ),
)
ASKING_FORMS = tuple(form for form in PROMPT_FORMS if form.asks)
"""The forms at whose paths a provider is asked."""
