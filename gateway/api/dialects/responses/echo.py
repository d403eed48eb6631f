"""The members of a Responses request that its answer repeats, each complete by the schema of Open Responses.

They are what was asked, with OpenAI's defaults. They claim nothing about what a model used.
Source: the schemas of Open Responses 2026-04-24 (ResponseResource), read 2026-11-28.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import orjson

from gateway.api.dialects.responses.tools import ToolNames
from providers.chat import Tool
from providers.json_values import as_list, as_map

_MOST_ECHOED_BYTES = 64 * 1024
"""The answer to a larger request repeats neither its instructions nor its tools: a stream would hold them to its
end."""
_DEFAULTS: Mapping[str, object] = orjson.loads(Path(__file__).with_suffix(".json").read_bytes())
_TEXT = {"type": "text"}
_SCHEMA = {"description": None, "schema": None, "strict": False}
_SUMMARIES = ("auto", "concise", "detailed")


def echo_of(source: Mapping[str, object], sent: tuple[Tool, ...], names: ToolNames) -> Mapping[str, object]:
    """Return the members of a valid request that its answer repeats. `sent` are its functions for a provider."""
    given = {name: value for name, value in source.items() if value is not None and name in _DEFAULTS}
    if "tools" in given:
        strict = {tool.name: tool.strict for tool in sent}
        given["tools"] = [*_tools(as_list(given["tools"]), lambda group, name: strict.get(names.flat(group, name)))]
    for name in _COMPLETE:
        if name in given:
            given[name] = _COMPLETE[name](given[name])
    return {**_DEFAULTS, **given}


def encode_echo(echo: Mapping[str, object], body_bytes: int) -> bytes:
    """Return the members as JSON, with a comma before each."""
    if body_bytes > _MOST_ECHOED_BYTES:
        echo = {**echo, "instructions": None, "tools": ()}
    return b"," + orjson.dumps(echo)[1:-1]


def _tools(
    tools: Iterable[object], strict_of: Callable[[str | None, str], bool | None], group: str | None = None
) -> Iterable[Mapping[str, object]]:
    """Yield tools. A function has the `strict` that is stated, or else the one that is sent."""
    for tool in map(as_map, tools):
        name = str(tool.get("name"))
        match tool.get("type"):
            case "namespace":
                yield {**tool, "tools": [*_tools(as_list(tool.get("tools")), strict_of, name)]}
            case "function":
                yield {
                    "description": None,
                    "parameters": None,
                    **tool,
                    "strict": _stated(tool).get("strict", strict_of(group, name)),
                }
            case _:
                yield tool


def _tool_choice(value: object) -> object:
    is_list = as_map(value).get("type") == "allowed_tools"
    return {**as_map(value), "mode": as_map(value).get("mode") or "auto"} if is_list else value


def _reasoning(value: object) -> object:
    summary = as_map(value).get("summary")
    return {"effort": as_map(value).get("effort"), "summary": summary if summary in _SUMMARIES else None}


def _text(value: object) -> object:
    stated = _stated(as_map(value))
    form = _stated(as_map(stated.get("format", _TEXT)))
    return {**stated, "format": {**_SCHEMA, **form} if form["type"] == "json_schema" else form}


def _stated(source: Mapping[str, object]) -> Mapping[str, object]:
    return {name: value for name, value in source.items() if value is not None}


_COMPLETE: Mapping[str, Callable[[object], object]] = {
    "tool_choice": _tool_choice,
    "reasoning": _reasoning,
    "text": _text,
}
