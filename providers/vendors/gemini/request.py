"""Write the body of `generateContent`: generation config, tools and contents.

Source: google-genai 3.3.0 (Content, Part, GenerateContentConfig and its converter for the Developer API), ai.google.dev
on function calling, thought signatures, thinking and structured output; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never
from urllib.parse import urlsplit

from providers import chat
from providers.adapter import Target
from providers.chat.messages import is_data_uri, split_data_uri
from providers.failures import UnsupportedFeature
from providers.formats.reasoning_state import own_signature
from providers.formats.request_options import nearest_effort
from providers.formats.tool_calls import arguments_of, turns_with_whole_results
from providers.formats.tool_results import has_attachments, results_as_text
from providers.json_values import as_map
from providers.value import Value

_MIME_BY_ENDING = {"jpg": "image/jpeg", **{it: f"image/{it}" for it in "avif gif heic heif jpeg png webp".split()}}
_DERIVED = frozenset({"contents", "systemInstruction", "toolConfig"})
_MAX_SEED = 2**31 - 1
# The value must be above 0, according to google-genai's types.
_MIN_TEMPERATURE = 0.01
_LEVELS = ("minimal", "low", "medium", "high", "xhigh")
# Thinking tokens for Gemini 2.5, as in Google's own OpenAI-compatible API; 0 switches thinking off.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}


class Replay(Value, frozen=True):
    """How earlier tool calls are sent back to a model: with ids and signatures (Gemini 3 and later) or without.

    To 2.x, an id is an unknown field. `bypass` is the signature for a call that another model made.
    """

    model: str
    ids: bool
    bypass: str


@dataclass(slots=True)
class _Turn:
    role: str
    parts: list[dict[str, object]] = field(default_factory=list)
    is_results: bool = False


def system_parts(messages: Sequence[chat.Message]) -> list[dict[str, object]]:
    """Return the parts of `systemInstruction`, which are the parts of all system messages, in order."""
    contents = [message.content for message in messages if isinstance(message, chat.SystemMessage)]
    return [part for content in contents for part in _parts(content)]


def contents_of(messages: Sequence[chat.Message], replay: Replay) -> list[dict[str, object]]:
    """Return the turns of user and model.

    Consecutive messages of one role become one turn. Empty texts are left out, because Gemini refuses empty parts.
    Raises UnsupportedFeature for a call without its result, and for a result without its call.
    """
    turns: list[_Turn] = []
    takes_media = replay.ids and not any(map(_has_linked_media, messages))
    for message, results in turns_with_whole_results(messages if takes_media else results_as_text(messages)):
        match message:
            case chat.SystemMessage():
                pass
            case chat.UserMessage(content):
                _append(turns, "user", _parts(content))
            case chat.AssistantMessage():
                _append(turns, "model", _model_parts(message, replay))
                if results:
                    turns.append(_Turn("user", [_result(*one, replay) for one in results], is_results=True))
            case _:
                assert_never(message)
    # Gemini refuses empty contents, and calls without a user turn before them. A chat may contain only system messages,
    # begin with calls, or end with a system message after the model's turn, which most models refuse as the last one.
    if turns and any("functionCall" in part for part in turns[0].parts):
        turns.insert(0, _Turn("user", [{"text": " "}]))
    if not turns or (turns[-1].role == "model" and not isinstance(messages[-1], chat.AssistantMessage)):
        turns.append(_Turn("user", [{"text": " "}]))
    return [{"role": turn.role, "parts": turn.parts} for turn in turns]


def _has_linked_media(message: chat.Message) -> bool:
    """Return whether a tool result has an image that Google would fetch, for which its `parts` have no field."""
    if not isinstance(message, chat.ToolMessage) or isinstance(message.content, str):
        return False
    return any(isinstance(part, chat.ImagePart) and not is_data_uri(part.url) for part in message.content)


def _append(turns: list[_Turn], role: str, parts: list[dict[str, object]]) -> None:
    if not parts:
        return
    if not turns or turns[-1].role != role or turns[-1].is_results:
        turns.append(_Turn(role))
    turns[-1].parts += parts


def _parts(content: str | tuple[chat.Part, ...]) -> list[dict[str, object]]:
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_part(part) for part in content if not isinstance(part, chat.TextPart) or part.text]


def _part(part: chat.Part) -> dict[str, object]:
    match part:
        case chat.TextPart(text):
            return {"text": text}
        case chat.ImagePart(url):
            if is_data_uri(url):
                return _inline(url)
            # Google fetches it. Its type is sent only if the URL shows it.
            ending = urlsplit(url).path.rpartition(".")[2].lower()
            mime = {"mimeType": _MIME_BY_ENDING[ending]} if ending in _MIME_BY_ENDING else {}
            return {"fileData": {**mime, "fileUri": url}}
        case chat.AudioPart(data, sound):
            return {"inlineData": {"mimeType": f"audio/{sound}", "data": data}}
        case chat.FilePart(data):
            return _inline(data)
        case _:
            assert_never(part)


def _inline(data_uri: str) -> dict[str, object]:
    mime, data = split_data_uri(data_uri)
    return {"inlineData": {"mimeType": mime, "data": data}}


def _model_parts(message: chat.AssistantMessage, replay: Replay) -> list[dict[str, object]]:
    texts = (chat.text_of(message.content), message.refusal)
    parts: list[dict[str, object]] = [{"text": text} for text in texts if text]
    for position, call in enumerate(message.tool_calls):
        part: dict[str, object] = {
            "functionCall": {**({"id": call.id} if replay.ids else {}), "name": call.name, "args": arguments_of(call)}
        }
        signature = own_signature(call.signature, replay.model)
        if signature is None and replay.ids and position == 0:
            signature = replay.bypass
        if signature is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _result(call: chat.ToolCall, result: chat.ToolMessage, replay: Replay) -> dict[str, object]:
    """Return one result. Without ids, only their order distinguishes the results of two calls of one function.

    Models since Gemini 3 accept images and files in a result, inline only (google-genai, FunctionResponsePart, read
    2026-11-23).
    """
    response: dict[str, object] = {"id": call.id} if replay.ids else {}
    response["name"] = call.name
    response["response"] = {"error" if result.is_error else "output": chat.prompt_text(result.content)}
    if has_attachments(result) and not isinstance(result.content, str):
        response["parts"] = [_part(part) for part in result.content if not isinstance(part, chat.TextPart)]
    return {"functionResponse": response}


def encode_body(request: chat.ChatRequest, target: Target, bypass: str) -> dict[str, object]:
    """Return the body. Values that the site pins are written last. Raises UnsupportedFeature."""
    if clash := sorted(_DERIVED & request.extra.keys()):
        message = f"{clash[0]!r} cannot be sent directly: the gateway builds it from `messages` and `tools`"
        raise UnsupportedFeature(clash[0], message)
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


def _declarations(tools: Sequence[chat.Tool]) -> list[dict[str, object]]:
    declarations: list[dict[str, object]] = []
    for tool in tools:
        declaration: dict[str, object] = {"name": tool.name}
        if tool.description:
            declaration["description"] = tool.description
        if tool.parameters is not None:
            declaration["parametersJsonSchema"] = tool.parameters
        declarations.append(declaration)
    return declarations


def _calling(choice: chat.ToolChoice) -> dict[str, object]:
    match choice:
        case chat.NamedTool(name):
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        case chat.AllowedTools(mode, names):
            # AUTO accepts no names. VALIDATED is AUTO with names, and its calls follow their schemas.
            return {"mode": "ANY" if mode == "required" else "VALIDATED", "allowedFunctionNames": list(names)}
        case "auto":
            return {"mode": "AUTO"}
        case "none":
            return {"mode": "NONE"}
        case "required":
            return {"mode": "ANY"}
        case _:
            assert_never(choice)


def _generation_config(request: chat.ChatRequest, target: Target) -> dict[str, object]:
    """Return the fields of the request, merged over the client's `generationConfig` if that is in `passthrough`."""
    fields: dict[str, object] = {
        "temperature": None if request.temperature is None else max(request.temperature, _MIN_TEMPERATURE),
        "topP": request.top_p,
        "topK": request.extra.get("top_k"),
        # One choice is the default, and newer models refuse the field.
        "candidateCount": request.n if request.n is not None and request.n > 1 else None,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        # The field has 32 bits with a sign. Any mapping will do if the same seed gives the same number.
        "seed": None if request.seed is None else request.seed & _MAX_SEED,
        "responseLogprobs": request.logprobs or None,
        "logprobs": (request.top_logprobs or None) if request.logprobs else None,
    }
    match request.response_format:
        case None:
            pass
        case chat.JsonObjectFormat():
            fields["responseMimeType"] = "application/json"
        case chat.JsonSchemaFormat(_, schema):
            fields["responseMimeType"] = "application/json"
            fields["responseJsonSchema"] = schema
        case _:
            assert_never(request.response_format)
    if request.reasoning_effort is not None:
        fields["thinkingConfig"] = _thinking(request.reasoning_effort, request.reasoning_budget, target)
    config = dict(as_map(request.extra.get("generationConfig")))
    config.update({name: value for name, value in fields.items() if value is not None})
    return config


def _thinking(wanted: str, budget: int | None, target: Target) -> dict[str, object]:
    """Return the effort as a level, or for Gemini 2.5 as a token budget. Thoughts are shown unless thinking is off."""
    effort = nearest_effort(wanted, target.facts.efforts or _LEVELS, budget)
    config: dict[str, object] = (
        {"thinkingBudget": _BUDGETS[effort]}
        if "thinking_budget" in target.facts.flags
        else {"thinkingLevel": effort.upper()}
    )
    if wanted != "none" and "reasoning" in target.facts.features:
        config["includeThoughts"] = True
    return config
