"""The model of all simulated providers: a pure function from a request to an answer.

It does not understand the request. It answers in the language of the request (English or Chinese), states its name and
that it is simulated, fills in requested schemas, answers in JSON if the system text asks for a JSON object, obeys
`stop`, `max_tokens` and `n`, and continues a prefilled answer. It uses no clock and no randomness: the same request
gets the same answer, ids included.

An agent executes what a model calls. So it calls a tool only if `tool_choice` asks for one or a short question names
a word of the tool's name, once in each turn, and never fills in what an agent would execute or write into a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from json import JSONDecoder

from providers import chat
from providers.formats.fitting import LATE_SYSTEM
from providers.formats.tool_results import is_attachment
from providers.json_values import dumps
from providers.testkit.answer_pieces import cut
from providers.testkit.schema_instance import instance_of
from providers.value import Value

_TOKENS_PER_MESSAGE = 3
_TOKENS_PER_TOOL = 12
_TOKENS_PER_IMAGE = 85
_KANA = re.compile("[\u3040-\u30ff]")
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_AND = re.compile(r"\band\b|和|以及|、", re.IGNORECASE)
_JSON_OBJECT = re.compile(r"\bJSON object\b", re.IGNORECASE)
_MOST_OF_A_RESULT = 200
_LONGEST_QUESTION = 300
_EXECUTED = frozenset({"command", "commands", "cmd", "script", "prompt", "code", "shell", "sql", "chars", "patch"})
_WRITTEN = frozenset({"content", "new_string", "new_source", "file_text"})
_SMALL_WORDS = frozenset({"a", "an", "and", "for", "in", "of", "on", "or", "the", "to", "with"})
_WORD = re.compile(r"[^\W_]+")
_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LATE_SYSTEM = LATE_SYSTEM.partition("\n")[0]
_OPENING_TAG = re.compile(r"<([\w-]+)>")


def respond(request: chat.ChatRequest, persona: str) -> chat.ChatCompletion:
    """Return the simulated answer to a request. Its `created` is 0, because the function uses no clock.

    `persona` is the name that the answer mentions, such as that of a site.
    """
    digest = hashlib.sha256(repr((persona, request)).encode("utf-8", "surrogatepass")).hexdigest()
    choices = tuple(_choice(request, persona, index, digest) for index in range(request.n or 1))
    usage = chat.Usage(
        prompt_tokens=_prompt_tokens(request),
        completion_tokens=sum(choice.tokens + choice.reasoning_tokens for choice in choices),
        reasoning_tokens=sum(choice.reasoning_tokens for choice in choices),
    )
    answers = tuple(chat.Choice(one.message, one.finish, index, one.logprobs) for index, one in enumerate(choices))
    return chat.ChatCompletion(f"chatcmpl-{digest[:24]}", request.model, 0, answers, usage)


class _SimulatedChoice(Value, frozen=True):
    """One choice, with its token counts."""

    message: chat.AssistantMessage
    finish: chat.FinishReason
    tokens: int
    reasoning_tokens: int
    logprobs: chat.Logprobs | None = None


def _choice(request: chat.ChatRequest, persona: str, index: int, digest: str) -> _SimulatedChoice:
    asked = _last_user_text(request)
    chinese = bool(_IDEOGRAPH.search(asked)) and not _KANA.search(asked)
    budget = request.max_tokens if request.max_tokens is not None else 2**31
    thinking = "模拟的思考：先读问题，再回答。" if chinese else "Simulated thinking: read the question, then answer it."
    thought = cut(thinking) if request.reasoning_effort not in (None, "none") else ()
    thought = thought[:budget]
    budget -= len(thought)
    reasoning = "".join(thought) or None
    calls = _calls(request, f"{digest[:16]}{index}")
    if calls:
        cost = sum(len(cut(call.arguments)) + 1 for call in calls)
        if cost > budget:
            return _SimulatedChoice(chat.AssistantMessage("", reasoning=reasoning), "length", 0, len(thought))
        message = chat.AssistantMessage(None, reasoning=reasoning, tool_calls=calls)
        return _SimulatedChoice(message, "tool_calls", cost, len(thought))
    text = _text(request, persona, chinese, index)
    ends = [position for stop in request.stop if (position := text.find(stop)) >= 0]
    pieces = cut(continued(request, text[: min(ends)] if ends else text))
    finish: chat.FinishReason = "stop" if len(pieces) <= budget else "length"
    pieces = pieces[:budget]
    tokens = [{"token": piece, "logprob": -0.25, "bytes": list(piece.encode()), "top_logprobs": []} for piece in pieces]
    logprobs: chat.Logprobs | None = {"content": tokens, "refusal": None} if request.logprobs else None
    message = chat.AssistantMessage("".join(pieces), reasoning=reasoning)
    return _SimulatedChoice(message, finish, len(pieces), len(thought), logprobs)


def continued(request: chat.ChatRequest, text: str) -> str:
    """Return the rest of a text whose beginning is the request's last message (prefill)."""
    last = request.messages[-1]
    return text.removeprefix(chat.text_of(last.content)) if isinstance(last, chat.AssistantMessage) else text


def _last_user_text(request: chat.ChatRequest) -> str:
    for message in reversed(request.messages):
        if isinstance(message, chat.UserMessage):
            parts = (message.content,) if isinstance(message.content, str) else message.content
            text = "\n".join(part if isinstance(part, str) else chat.text_of((part,)) for part in parts)
            return _without_blocks(text) or text
    return ""


def _without_blocks(text: str) -> str:
    """Return a text without what an agent adds: a later system message, and blocks such as `<system-reminder>`."""
    before, late, after = text.partition(_LATE_SYSTEM)
    text = before or after.rpartition("\n\n")[2] if late else text
    kept: list[str] = []
    closing = ""
    for line in text.splitlines():
        if not closing and (tag := _OPENING_TAG.match(line)) is not None:
            closing = f"</{tag[1]}>"
        if not closing:
            kept.append(line)
        elif closing in line:
            kept.append(line.rpartition(closing)[2])
            closing = ""
    return "\n".join(kept).strip()


def _text(request: chat.ChatRequest, persona: str, chinese: bool, index: int) -> str:
    text = _said(_trailing_results(request.messages), persona, chinese)
    images = _image_count(request.messages)
    if images:
        text += f"我看到{images}张图片。" if chinese else f" I see {images} image{'s' if images > 1 else ''}."
    match request.response_format:
        case chat.JsonObjectFormat() | None if (schema := _schema_in_words(request)) is not None:
            return dumps(instance_of(schema, persona)).decode()
        case chat.JsonObjectFormat():
            return dumps({"simulated": True, "persona": persona, "message": text}).decode()
        case chat.JsonSchemaFormat(_, schema):
            return dumps(instance_of(schema, persona)).decode()
        case None if _must_answer_json(request):
            return dumps({"simulated": True, "persona": persona, "message": text}).decode()
        case None:
            if request.n is None or request.n == 1:
                return text
            return f"{text}（{index + 1}/{request.n}）" if chinese else f"{text} ({index + 1} of {request.n})"


def _schema_in_words(request: chat.ChatRequest) -> Mapping[str, object] | None:
    """Return the JSON Schema that the instructions contain, or None."""
    for message in request.messages:
        if isinstance(message, chat.SystemMessage):
            _, brace, rest = chat.text_of(message.content).partition("JSON Schema")[2].partition("{")
            try:
                schema, _ = JSONDecoder().raw_decode(brace + rest)
            except ValueError:
                continue
            return schema if isinstance(schema, dict) else None
    return None


def _must_answer_json(request: chat.ChatRequest) -> bool:
    systems = (chat.text_of(message.content) for message in request.messages if isinstance(message, chat.SystemMessage))
    return any(map(_JSON_OBJECT.search, systems))


def _said(results: Sequence[str], persona: str, chinese: bool) -> str:
    if chinese and results:
        return f"{persona}（模拟）得到的结果：{'；'.join(results)}。"
    if chinese:
        return f"你好！我是{persona}（模拟），没有调用任何真实的模型。"
    told = f"{persona} (simulated) was told: {'; '.join(results)}."
    return told if results else f"Hello! I am {persona}, simulated: no real model was asked."


def _trailing_results(messages: Sequence[chat.Message]) -> list[str]:
    """Return the tool results in the last messages, in order."""
    results: list[str] = []
    for message in reversed(messages):
        if is_attachment(message):
            continue
        if not isinstance(message, chat.ToolMessage):
            break
        results.insert(0, chat.text_of(message.content)[:_MOST_OF_A_RESULT])
    return results


def _image_count(messages: Sequence[chat.Message]) -> int:
    contents = [message.content for message in messages if isinstance(message, chat.UserMessage | chat.ToolMessage)]
    return sum(
        isinstance(part, chat.ImagePart) for content in contents if not isinstance(content, str) for part in content
    )


def _calls(request: chat.ChatRequest, seed: str) -> tuple[chat.ToolCall, ...]:
    """Return one call, two if the question names two things, or none."""
    asked = _last_user_text(request)
    tools = _tools_to_call(request, asked)
    last = request.messages[-1]
    if (
        not tools
        or is_attachment(last)
        or not isinstance(last, chat.UserMessage | chat.SystemMessage)
        or _has_called(request)
    ):
        return ()
    things = [thing for thing in _AND.split(asked) if thing.strip()][:2]
    if len(things) < 2 or request.parallel_tool_calls is False:
        things = [asked]
    return tuple(_call(tools, thing, f"call_{seed}{position}") for position, thing in enumerate(things))


def _has_called(request: chat.ChatRequest) -> bool:
    """Return whether a tool was called since the last answer in words."""
    for message in reversed(request.messages):
        if isinstance(message, chat.ToolMessage):
            return True
        if isinstance(message, chat.AssistantMessage):
            return bool(message.tool_calls)
    return False


def _tools_to_call(request: chat.ChatRequest, asked: str) -> list[chat.Tool]:
    """Return the tools that the request asks for, or that the question names, and that can be called without harm."""
    match request.tool_choice:
        case "none":
            return []
        case chat.NamedTool(name):
            tools = [tool for tool in request.tools if tool.name == name]
        case chat.AllowedTools(mode, names):
            tools = [tool for tool in request.tools if tool.name in names]
            tools = tools if mode == "required" else _named(tools, asked)
        case "required":
            tools = list(request.tools)
        case _:
            tools = _named(request.tools, asked)
    return [tool for tool in tools if _is_harmless(_arguments(tool, ""))]


def _named(tools: Sequence[chat.Tool], asked: str) -> list[chat.Tool]:
    if len(asked) > _LONGEST_QUESTION:  # instructions, such as those of an agent that compacts, which forbid tools
        return []
    words = _words(asked) - _SMALL_WORDS
    return [tool for tool in tools if not words.isdisjoint(_words(tool.name))]


def _words(text: str) -> set[str]:
    """Return the words of a text or of a name such as `get_weather`, `WebFetch`."""
    return {word.lower() for word in _WORD.findall(_CAPITAL.sub(" ", text))}


def _is_harmless(arguments: object) -> bool:
    """Return whether arguments have nothing that an agent would execute, or write into a file."""
    if isinstance(arguments, Mapping):
        names = {name.lower() for name in arguments}
        writes = bool(names & _WRITTEN) and any(name.endswith("path") for name in names)
        return not writes and names.isdisjoint(_EXECUTED) and all(map(_is_harmless, arguments.values()))
    return not isinstance(arguments, list) or all(map(_is_harmless, arguments))


def _call(tools: Sequence[chat.Tool], thing: str, call_id: str) -> chat.ToolCall:
    """Return a call of the tool whose name has most words in common with the question, or of the first such tool."""
    words = _words(thing)
    tool = max(tools, key=lambda tool: len(words & _words(tool.name)))
    return chat.ToolCall(call_id, tool.name, dumps(_arguments(tool, thing)).decode())


def _arguments(tool: chat.Tool, thing: str) -> Mapping[str, object]:
    """Return arguments that match the schema of a tool, with the last word of a question in free texts."""
    subject = re.findall(r"[\w-]+", thing)
    word = subject[-1] if subject else "example"
    arguments = instance_of(tool.parameters, word, _EXECUTED) if tool.parameters else {}
    return arguments if isinstance(arguments, Mapping) else {}


def _prompt_tokens(request: chat.ChatRequest) -> int:
    texts = sum(len(cut(chat.text_of(message.content))) + _TOKENS_PER_MESSAGE for message in request.messages)
    images = _image_count(request.messages)
    return texts + images * _TOKENS_PER_IMAGE + len(request.tools) * _TOKENS_PER_TOOL
