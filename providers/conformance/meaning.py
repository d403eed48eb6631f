"""Compare two requests by their meaning: the part of a request that must reach the provider unchanged.

A wire format may join system texts, merge consecutive texts of one role, leave out an empty text, insert a blank turn
where it needs one, and give tool calls new ids. The content, its roles and order, and the parameters must not change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import assert_never

from providers import chat
from providers.formats.fitting import LATE_SYSTEM
from providers.formats.tool_results import results_as_text
from providers.json_values import JsonError, loads_text

_Atom = tuple[object, ...]
_RESULT = "result of call"
_EMPTY_SCHEMA: Mapping[str, object] = {"type": "object", "properties": {}}
# The content of an inserted turn: formats that need a turn need a text in it, and some refuse a blank one.
_FILLER_TEXTS = ("", " ", ".")
# The note in place of an image or a file of a tool result where the format has no place for it.
_NOTE = re.compile(r"\n?\[(in the next message: )?(image|file) \d+ of the tool results\]\n?")
_LATE = re.compile(re.escape(LATE_SYSTEM.partition("{}")[0]) + r"(.*?)(?:\n\n|\Z)", re.DOTALL)
_COMPARED = tuple(
    "temperature top_p presence_penalty frequency_penalty seed stop logit_bias user max_tokens n logprobs "
    "top_logprobs parallel_tool_calls".split()
)


def conversation(request: chat.ChatRequest) -> list[_Atom]:
    """Return the joined system texts, then texts, images, calls and results in order, each with its role."""
    systems = [text for message in request.messages for text in _instructions(message)]
    # A format that has only one system message joins the texts with line ends, or with nothing.
    atoms: list[_Atom] = [("system", "".join(systems).replace("\n", ""))] if any(systems) else []
    for atom in _with_sorted_results(_atoms(results_as_text(request.messages))):
        last = atoms[-1] if atoms else ("",)
        if atom[0] == "user":
            atom = ("user", _NOTE.sub("", str(atom[1])))
        if atom[0] in ("user", "assistant"):
            # A format that needs alternating roles joins the texts of one role in the same way.
            atom = (atom[0], str(atom[1]).replace("\n\n", ""))
        if atom[0] in ("user", "assistant") and last[0] == atom[0]:
            atoms[-1] = (atom[0], f"{last[1]}{atom[1]}")
        elif atom[1] not in _FILLER_TEXTS or atom[0] not in ("user", "assistant"):
            atoms.append(atom)
    return atoms


def _instructions(message: chat.Message) -> list[str]:
    """Return the system texts of a message, also where a format has them only as texts of the user."""
    if isinstance(message, chat.SystemMessage):
        return [chat.text_of(message.content)]
    return (
        [found[1] for found in _LATE.finditer(chat.text_of(message.content))]
        if isinstance(message, chat.UserMessage)
        else []
    )


def _with_sorted_results(atoms: Iterable[_Atom]) -> Iterator[_Atom]:
    """Yield the atoms with consecutive results in the order of their calls, because some formats need this order."""
    for kind, group in groupby(atoms, key=itemgetter(0)):
        together = list(group)
        yield from sorted(together, key=lambda atom: str(atom[1])) if kind == _RESULT else together


def _atoms(messages: Iterable[chat.Message]) -> Iterator[_Atom]:
    called: dict[str, int] = {}
    for message in messages:
        match message:
            case chat.SystemMessage():
                pass
            case chat.UserMessage(content):
                for part in (chat.TextPart(content),) if isinstance(content, str) else content:
                    yield _part(part)
            case chat.AssistantMessage(content, refusal, _, calls):
                # A format without a field for a refusal sends it as text.
                yield "assistant", chat.text_of(content) + (refusal or "")
                called = {call.id: position for position, call in enumerate(calls)}
                for call in calls:
                    yield "call", call.name, arguments_value(call.arguments)
            case chat.ToolMessage(call_id, content):
                yield _RESULT, called.get(call_id, "unknown"), _NOTE.sub("", chat.text_of(content))
            case _:
                assert_never(message)


def _part(part: chat.Part) -> _Atom:
    match part:
        case chat.TextPart(text):
            return "user", _LATE.sub("", text)
        case chat.ImagePart(url):
            return "image", url
        case chat.AudioPart(data, sound):
            return "audio", data, sound
        case chat.FilePart(data):
            return "file", data
        case _:
            assert_never(part)


def arguments_value(arguments: str) -> object:
    """Return the value of a call's arguments, or the text itself if it is not JSON."""
    try:
        return loads_text(arguments)
    except JsonError:
        return arguments


def callable_tools(request: chat.ChatRequest) -> object:
    """Return the mode ("auto", "required" or "none") and the tools that may be called in it."""
    names = [tool.name for tool in request.tools]
    mode: str = "auto"
    match request.tool_choice:
        case chat.NamedTool(name):
            mode, names = "required", [name]
        case chat.AllowedTools(wanted, allowed):
            mode, names = wanted, [name for name in names if name in allowed]
        case None | "auto":
            pass
        case "none" | "required" as word:
            mode = word
        case _:
            assert_never(request.tool_choice)
    if mode == "none":
        # Some vendors express this mode by sending no tools, so the tools are not compared.
        names = []
    tools = {
        tool.name: (tool.description, tool.parameters or _EMPTY_SCHEMA) for tool in request.tools if tool.name in names
    }
    # If no tool may be called, a format may leave the tools out.
    return (mode, tools) if tools and mode != "none" else ("none", {})


def is_absent(value: object) -> bool:
    """Return whether a parameter is not set. 0 is a value."""
    return value is None or value is False or value == ()


def parameters(request: chat.ChatRequest, wanted: chat.ChatRequest) -> Mapping[str, object]:
    """Return the parameters of `request` that `wanted` sets."""
    values = {name: getattr(request, name) for name in _COMPARED if getattr(wanted, name) not in (None, ())}
    match wanted.response_format:
        case chat.JsonObjectFormat():
            values["response_format"] = isinstance(request.response_format, chat.JsonObjectFormat)
        case chat.JsonSchemaFormat():
            response_format = request.response_format
            values["response_format"] = (
                response_format.schema if isinstance(response_format, chat.JsonSchemaFormat) else response_format
            )
        case None:
            pass
        case _:
            assert_never(wanted.response_format)
    if any(tool.strict for tool in wanted.tools):
        values["strict_tools"] = [tool.name for tool in request.tools if tool.strict]
    if names := _names(wanted):
        values["message_name"] = [name for name in _names(request) if name in names]
    if _details(wanted):
        values["image_detail"] = _details(request)
    if wanted.reasoning_effort is not None:
        # Each provider has its own levels of effort. Only whether the model reasons at all can be compared.
        values["reasons"] = request.reasoning_effort not in (None, "none")
    return values


def _names(request: chat.ChatRequest) -> list[str]:
    messages = [message for message in request.messages if not isinstance(message, chat.ToolMessage)]
    return [message.name for message in messages if message.name is not None]


def _details(request: chat.ChatRequest) -> list[str]:
    contents = [message.content for message in request.messages if isinstance(message, chat.UserMessage)]
    parts = [part for content in contents if not isinstance(content, str) for part in content]
    return [part.detail for part in parts if isinstance(part, chat.ImagePart) and part.detail is not None]
