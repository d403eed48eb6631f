"""Write the body of `generateContent`: generation config, tools and contents.

Source: google-genai 3.3.0 (Content, Part), ai.google.dev on function calling and thought signatures; read 2026-11-20.
Source: google-genai 3.3.0 (GenerateContentConfig and its converter for the Developer API), ai.google.dev on thinking
and structured output; read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never
from urllib.parse import urlsplit

from providers.adapter import Target
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedTool,
    Part,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    UserMessage,
    text_of,
)
from providers.chat.messages import is_data_uri, split_data_uri
from providers.failures import UnsupportedFeature
from providers.formats.reasoning_state import own_signature
from providers.formats.request_options import nearest_effort
from providers.formats.tool_calls import arguments_of, turns_with_results
from providers.json_values import as_map

_MIME_BY_ENDING = {
    "avif": "image/avif",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
}


@dataclass(frozen=True, slots=True)
class Replay:
    """How a model wants its earlier calls back.

    ids: whether with ids and signatures (3 and later) or without (an id is an unknown field to 2.x).
    bypass: what stands for the signature of a call that another model made.
    """

    model: str
    ids: bool
    bypass: str


@dataclass(slots=True)
class _Turn:
    role: str
    parts: list[dict[str, object]] = field(default_factory=list)
    is_results: bool = False


def system_parts(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The parts of `systemInstruction`, one a message, in order: Gemini has no other place for them."""
    texts = [text_of(message.content) for message in messages if isinstance(message, SystemMessage)]
    return [{"text": text} for text in texts if text]


def contents_of(messages: Sequence[Message], replay: Replay) -> list[dict[str, object]]:
    """The turns of user and model; raises UnsupportedFeature where calls and their results don't fit together.

    Neighbours of one role become one turn, and what is empty is left out: Gemini refuses empty parts and texts.
    """
    turns: list[_Turn] = []
    for message, results in turns_with_results(messages):
        match message:
            case SystemMessage():
                pass
            case UserMessage(content):
                _say(turns, "user", _parts(content))
            case AssistantMessage():
                _say(turns, "model", _model_parts(message, replay))
                if results:
                    turns.append(_Turn("user", [_result(*one, replay) for one in results], is_results=True))
            case _:
                assert_never(message)
    _add_silent_users(turns, messages)
    return [{"role": turn.role, "parts": turn.parts} for turn in turns]


def _say(turns: list[_Turn], role: str, parts: list[dict[str, object]]) -> None:
    if not parts:
        return
    if not turns or turns[-1].role != role or turns[-1].is_results:
        turns.append(_Turn(role))
    turns[-1].parts += parts


def _add_silent_users(turns: list[_Turn], messages: Sequence[Message]) -> None:
    """Let a blank turn of the user's stand where Gemini wants one, and all that was said went elsewhere or was empty.

    A request of system messages alone, one that ends with a system message after the model's turn, and one that begins
    with calls are valid chats; Gemini takes neither no contents nor, in most models, the model's turn as the last one,
    and calls only behind a turn of the user's.
    """
    if turns and any("functionCall" in part for part in turns[0].parts):
        turns.insert(0, _Turn("user", [{"text": " "}]))
    if not turns or (turns[-1].role == "model" and not isinstance(messages[-1], AssistantMessage)):
        turns.append(_Turn("user", [{"text": " "}]))


def _parts(content: str | tuple[Part, ...]) -> list[dict[str, object]]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_part(part) for part in content if not isinstance(part, TextPart) or part.text]


def _part(part: Part) -> dict[str, object]:
    match part:
        case TextPart(text):
            return {"text": text}
        case ImagePart(url):
            return _inline(url) if is_data_uri(url) else _linked_image(url)
        case AudioPart(data, sound):
            return {"inlineData": {"mimeType": f"audio/{sound}", "data": data}}
        case FilePart(data):
            return _inline(data)
        case _:
            assert_never(part)


def _inline(data_uri: str) -> dict[str, object]:
    mime, data = split_data_uri(data_uri)
    return {"inlineData": {"mimeType": mime, "data": data}}


def _linked_image(url: str) -> dict[str, object]:
    """An image that Google fetches; its type only where the URL shows it, since a wrong one is worse than none."""
    ending = urlsplit(url).path.rpartition(".")[2].lower()
    mime = {"mimeType": _MIME_BY_ENDING[ending]} if ending in _MIME_BY_ENDING else {}
    return {"fileData": {**mime, "fileUri": url}}


def _model_parts(message: AssistantMessage, replay: Replay) -> list[dict[str, object]]:
    texts = (text_of(message.content), message.refusal)
    parts: list[dict[str, object]] = [{"text": text} for text in texts if text]
    for position, call in enumerate(message.tool_calls):
        part: dict[str, object] = {"functionCall": _function_call(call, replay)}
        signature = own_signature(call.signature, replay.model)
        if signature is None and replay.ids and position == 0:
            signature = replay.bypass
        if signature is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _function_call(call: ToolCall, replay: Replay) -> dict[str, object]:
    return {**({"id": call.id} if replay.ids else {}), "name": call.name, "args": arguments_of(call)}


def _result(call: ToolCall, text: str, replay: Replay) -> dict[str, object]:
    """One result; without ids the order of the calls is all that tells two of one name apart."""
    identity = {"id": call.id} if replay.ids else {}
    return {"functionResponse": {**identity, "name": call.name, "response": {"output": text}}}


_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


_OURS = frozenset({"contents", "systemInstruction", "toolConfig"})


_MAX_SEED = 2**31 - 1


# Above 0, as google-genai's types have it.
_LEAST_TEMPERATURE = 0.01


_LEVELS = ("minimal", "low", "medium", "high", "xhigh")


# Tokens, as Google's own OpenAI-compatible layer sets them for 2.5; 0 switches thinking off.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}


def encode_body(request: ChatRequest, target: Target, bypass: str) -> dict[str, object]:
    """The body, with what the site pins written last; raises UnsupportedFeature."""
    if clash := sorted(_OURS & request.extra.keys()):
        raise UnsupportedFeature(clash[0], f"{clash[0]!r} is made of the messages and tools; it can't be sent besides")
    body: dict[str, object] = {
        name: value for name, value in request.extra.items() if name not in ("top_k", "generationConfig")
    }
    replay = Replay(target.model, "call_ids" in target.facts.flags, bypass)
    if system := system_parts(request.messages):
        body["systemInstruction"] = {"parts": system}
    body["contents"] = contents_of(request.messages, replay)
    if request.tools:
        body["tools"] = [{"functionDeclarations": _declarations(request.tools)}]
        if request.tool_choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _calling(request.tool_choice)}
    if config := _generation_config(request, target):
        body["generationConfig"] = config
    body.update(target.pins)
    return body


def _declarations(tools: Sequence[Tool]) -> list[dict[str, object]]:
    declarations: list[dict[str, object]] = []
    for position, tool in enumerate(tools):
        if not _FUNCTION_NAME.fullmatch(tool.name):
            message = f"tools[{position}]: Gemini takes function names that begin with a letter or '_' only"
            raise UnsupportedFeature("tools", message)
        declaration: dict[str, object] = {"name": tool.name}
        if tool.description:
            declaration["description"] = tool.description
        if tool.parameters is not None:
            declaration["parametersJsonSchema"] = tool.parameters
        declarations.append(declaration)
    return declarations


def _calling(choice: ToolChoice) -> dict[str, object]:
    match choice:
        case NamedTool(name):
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        case AllowedTools(mode, names):
            # AUTO takes no names; VALIDATED is AUTO with names, and holds the calls to their schemas.
            return {"mode": "ANY" if mode == "required" else "VALIDATED", "allowedFunctionNames": list(names)}
        case "auto":
            return {"mode": "AUTO"}
        case "none":
            return {"mode": "NONE"}
        case "required":
            return {"mode": "ANY"}
        case _:
            assert_never(choice)


def _generation_config(request: ChatRequest, target: Target) -> dict[str, object]:
    """What an operator lets through (`passthrough: [generationConfig]`), and over it what the request says."""
    said: dict[str, object] = {
        "temperature": None if request.temperature is None else max(request.temperature, _LEAST_TEMPERATURE),
        "topP": request.top_p,
        "topK": request.extra.get("top_k"),
        # One choice is the default, and newer models refuse the field.
        "candidateCount": request.n if request.n is not None and request.n > 1 else None,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        # 32 bits with a sign; any number is as good as another.
        "seed": None if request.seed is None else request.seed & _MAX_SEED,
        "responseLogprobs": request.logprobs or None,
        "logprobs": (request.top_logprobs or None) if request.logprobs else None,
    }
    match request.response_format:
        case None:
            pass
        case JsonObjectFormat():
            said["responseMimeType"] = "application/json"
        case JsonSchemaFormat(_, schema):
            said["responseMimeType"] = "application/json"
            said["responseJsonSchema"] = schema
        case _:
            assert_never(request.response_format)
    if request.reasoning_effort is not None:
        said["thinkingConfig"] = _thinking(request.reasoning_effort, target)
    config = dict(as_map(request.extra.get("generationConfig")))
    config.update({name: value for name, value in said.items() if value is not None})
    return config


def _thinking(wanted: str, target: Target) -> dict[str, object]:
    """The effort as a level, or for 2.5 as a budget of tokens; thoughts are shown unless none were wanted."""
    effort = nearest_effort(wanted, target.facts.efforts or _LEVELS)
    config: dict[str, object] = (
        {"thinkingBudget": _BUDGETS[effort]}
        if "thinking_budget" in target.facts.flags
        else {"thinkingLevel": effort.upper()}
    )
    if wanted != "none" and "reasoning" in target.facts.features:
        config["includeThoughts"] = True
    return config
