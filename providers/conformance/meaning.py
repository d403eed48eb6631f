"""What of a request must survive the way to the provider, in a form that two requests can be compared by.

Wire formats may join, split, move and rename: system texts become one, texts of one speaker are merged, an empty text
is left out, a silent turn stands where one is wanted, ids of calls are made anew. What was said, by whom, in which
order, and what was asked for may not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import assert_never

from providers.chat import (
    AllowedTools,
    AssistantMessage,
    AudioPart,
    ChatRequest,
    FilePart,
    ImagePart,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedTool,
    Part,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    text_of,
)
from providers.json_values import JsonError, loads_text

__all__ = ["arguments_value", "conversation", "is_absent", "parameters", "tools_asked"]

_Atom = tuple[object, ...]
_EMPTY_SCHEMA: Mapping[str, object] = {"type": "object", "properties": {}}
# What a turn holds that says nothing: formats that want somebody's turn want a text in it, and some none that is blank.
_SILENCE = ("", " ", ".")
_COMPARED = (
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "logit_bias",
    "user",
    "max_tokens",
    "n",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
)


def conversation(request: ChatRequest) -> list[_Atom]:
    """Who said what, in order: system texts first and as one, then texts, images, calls and results."""
    systems = [text_of(message.content) for message in request.messages if isinstance(message, SystemMessage)]
    # A format without several system messages puts something between the texts: a line end, or nothing.
    atoms: list[_Atom] = [("system", "".join(systems).replace("\n", ""))] if any(systems) else []
    for atom in _atoms(request):
        last = atoms[-1] if atoms else ("",)
        if atom[0] in ("user", "assistant"):
            # So does a format in which nobody speaks twice in a row.
            atom = (atom[0], str(atom[1]).replace("\n\n", ""))
        if atom[0] in ("user", "assistant") and last[0] == atom[0]:
            atoms[-1] = (atom[0], f"{last[1]}{atom[1]}")
        elif atom[1] not in _SILENCE or atom[0] not in ("user", "assistant"):
            atoms.append(atom)
    return atoms


def _atoms(request: ChatRequest) -> Iterator[_Atom]:
    called: dict[str, int] = {}
    for message in request.messages:
        match message:
            case SystemMessage():
                pass
            case UserMessage(content):
                for part in (TextPart(content),) if isinstance(content, str) else content:
                    yield _part(part)
            case AssistantMessage(content, _, _, calls):
                yield "assistant", text_of(content)
                called = {call.id: position for position, call in enumerate(calls)}
                for call in calls:
                    yield "call", call.name, arguments_value(call.arguments)
            case ToolMessage(call_id, content):
                yield "result of call", called.get(call_id, "unknown"), text_of(content)
            case _:
                assert_never(message)


def _part(part: Part) -> _Atom:
    match part:
        case TextPart(text):
            return "user", text
        case ImagePart(url):
            return "image", url
        case AudioPart(data, sound):
            return "audio", data, sound
        case FilePart(data):
            return "file", data
        case _:
            assert_never(part)


def arguments_value(arguments: str) -> object:
    """The value of a call's arguments; the text itself where it is no JSON."""
    try:
        return loads_text(arguments)
    except JsonError:
        return arguments


def tools_asked(request: ChatRequest) -> object:
    """Which tools may or must be called, and what they are."""
    names = [tool.name for tool in request.tools]
    mode: str = "auto"
    match request.tool_choice:
        case NamedTool(name):
            mode, names = "required", [name]
        case AllowedTools(wanted, allowed):
            mode, names = wanted, [name for name in names if name in allowed]
        case None | "auto":
            pass
        case "none" | "required" as word:
            mode = word
        case _:
            assert_never(request.tool_choice)
    if mode == "none":
        # Which tools are not to be called is nobody's concern: some vendors are told by giving them no tools.
        names = []
    callable_tools = {
        tool.name: (tool.description, tool.parameters or _EMPTY_SCHEMA) for tool in request.tools if tool.name in names
    }
    # Where none may be called, a format may leave them out.
    return (mode, callable_tools) if callable_tools and mode != "none" else ("none", {})


def is_absent(value: object) -> bool:
    """Whether a setting says nothing; 0 says something."""
    return value is None or value is False or value == ()


def parameters(request: ChatRequest, wanted: ChatRequest) -> Mapping[str, object]:
    """The tuning of a request, as far as `wanted` said anything about it."""
    said: dict[str, object] = {}
    for name in _COMPARED:
        if getattr(wanted, name) not in (None, ()):
            said[name] = getattr(request, name)
    match wanted.response_format:
        case JsonObjectFormat():
            said["response_format"] = isinstance(request.response_format, JsonObjectFormat)
        case JsonSchemaFormat():
            form = request.response_format
            said["response_format"] = form.schema if isinstance(form, JsonSchemaFormat) else form
        case None:
            pass
        case _:
            assert_never(wanted.response_format)
    if any(tool.strict for tool in wanted.tools):
        said["strict_tools"] = [tool.name for tool in request.tools if tool.strict]
    if names := _names(wanted):
        said["message_name"] = [name for name in _names(request) if name in names]
    if _details(wanted):
        said["image_detail"] = _details(request)
    if wanted.reasoning_effort is not None:
        # How strongly to think is each provider's own ladder; whether to think at all is the same everywhere.
        said["thinks"] = request.reasoning_effort not in (None, "none")
    return said


def _names(request: ChatRequest) -> list[str]:
    messages = [message for message in request.messages if not isinstance(message, ToolMessage)]
    return [message.name for message in messages if message.name is not None]


def _details(request: ChatRequest) -> list[str]:
    contents = [message.content for message in request.messages if isinstance(message, UserMessage)]
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    return [part.detail for part in parts if isinstance(part, ImagePart) and part.detail is not None]
