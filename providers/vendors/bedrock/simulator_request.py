"""Read a request as Converse does, and refuse what Bedrock answers with 400.

Source: botocore 1.44.5 (Message and ContentBlock), docs.aws.amazon.com on Converse and public captures of 400 bodies;
read 2026-11-20.
Source: botocore 1.44.5 (every member of ConverseRequest, and what is required of it), docs.aws.amazon.com on Converse
and public captures of 400 bodies; read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from providers.catalogue.models import ModelFacts
from providers.chat import (
    AssistantMessage,
    ChatRequest,
    FilePart,
    ImagePart,
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
from providers.json_values import JsonError, as_map, dumps_text, loads_text
from providers.openai_json.fields import boolean, choice, integer, items, mapping, number, present, text
from providers.testkit.request_checks import known

_BLOCKS = ("text", "image", "document", "toolUse", "toolResult", "reasoningContent", "cachePoint")


_CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")


_DOCUMENT_NAME = re.compile(r"[A-Za-z0-9()\[\]-]+( [A-Za-z0-9()\[\]-]+)*")


_IMAGES = {"png": "image/png", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}


_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


_DOCUMENTS = {
    "pdf": "application/pdf",
    "csv": "text/csv",
    "html": "text/html",
    "txt": "text/plain",
    "md": "text/markdown",
}


def read_messages(entries: Sequence[object], facts: ModelFacts) -> list[Message]:
    """The messages; raises InvalidRequest."""
    messages: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    role = ""
    for position, entry in enumerate(entries):
        place = f"messages.{position}"
        message = known(entry, place, ("role", "content"))
        before, role = role, choice(message.get("role"), f"{place}.role", ("user", "assistant"))
        if role == before:
            raise InvalidRequest("A conversation must alternate between user and assistant roles.", place)
        blocks = [_block(one, place) for one in items(message.get("content"), f"{place}.content")]
        if not blocks:
            raise InvalidRequest(f"The content field in the Message object at {place} is empty.", place)
        if role == "assistant":
            said = _assistant(blocks, place)
            calls = said.tool_calls
            messages.append(said)
        else:
            messages += _user(blocks, calls, place)
            calls = ()
    if not messages or (entries and as_map(entries[0]).get("role") != "user"):
        raise InvalidRequest("A conversation must start with a user message.", "messages")
    if calls or (role == "assistant" and "prefill" not in facts.features):
        raise InvalidRequest("This model does not support assistant message prefill.", "messages")
    return messages


def _block(value: object, place: str) -> Mapping[str, object]:
    block = known(value, place, _BLOCKS)
    if len(block) != 1:
        raise InvalidRequest(f"{place}: exactly one member of the union must be set", place)
    return block


def _assistant(blocks: Sequence[Mapping[str, object]], place: str) -> AssistantMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in blocks:
        if "text" in block:
            texts.append(spoken(block, place))
        elif "reasoningContent" in block:
            thought = known(block["reasoningContent"], place, ("reasoningText", "redactedContent"))
            if "reasoningText" in thought:
                said = known(thought["reasoningText"], place, ("text", "signature"))
                if not text(said, "signature", place):
                    raise InvalidRequest(f"{place}: thinking.signature: Field required", place)
                thoughts.append(text(said, "text", place) or "")
        elif "toolUse" in block:
            use = known(block["toolUse"], f"{place}.toolUse", ("toolUseId", "name", "input"))
            call_id, name = text(use, "toolUseId", place) or "", text(use, "name", place) or ""
            if not _CALL_ID.fullmatch(call_id) or not _TOOL_NAME.fullmatch(name):
                raise InvalidRequest(f"{place}.toolUse: toolUseId or name failed to satisfy its constraint", place)
            calls.append(ToolCall(call_id, name, dumps_text(mapping(use.get("input"), f"{place}.toolUse.input"))))
        else:
            raise InvalidRequest(f"{place}: the assistant's turn has text, thoughts and calls only", place)
    return AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, tuple(calls))


def _user(blocks: Sequence[Mapping[str, object]], calls: Sequence[ToolCall], place: str) -> list[Message]:
    messages: list[Message] = []
    parts: list[Part] = []
    waiting = [call.id for call in calls]
    for block in blocks:
        if "toolResult" not in block:
            parts.append(_part(block, place))
            continue
        result = known(block["toolResult"], f"{place}.toolResult", ("toolUseId", "content", "status"))
        call_id = text(result, "toolUseId", place) or ""
        if call_id not in waiting:
            raise InvalidRequest(f"{place}: unexpected `toolUseId` {call_id[:64]!r} in toolResult", place)
        waiting.remove(call_id)
        content = [known(one, place, ("text", "json")) for one in items(result.get("content"), f"{place}.content")]
        messages.append(ToolMessage(call_id, "".join(spoken(one, place) for one in content)))
    if waiting:
        raise InvalidRequest(f"Expected toolResult blocks at {place} for the following Ids: {waiting[0]}", place)
    if any(isinstance(part, FilePart) for part in parts) and not any(isinstance(part, TextPart) for part in parts):
        raise InvalidRequest("A document needs a text block beside it.", place)
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        messages.append(UserMessage(parts[0].text))
    elif parts:
        messages.append(UserMessage(tuple(parts)))
    return messages


def _part(block: Mapping[str, object], place: str) -> Part:
    if "text" in block:
        return TextPart(spoken(block, place))
    if "image" in block:
        image = known(block["image"], f"{place}.image", ("format", "source"))
        mime = _IMAGES[choice(image.get("format"), f"{place}.image.format", tuple(_IMAGES))]
        return ImagePart(f"data:{mime};base64,{_bytes(image, place)}")
    if "document" in block:
        paper = known(block["document"], f"{place}.document", ("format", "name", "source", "context"))
        mime = _DOCUMENTS[choice(paper.get("format"), f"{place}.document.format", tuple(_DOCUMENTS))]
        name = text(paper, "name", f"{place}.document.name") or ""
        if not _DOCUMENT_NAME.fullmatch(name):
            raise InvalidRequest(f"{place}: the document file name can only contain alphanumeric characters, …", place)
        return FilePart(f"data:{mime};base64,{_bytes(paper, place)}", name)
    raise InvalidRequest(f"{place}: the user's turn has text, images, documents and results only", place)


def _bytes(source: Mapping[str, object], place: str) -> str:
    data = text(known(source.get("source"), f"{place}.source", ("bytes",)), "bytes", f"{place}.source.bytes") or ""
    try:
        if not base64.b64decode(data, validate=True):
            raise InvalidRequest(f"{place}.source.bytes must not be empty", place)
    except binascii.Error:
        raise InvalidRequest(f"{place}.source.bytes is no base64", place) from None
    return data


def spoken(block: Mapping[str, object], place: str) -> str:
    """The text of a block, which may not be blank."""
    said = text(block, "text", f"{place}.text")
    if not said or not said.strip():
        raise InvalidRequest(f"The text field in the ContentBlock object at {place} is blank.", place)
    return said


_FIELDS = (
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "promptVariables",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
)


_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


_EFFORTS = ("low", "medium", "high", "xhigh", "max")


_BUDGETS = ((2048, "low"), (8192, "medium"))


def read_body(value: object, model: str, facts: ModelFacts, *, stream: bool) -> ChatRequest:
    """The request; raises InvalidRequest."""
    body = known(value, "request", _FIELDS)
    system = [
        spoken(known(one, "system", ("text", "cachePoint")), "system")
        for one in items(body.get("system") or [], "system")
    ]
    config = known(
        body.get("inferenceConfig") or {}, "inferenceConfig", ("maxTokens", "temperature", "topP", "stopSequences")
    )
    for name, field in (("temperature", "temperature"), ("top_p", "topP")):
        if config.get(field) is not None and name in facts.without:
            raise InvalidRequest(f"`{field}` is deprecated for this model.", field)
    stops = items(config.get("stopSequences") or [], "stopSequences", at_most=2500)
    if not all(isinstance(stop, str) and stop.strip() for stop in stops):
        raise InvalidRequest("stop_sequences: each stop sequence must contain non-whitespace", "stopSequences")
    max_tokens = integer(config, "maxTokens", "inferenceConfig.maxTokens", 1, facts.output_tokens or 2**31)
    tools, selected = _tools(body.get("toolConfig"), facts)
    own = as_map(body.get("additionalModelRequestFields"))
    effort = _effort(body, own, facts, max_tokens)
    if selected not in (None, "auto") and effort not in (None, "none"):
        raise InvalidRequest("Thinking may not be enabled when tool_choice forces tool use.", "toolConfig")
    messages = read_messages(items(present(body, "messages", "messages"), "messages"), facts)
    if not tools and any(isinstance(one, ToolMessage) or getattr(one, "tool_calls", ()) for one in messages):
        message = "The toolConfig field must be defined when using toolUse and toolResult content blocks."
        raise InvalidRequest(message, "toolConfig")
    return ChatRequest(
        model=model,
        messages=(*(SystemMessage(one) for one in system), *messages),
        stream=stream,
        include_usage=True,
        max_tokens=max_tokens,
        temperature=number(config, "temperature", "inferenceConfig.temperature", 0, 1),
        top_p=number(config, "topP", "inferenceConfig.topP", 0, 1),
        stop=tuple(str(stop) for stop in stops),
        tools=tools,
        tool_choice=selected,
        response_format=_format(body),
        reasoning_effort=effort,
        extra={name: value for name, value in own.items() if name != "thinking"},
    )


def _tools(value: object, facts: ModelFacts) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    if value is None:
        return (), None
    config = known(value, "toolConfig", ("tools", "toolChoice"))
    tools: list[Tool] = []
    for position, entry in enumerate(items(present(config, "tools", "toolConfig.tools"), "toolConfig.tools")):
        place = f"toolConfig.tools.{position}"
        outer = known(entry, place, ("toolSpec", "cachePoint"))
        spec = known(
            present(outer, "toolSpec", place), f"{place}.toolSpec", ("name", "description", "inputSchema", "strict")
        )
        name = text(spec, "name", f"{place}.name")
        if not name or not _NAME.fullmatch(name):
            raise InvalidRequest(f"{place}.toolSpec.name failed to satisfy constraint: [a-zA-Z0-9_-]+", place)
        schema = known(present(spec, "inputSchema", place), f"{place}.inputSchema", ("json",))
        parameters = mapping(present(schema, "json", place), f"{place}.inputSchema.json")
        if parameters.get("type") != "object":
            raise InvalidRequest("toolSpec.inputSchema.json.type must be one of the following: object.", place)
        description = text(spec, "description", f"{place}.description")
        if description == "":
            raise InvalidRequest(f"{place}.toolSpec.description: must have length 1 or more", place)
        tools.append(Tool(name, description, parameters, boolean(spec, "strict", f"{place}.strict")))
    if not tools:
        raise InvalidRequest("toolConfig.tools must have length 1 or more", "toolConfig.tools")
    if config.get("toolChoice") is None:
        return tuple(tools), None
    wanted = known(config["toolChoice"], "toolConfig.toolChoice", ("auto", "any", "tool"))
    if len(wanted) != 1:
        raise InvalidRequest("toolChoice: exactly one member of the union must be set", "toolConfig.toolChoice")
    if "auto" in wanted:
        return tuple(tools), "auto"
    if "tool_choice_required" not in facts.features:
        raise InvalidRequest("This model doesn't support the toolConfig.toolChoice field.", "toolConfig.toolChoice")
    if "any" in wanted:
        return tuple(tools), "required"
    name = text(known(wanted["tool"], "toolChoice.tool", ("name",)), "name", "toolChoice.tool.name")
    if name is None or name not in {tool.name for tool in tools}:
        raise InvalidRequest("toolConfig.toolChoice.tool.name is not in the list of tools", "toolConfig.toolChoice")
    return tuple(tools), NamedTool(name)


def _effort(
    body: Mapping[str, object], own: Mapping[str, object], facts: ModelFacts, max_tokens: int | None
) -> str | None:
    effort = as_map(body.get("outputConfig")).get("effort")
    if effort is not None:
        choice(effort, "outputConfig.effort", _EFFORTS)
    if own.get("thinking") is None:
        return str(effort) if effort is not None else None
    thinking = known(own["thinking"], "thinking", ("type", "budget_tokens", "display"))
    kinds = ("enabled", "disabled") if "thinking_budget" in facts.flags else ("adaptive", "disabled", "between_tools")
    kind = choice(thinking.get("type"), "thinking.type", kinds if facts.efforts else ())
    if kind == "enabled":
        budget = integer(thinking, "budget_tokens", "thinking.budget_tokens", 1024, (max_tokens or 2**31) - 1)
        if budget is None or max_tokens is None:
            raise InvalidRequest("`max_tokens` must be greater than `thinking.budget_tokens`.", "thinking")
        return next((word for limit, word in _BUDGETS if budget <= limit), "high")
    return "none" if kind != "adaptive" else str(effort) if effort is not None else "high"


def _format(body: Mapping[str, object]) -> ResponseFormat | None:
    config = known(body.get("outputConfig") or {}, "outputConfig", ("textFormat", "effort"))
    if config.get("textFormat") is None:
        return None
    form = known(config["textFormat"], "outputConfig.textFormat", ("type", "structure"))
    choice(form.get("type"), "outputConfig.textFormat.type", ("json_schema",))
    place = "outputConfig.textFormat.structure.jsonSchema"
    outer = known(present(form, "structure", place), place, ("jsonSchema",))
    definition = known(present(outer, "jsonSchema", place), place, ("schema", "name", "description"))
    try:
        schema = mapping(loads_text(text(definition, "schema", place) or ""), place)
    except JsonError:
        raise InvalidRequest(f"{place}.schema is not a valid JSON schema", place) from None
    return JsonSchemaFormat(text(definition, "name", place) or "response", schema)
