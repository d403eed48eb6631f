"""Write a request to OpenAI's Responses API, with its encrypted reasoning items.

Source: openai 3.51.0 (ResponseCreateParams, ResponseInputItem), public threads on reasoning without a store; read
2026-11-20.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

from providers import chat
from providers.adapter import Target
from providers.catalogue.models import ModelFacts
from providers.failures import UnsupportedFeature
from providers.formats.reasoning_state import pack_rows, unpack_rows
from providers.formats.tool_calls import safe_call_id, safe_call_name, turns_with_whole_results
from providers.formats.tool_results import FAILED_PREFIX, has_attachments, result_text
from providers.json_values import as_map, read_list, read_str, repair_surrogates
from providers.matching.capability_matching import THINKS_BY_RESPONSES
from providers.matching.requirements import CACHE_MARKS
from providers.openai_json.encode_request import WritesMark
from providers.openai_json.fields import breakpoint_of
from providers.value import Value, replace

_MAX_SUMMARIES = 64
_MIN_OUTPUT_TOKENS = 16
_SAME_NAMES = ("temperature", "top_p", "parallel_tool_calls", "user")
_DERIVED = frozenset({"input", "instructions", "include", "max_output_tokens"})
_MERGED = frozenset({"reasoning", "text", "verbosity"})
_NO_ARGUMENTS: Mapping[str, object] = {"type": "object", "properties": {}}


class SealedThought(Value, frozen=True):
    """A reasoning item with its id, its encrypted content and its summaries."""

    id: str
    sealed: str
    summaries: tuple[str, ...] = ()

    @property
    def item(self) -> dict[str, object]:
        """The thought as an item of the API's input."""
        summary = [{"type": "summary_text", "text": text} for text in self.summaries]
        return {"type": "reasoning", "id": self.id, "summary": summary, "encrypted_content": self.sealed}


def thought_of(item: Mapping[str, object]) -> SealedThought | None:
    """Return the thought of a reasoning item, or None if it has no id or encrypted content and cannot be sent back."""
    id, sealed = read_str(item, "id"), read_str(item, "encrypted_content")
    if not id or not sealed:
        return None
    texts = (read_str(as_map(part), "text") for part in read_list(item, "summary")[:_MAX_SUMMARIES])
    return SealedThought(
        repair_surrogates(id), repair_surrogates(sealed), tuple(repair_surrogates(t) for t in texts if t)
    )


def pack(thoughts: Sequence[SealedThought], model: str) -> str | None:
    """Pack the thoughts into a call's signature. Return None if there are none."""
    return pack_rows([[thought.id, thought.sealed, *thought.summaries] for thought in thoughts], model)


def unpack(signature: str | None, model: str) -> tuple[SealedThought, ...]:
    """Return the thoughts in a call's signature, or none if it is invalid or belongs to another model."""
    thoughts: list[SealedThought] = []
    for row in unpack_rows(signature, model):
        match row:
            case [str(id), str(sealed), *rest] if id and sealed and len(rest) <= _MAX_SUMMARIES:
                thoughts.append(SealedThought(id, sealed, tuple(text for text in rest if isinstance(text, str))))
            case _:
                return ()
    return tuple(thoughts)


def uses_responses_api(request: chat.ChatRequest, facts: ModelFacts) -> bool:
    """Return whether the request has tools and the model reasons about them only in the Responses API."""
    if THINKS_BY_RESPONSES not in facts.flags or request.reasoning_effort == "none":
        return False
    if request.reasoning_effort is None and "thinking_default" not in facts.flags:
        return False
    return bool(request.tools) or any(
        isinstance(it, chat.ToolMessage) or (isinstance(it, chat.AssistantMessage) and bool(it.tool_calls))
        for it in request.messages
    )


def encode_body(request: chat.ChatRequest, target: Target) -> dict[str, object]:
    """Return the body. Values that the site pins are written last. Raises UnsupportedFeature."""
    if clash := sorted(_DERIVED & request.extra.keys()):
        message = f"{clash[0]!r} cannot be sent directly: the gateway builds it from the request's other fields"
        raise UnsupportedFeature(clash[0], message)
    if request.n is not None and request.n > 1:
        raise UnsupportedFeature("n", "the model returns only one choice when it reasons about tools")
    if request.logprobs:
        raise UnsupportedFeature("logprobs", "the model returns no log probabilities when it reasons about tools")
    body: dict[str, object] = {name: value for name, value in request.extra.items() if name not in _MERGED}
    body["model"] = target.model
    mark = breakpoint_of if CACHE_MARKS in target.facts.flags else lambda _: {}
    body["input"] = list(_input(request.messages, target.model, mark))
    for name in _SAME_NAMES:
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.max_tokens is not None:
        # The API refuses less. A model that reasons gives no text within so few tokens anyway.
        body["max_output_tokens"] = max(request.max_tokens, _MIN_OUTPUT_TOKENS)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.stream:
        body["stream"] = True
    effort = {} if request.reasoning_effort is None else {"effort": request.reasoning_effort}
    for name, value in (("reasoning", effort), ("text", _text_config(request))):
        if whole := {**as_map(request.extra.get(name)), **value}:
            body[name] = whole
    body["store"] = False
    body["include"] = ["reasoning.encrypted_content"]
    body.update(target.pins)
    return body


def _input(messages: Sequence[chat.Message], model: str, mark: WritesMark) -> Iterator[dict[str, object]]:
    """Yield the conversation as items, with unique call ids.

    Only the id connects an output to its call. Servers that number the calls of each answer from the start use `call_0`
    in every turn, so repeated ids are changed.
    """
    for message, results in turns_with_whole_results(messages):
        match message:
            case chat.SystemMessage(content, role):
                yield {"role": role, "content": _content(content, mark)}
            case chat.UserMessage(content):
                yield {"role": "user", "content": _content(content, mark)}
            case chat.AssistantMessage():
                yield from _assistant_items(message, model)
            case _:
                assert_never(message)
        for call, result in results:
            yield {"type": "function_call_output", "call_id": safe_call_id(call.id), "output": _output(result, mark)}


def _assistant_items(message: chat.AssistantMessage, model: str) -> Iterator[dict[str, object]]:
    """Yield the first call's thoughts, the text, and the calls; each later call follows its own thoughts.

    The vendor distinguishes the answer from commentary. A text with calls is commentary.
    """
    text = chat.text_of(message.content) + (message.refusal or "")
    phase = "commentary" if message.tool_calls else "final_answer"
    texts: list[dict[str, object]] = [{"role": "assistant", "content": text, "phase": phase}] if text else []
    for position, call in enumerate(message.tool_calls):
        for thought in unpack(call.signature, model):
            yield thought.item
        if position == 0:
            yield from texts
        # The call has no item id, because the answer with that item is not stored.
        call_id, arguments = safe_call_id(call.id), call.arguments.strip() or "{}"
        yield {"type": "function_call", "call_id": call_id, "name": safe_call_name(call.name), "arguments": arguments}
    if not message.tool_calls:
        yield from texts


def _output(result: chat.ToolMessage, mark: WritesMark) -> object:
    parts: Sequence[chat.Part] = (chat.TextPart(result.content),) if isinstance(result.content, str) else result.content
    if result.cache is not None and parts and not isinstance(parts[-1], chat.AudioPart):
        parts = (*parts[:-1], replace(parts[-1], cache=result.cache))
    is_marked = any(not isinstance(part, chat.AudioPart) and mark(part.cache) for part in parts)
    if not has_attachments(result) and not is_marked:
        return result_text(result)
    return [_part(part, mark) for part in (*((chat.TextPart(FAILED_PREFIX),) if result.is_error else ()), *parts)]


def _content(content: str | Sequence[chat.Part], mark: WritesMark) -> object:
    return content if isinstance(content, str) else [_part(part, mark) for part in content]


def _part(part: chat.Part, mark: WritesMark) -> dict[str, object]:
    match part:
        case chat.TextPart(text):
            return {"type": "input_text", "text": text, **mark(part.cache)}
        case chat.ImagePart(url, detail):
            return {"type": "input_image", "image_url": url, "detail": detail or "auto", **mark(part.cache)}
        case chat.FilePart(data, filename):
            if (plain := part.as_text()) is not None:
                return {"type": "input_text", "text": plain, **mark(part.cache)}
            named = {"filename": filename} if filename else {}
            return {"type": "input_file", "file_data": data, **named, **mark(part.cache)}
        case chat.AudioPart():
            raise UnsupportedFeature("audio", "the model does not accept audio when it reasons about tools")
        case _:
            assert_never(part)


def _tool(tool: chat.Tool) -> dict[str, object]:
    """Return one function. `strict` is always sent, because its default here is true, and false in chat completions."""
    body: dict[str, object] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    return {**body, "parameters": tool.parameters or _NO_ARGUMENTS, "strict": bool(tool.strict)}


def _tool_choice(choice: chat.ToolChoice) -> object:
    match choice:
        case chat.NamedTool(name):
            return {"type": "function", "name": name}
        case chat.AllowedTools(mode, names):
            return {
                "type": "allowed_tools",
                "mode": mode,
                "tools": [{"type": "function", "name": one} for one in names],
            }
        case _:
            return choice


def _text_config(request: chat.ChatRequest) -> dict[str, object]:
    config: dict[str, object] = {}
    match request.response_format:
        case chat.JsonObjectFormat():
            config["format"] = {"type": "json_object"}
        case chat.JsonSchemaFormat(name, schema, description, strict):
            form: dict[str, object] = {"type": "json_schema", "name": name, "schema": schema, "strict": bool(strict)}
            config["format"] = form if description is None else {**form, "description": description}
        case None:
            pass
        case _:
            assert_never(request.response_format)
    if (verbosity := request.extra.get("verbosity")) is not None:
        config["verbosity"] = verbosity
    return config
