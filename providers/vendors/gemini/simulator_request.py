"""Read a request as Gemini does, and refuse what Gemini answers with 400.

Source: google-genai 3.3.0 (Content, Part) and public captures of 400 bodies about turns, calls, results and thought
signatures; read 2026-11-20.
Source: google-genai 3.3.0 (every field that its converter for the Developer API writes) and public captures of 400
bodies; read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from providers.catalogue.models import ModelFacts
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
    ResponseFormat,
    SystemMessage,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from providers.failures import InvalidRequest
from providers.json_values import dumps_text
from providers.openai_json.fields import boolean, choice, integer, items, mapping, number, present, text

_PART_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")


_BESIDE = ("thought", "thoughtSignature", "mediaResolution", "videoMetadata", "partMetadata")


_BYPASS = "skip_thought_signature_validator"


_OURS = "simulated thought of "


@dataclass(frozen=True, slots=True)
class ContentRules:
    """In what the models differ.

    ids: whether calls carry ids and signatures (3 and later), or must not.
    prefill: whether the model's turn may be the last one. links: whether it fetches files from the web.
    """

    model: str
    ids: bool
    prefill: bool
    links: bool


def signature_of(model: str) -> str:
    """A thought signature that this model will know again."""
    return base64.b64encode(f"{_OURS}{model}".encode()).decode()


def known(source: object, place: str, names: Sequence[str], *, snake: bool = False) -> Mapping[str, object]:
    """The value as an object that has no other members than these.

    snake: whether `mime_type` is taken for `mimeType`: where the vendor's own client (google-genai 3.3.0) writes it so.
    """
    found = mapping(source, place)
    if snake:
        found = {_camel(name): value for name, value in found.items()}
    for name in found:
        if name not in names:
            message = f"Invalid JSON payload received. Unknown name \"{name[:60]}\" at '{place}': Cannot find field."
            raise InvalidRequest(message, place)
    return found


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)


def text_parts(source: Mapping[str, object], place: str) -> tuple[str, ...]:
    """The texts of a content that may hold nothing else: the system instruction."""
    parts = [_part(entry, f"{place}.parts[{i}]") for i, entry in enumerate(_parts(source, place))]
    if any("text" not in part for part in parts):
        raise InvalidRequest(f"{place}: only text is supported", place)
    return tuple(str(part["text"]) for part in parts)


def read_turns(entries: Sequence[object], rules: ContentRules) -> tuple[Message, ...]:
    """The messages; raises InvalidRequest."""
    messages: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    role = ""
    for position, entry in enumerate(entries):
        place = f"contents[{position}]"
        content = known(entry, place, ("role", "parts"))
        role = choice(content.get("role"), f"{place}.role", ("user", "model"))
        parts = [_part(one, f"{place}.parts[{i}]") for i, one in enumerate(_parts(content, place))]
        if calls or any("functionResponse" in part for part in parts):
            messages += _results(parts, calls if role == "user" else (), rules, place)
            calls = ()
        elif role == "user":
            messages.append(_user(parts, rules, place))
        else:
            message = _model(parts, rules, place)
            if message.tool_calls and not messages:
                raise InvalidRequest(
                    "Please ensure that function call turn comes immediately after a user turn or after a function "
                    "response turn.",
                    place,
                )
            calls = message.tool_calls
            messages.append(message)
    if role == "model" and (calls or not rules.prefill):
        raise InvalidRequest("Requests ending with a model turn are not supported for this model.", "contents")
    return tuple(messages)


def _parts(content: Mapping[str, object], place: str) -> list[object]:
    parts = items(content.get("parts") or [], f"{place}.parts")
    if not parts:
        raise InvalidRequest(f"{place}.parts: contents.parts must not be empty.", place)
    return parts


def _part(value: object, place: str) -> Mapping[str, object]:
    members = known(value, place, (*_PART_KINDS, *_BESIDE))
    part = {name: member for name, member in members.items() if member is not None}
    kinds = [kind for kind in _PART_KINDS if kind in part]
    if len(kinds) != 1:
        raise InvalidRequest(f"{place}: required oneof field 'data' must have one initialized field", place)
    boolean(part, "thought", f"{place}.thought")
    signature = text(part, "thoughtSignature", f"{place}.thoughtSignature")
    if signature is not None:
        _bytes(signature, f"{place}.thoughtSignature")
    if kinds == ["text"] and not text(part, "text", f"{place}.text"):
        raise InvalidRequest(f"{place}: Unable to submit request because it has an empty text parameter.", place)
    return part


def _bytes(value: str, place: str) -> bytes:
    """A field of bytes in JSON: base64 in either alphabet."""
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"Invalid value at '{place}' (TYPE_BYTES), Base64 decoding failed.", place) from None


def _user(parts: Sequence[Mapping[str, object]], rules: ContentRules, place: str) -> UserMessage:
    content = tuple(_user_part(part, rules, place) for part in parts)
    if len(content) == 1 and isinstance(content[0], TextPart):
        return UserMessage(content[0].text)
    return UserMessage(content)


def _user_part(part: Mapping[str, object], rules: ContentRules, place: str) -> Part:
    if "inlineData" in part:
        return _inline(part["inlineData"], f"{place}.inlineData")
    if "fileData" in part:
        file = known(part["fileData"], f"{place}.fileData", ("mimeType", "fileUri", "displayName"))
        uri = text(file, "fileUri", f"{place}.fileData.fileUri")
        if not uri or not (rules.links and uri.startswith(("https://", "http://"))):
            raise InvalidRequest(f"{place}: Invalid or unsupported file uri.", place)
        return ImagePart(uri)
    if "text" not in part:
        raise InvalidRequest(f"{place}: function calls are the model's", place)
    return TextPart(str(part["text"]))


def _inline(value: object, place: str) -> Part:
    blob = known(value, place, ("mimeType", "data", "displayName"), snake=True)
    mime, data = text(blob, "mimeType", f"{place}.mimeType"), text(blob, "data", f"{place}.data")
    if not mime or not data:
        raise InvalidRequest(f"{place}: mimeType and data must not be empty", place)
    _bytes(data, f"{place}.data")
    if mime.startswith("audio/"):
        return AudioPart(data, mime.removeprefix("audio/"))
    uri = f"data:{mime};base64,{data}"
    return ImagePart(uri) if mime.startswith("image/") else FilePart(uri)


def _model(parts: Sequence[Mapping[str, object]], rules: ContentRules, place: str) -> AssistantMessage:
    texts = [str(part["text"]) for part in parts if "text" in part and part.get("thought") is not True]
    thoughts = [str(part["text"]) for part in parts if "text" in part and part.get("thought") is True]
    calls: list[ToolCall] = []
    for part in parts:
        if "functionCall" in part:
            calls.append(_call(part, rules, f"{place}.functionCall", len(calls)))
        elif "text" not in part:
            raise InvalidRequest(f"{place}: a model turn of text and function calls only is supported", place)
    return AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, tuple(calls))


def _call(part: Mapping[str, object], rules: ContentRules, place: str, number: int) -> ToolCall:
    fields = ("id", "name", "args") if rules.ids else ("name", "args")
    call = known(part["functionCall"], place, fields)
    name, call_id = text(call, "name", f"{place}.name"), text(call, "id", f"{place}.id")
    args = mapping(call.get("args") or {}, f"{place}.args")
    signature = text(part, "thoughtSignature", f"{place}.thoughtSignature")
    if not name:
        raise InvalidRequest(f"{place}.name: Name cannot be empty.", place)
    if rules.ids:
        if not call_id:
            raise InvalidRequest(f"{place}: function call {name!r} is missing an id", place)
        if number == 0 and not signature:
            raise InvalidRequest(f"Function call {name!r} is missing a thought_signature in functionCall parts.", place)
        _check_signature(signature, rules.model, place)
    return ToolCall(call_id or f"{place}#{number}", name, dumps_text(args), signature)


def _check_signature(signature: str | None, model: str, place: str) -> None:
    """Another model's signature is refused; the words that stand for none are taken in both of their spellings."""
    if signature is None or signature == _BYPASS:
        return
    said = _bytes(signature, place).decode("utf-8", "replace")
    if said.startswith(_OURS) and said != f"{_OURS}{model}":
        raise InvalidRequest("Thought signature is not valid.", place)


def _results(
    parts: Sequence[Mapping[str, object]], calls: Sequence[ToolCall], rules: ContentRules, place: str
) -> list[Message]:
    """The results of the calls before them, matched by id, or where there are none by name and order."""
    found = [part["functionResponse"] for part in parts if "functionResponse" in part]
    if len(found) != len(calls):
        message = "the number of function response parts must equal that of the function call parts before them"
        raise InvalidRequest(f"{place}: {message}.", place)
    if len(found) != len(parts):
        raise InvalidRequest(f"{place}: function responses must not be mixed with other parts.", place)
    waiting = list(calls)
    messages: list[Message] = []
    for entry in found:
        result = known(entry, place, ("id", "name", "response") if rules.ids else ("name", "response"))
        name, result_id = text(result, "name", f"{place}.name"), text(result, "id", f"{place}.id")
        call = next((one for one in waiting if one.name == name and (not rules.ids or one.id == result_id)), None)
        if call is None:
            raise InvalidRequest(f"{place}: functionResponse.id does not match functionCall.id", place)
        waiting.remove(call)
        response = mapping(present(result, "response", f"{place}.response"), f"{place}.response")
        output = response.get("output")
        messages.append(ToolMessage(call.id, output if isinstance(output, str) else dumps_text(response)))
    return messages


_FIELDS = (
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "safetySettings",
    "generationConfig",
    "cachedContent",
    "labels",
    "serviceTier",
    "store",
    "continuationToken",
)


_READ_FIELDS = frozenset({"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"})


_SAMPLING = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}


_CONFIG_FIELDS = (
    *_SAMPLING.values(),
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "responseLogprobs",
    "logprobs",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseFormat",
    "responseModalities",
    "mediaResolution",
    "speechConfig",
    "imageConfig",
    "thinkingConfig",
    "enableEnhancedCivicAnswers",
    "audioTranscriptionConfig",
)


_DECLARATION_FIELDS = (
    "name",
    "description",
    "parameters",
    "parametersJsonSchema",
    "response",
    "responseJsonSchema",
    "behavior",
)


_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")


_MIME_TYPES = ("text/plain", "application/json", "text/x.enum")


_MAX_STOPS = 5


_MAX_CANDIDATES = 8


_INT32 = 2**31 - 1


_INT64 = 2**63 - 1


# A budget of thinking tokens up to which an effort is meant.
_BUDGETS = ((0, "none"), (1024, "low"), (8192, "medium"))


def read_body(value: object, model: str, facts: ModelFacts, *, stream: bool) -> ChatRequest:
    """The request; raises InvalidRequest."""
    body = known(value, "request", _FIELDS)
    contents = items(body.get("contents") or [], "contents")
    if not contents:
        raise InvalidRequest("contents: contents is not specified", "contents")
    system = body.get("systemInstruction")
    rules = ContentRules(model, "call_ids" in facts.flags, "prefill" in facts.features, "image_url" in facts.features)
    instructions = (
        () if system is None else text_parts(known(system, "systemInstruction", ("role", "parts")), "systemInstruction")
    )
    tools = _tools(body)
    config = known(body.get("generationConfig") or {}, "generationConfig", _CONFIG_FIELDS)
    _refuse_what_the_model_lacks(config, facts)
    extra = {name: value for name, value in body.items() if name not in _READ_FIELDS}
    if "topK" in config:
        extra["top_k"] = config["topK"]
    return ChatRequest(
        model=model,
        messages=(*(SystemMessage(one) for one in instructions), *read_turns(contents, rules)),
        stream=stream,
        include_usage=stream,
        max_tokens=integer(config, "maxOutputTokens", "generationConfig.maxOutputTokens", 1, _INT32),
        temperature=number(config, "temperature", "generationConfig.temperature", 0, 2),
        top_p=number(config, "topP", "generationConfig.topP", 0, 1),
        presence_penalty=number(config, "presencePenalty", "generationConfig.presencePenalty", -2, 2),
        frequency_penalty=number(config, "frequencyPenalty", "generationConfig.frequencyPenalty", -2, 2),
        seed=integer(config, "seed", "generationConfig.seed", -_INT64 - 1, _INT64),
        stop=_stops(config),
        n=integer(config, "candidateCount", "generationConfig.candidateCount", 1, _MAX_CANDIDATES),
        logprobs=boolean(config, "responseLogprobs", "generationConfig.responseLogprobs"),
        top_logprobs=integer(config, "logprobs", "generationConfig.logprobs", 0, 20),
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        response_format=_format(config),
        reasoning_effort=_effort(config, facts),
        extra=extra,
    )


def _refuse_what_the_model_lacks(config: Mapping[str, object], facts: ModelFacts) -> None:
    for name, field in _SAMPLING.items():
        if name in facts.without and config.get(field) not in (None, *((0,) if name.endswith("penalty") else ())):
            raise InvalidRequest(f"{field} is not enabled for this model", f"generationConfig.{field}")
    for feature, field in (("n", "candidateCount"), ("logprobs", "responseLogprobs")):
        if feature not in facts.features and config.get(field) is not None:
            raise InvalidRequest(f"{field} is not enabled for this model", f"generationConfig.{field}")
    if config.get("logprobs") is not None and config.get("responseLogprobs") is not True:
        raise InvalidRequest("logprobs needs responseLogprobs", "generationConfig.logprobs")


def _stops(config: Mapping[str, object]) -> tuple[str, ...]:
    place = "generationConfig.stopSequences"
    stops = items(config.get("stopSequences") or [], place, at_most=_MAX_STOPS)
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise InvalidRequest(f"{place} must be texts that are not empty", place)
    return tuple(str(stop) for stop in stops)


def _format(config: Mapping[str, object]) -> ResponseFormat | None:
    place = "generationConfig.responseMimeType"
    mime = config.get("responseMimeType")
    if mime is not None:
        choice(mime, place, _MIME_TYPES)
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if config.get(name) is not None]
    if len(schemas) > 1:
        raise InvalidRequest("responseSchema and responseJsonSchema exclude each other", place)
    if schemas and mime not in ("application/json", "text/x.enum"):
        raise InvalidRequest(f"{schemas[0]} needs the response mime type application/json", place)
    if schemas:
        return JsonSchemaFormat("response", mapping(config[schemas[0]], f"generationConfig.{schemas[0]}"))
    return JsonObjectFormat() if mime == "application/json" else None


def _effort(config: Mapping[str, object], facts: ModelFacts) -> str | None:
    place = "generationConfig.thinkingConfig"
    if config.get("thinkingConfig") is None:
        return None
    names = ("includeThoughts", "thinkingBudget", "thinkingLevel")
    thinking = known(config["thinkingConfig"], place, names, snake=True)
    boolean(thinking, "includeThoughts", f"{place}.includeThoughts")
    level = thinking.get("thinkingLevel")
    budget = integer(thinking, "thinkingBudget", f"{place}.thinkingBudget", -1, 32768)
    if level is not None and budget is not None:
        raise InvalidRequest("You can only set one of thinking budget and thinking level.", place)
    if not facts.efforts:
        raise InvalidRequest("Thinking is not enabled for this model", place)
    by_budget = "thinking_budget" in facts.flags
    if (level is not None and by_budget) or (budget is not None and not by_budget):
        raise InvalidRequest(f"this model thinks by {'budget' if by_budget else 'level'}", place)
    if level is not None:
        return choice(level, f"{place}.thinkingLevel", tuple(effort.upper() for effort in facts.efforts)).lower()
    if budget is None or budget < 0:
        return None
    effort = next((word for limit, word in _BUDGETS if budget <= limit), "high")
    if effort not in facts.efforts:
        raise InvalidRequest(f"Budget {budget} is invalid. This model only works in thinking mode.", place)
    return effort


def _tools(body: Mapping[str, object]) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    for position, entry in enumerate(items(body.get("tools") or [], "tools")):
        group = known(entry, f"tools[{position}]", ("functionDeclarations",))
        place = f"tools[{position}].functionDeclarations"
        declarations = items(group.get("functionDeclarations") or [], place)
        tools += [_tool(one, f"{place}[{i}]") for i, one in enumerate(declarations)]
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("Duplicate function declaration found", "tools")
    return tuple(tools)


def _tool(value: object, place: str) -> Tool:
    declaration = known(value, place, _DECLARATION_FIELDS, snake=True)
    name = text(declaration, "name", f"{place}.name")
    if not name or not _FUNCTION_NAME.fullmatch(name):
        raise InvalidRequest(f"{place}.name: Invalid function name. Must start with a letter or an underscore.", place)
    schemas = [key for key in ("parameters", "parametersJsonSchema") if declaration.get(key) is not None]
    if len(schemas) > 1:
        raise InvalidRequest(f"{place}: parameters and parametersJsonSchema exclude each other", place)
    parameters = mapping(declaration[schemas[0]], f"{place}.{schemas[0]}") if schemas else None
    return Tool(name, text(declaration, "description", f"{place}.description"), parameters)


def _tool_choice(body: Mapping[str, object], tools: tuple[Tool, ...]) -> ToolChoice | None:
    if body.get("toolConfig") is None:
        return None
    place = "toolConfig.functionCallingConfig"
    outer = known(body["toolConfig"], "toolConfig", ("functionCallingConfig", "retrievalConfig"))
    config = known(present(outer, "functionCallingConfig", place), place, ("mode", "allowedFunctionNames"))
    mode = choice(config.get("mode"), f"{place}.mode", ("AUTO", "ANY", "NONE", "VALIDATED"))
    names = tuple(str(name) for name in items(config.get("allowedFunctionNames") or [], place))
    if not tools:
        raise InvalidRequest("Function calling config is set without function_declarations.", place)
    if names and mode in ("AUTO", "NONE"):
        raise InvalidRequest("Allowed function names are only taken with the modes ANY and VALIDATED.", place)
    if missing := sorted(set(names) - {tool.name for tool in tools}):
        raise InvalidRequest(f"allowedFunctionNames: {missing[0][:60]!r} is not declared", place)
    if mode == "ANY":
        if len(names) == 1:
            return NamedTool(names[0])
        return AllowedTools("required", names) if names else "required"
    if mode == "NONE":
        return "none"
    return AllowedTools("auto", names) if names else "auto"
