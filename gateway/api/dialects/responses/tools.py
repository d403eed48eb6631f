"""Tools of a Responses request: functions, groups of them (`namespace`), custom tools, and the search of a client.

A group is flattened: the provider gets each function with the name of its group before its own. A call of such a
function is returned with the plain name and the member `namespace`, as OpenAI returns it. A custom tool, such as
Codex's `apply_patch`, leaves as a function with one string, and its description has the grammar. Codex's `tool_search`,
which the client runs, leaves as a function. Their calls return in their own forms. A search at the provider that is
offered among functions, as Codex does unless it is configured otherwise, is left out and named.

Source: what Codex 0.169 sent on 2026-11-26.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NoReturn

import msgspec

from providers.chat import AllowedTools, NamedTool, Tool, ToolChoice
from providers.failures import InvalidRequest
from providers.formats.schemas import allows_strict
from providers.openai_json.decode_request import (
    MAX_TOOLS,
    NAME_RULE,
    TOOL_NAME,
    is_choice_without_tools,
    unknown_tool_choice,
)
from providers.openai_json.fields import boolean, choice, items, mapping, text

_LONGEST_NAME = 64
_HASH_LENGTH = 8
_SEPARATOR = "__"
_FUNCTION = frozenset({"type", "name", "description", "parameters", "strict"})
_CUSTOM = frozenset({"type", "name", "description", "format"})
_SEARCH = frozenset({"type", "execution", "description", "parameters"})
CUSTOM, TOOL_SEARCH = "custom", "tool_search"
INPUT = "input"
"""The one argument of the function that stands for a custom tool."""
_CUSTOM_SCHEMA: Mapping[str, object] = {
    "type": "object",
    "properties": {INPUT: {"type": "string", "description": "The whole input of the tool, as plain text."}},
    "required": [INPUT],
    "additionalProperties": False,
}
_NAMESPACE = frozenset({"type", "name", "description", "tools"})
_SEARCHES = ("web_search", "web_search_preview")


class ToolNames(msgspec.Struct):
    """The flattened names of functions in groups, each with the name of its group and its plain name.

    `kinds` has `CUSTOM` or `TOOL_SEARCH` for the tools that are not functions for the client.
    """

    groups: dict[str, tuple[str, str]] = {}
    kinds: dict[str, str] = {}

    def flatten(self, namespace: str, name: str) -> str:
        """Return the flattened name of a function in a group, and remember it."""
        joint = "" if namespace.endswith(_SEPARATOR) else _SEPARATOR
        flat = f"{namespace}{joint}{name}"
        if len(flat) > _LONGEST_NAME or self.groups.get(flat, (namespace, name)) != (namespace, name):
            digest = hashlib.sha256(f"{namespace}\n{name}".encode()).hexdigest()[:_HASH_LENGTH]
            flat = f"{name[: _LONGEST_NAME - _HASH_LENGTH - 1]}_{digest}"
        self.groups[flat] = namespace, name
        return flat

    def flat(self, namespace: str | None, name: str) -> str:
        """Return the name under which a provider gets a function of a group, or of none."""
        return name if namespace is None else self.flatten(namespace, name)

    def split(self, flat: str) -> tuple[str | None, str]:
        """Return the group of a function, or None if it has none, and its plain name."""
        return self.groups.get(flat, (None, flat))


def decode_tools(
    value: object, names: ToolNames, unread: set[str], more: Iterable[tuple[str, object]] = ()
) -> tuple[Tool, ...]:
    """Return the functions of `tools`, without groups.

    `names` gets the functions in groups, and the kinds of tools. `unread` gets the names of unknown fields. `more` has
    the tools in items of `input`, by path. A later definition of a tool replaces the former one.

    Raises InvalidRequest if a tool runs at a provider, or is not valid. A search is only refused if no function is
    offered.
    """
    tools: dict[str, Tool] = {}
    searches: list[str] = []
    for tool in _tools_at("tools", value, names, unread, searches) if value is not None else ():
        if tool.name in tools:
            raise InvalidRequest("`tools` has two functions with the same name: rename one of them", "tools")
        tools[tool.name] = tool
    for path, entries in more:
        tools.update((tool.name, tool) for tool in _tools_at(path, entries, names, unread, searches))
    if searches and not tools:
        _refuse(_SEARCHES[0], searches[0])
    if len(tools) > MAX_TOOLS:
        raise InvalidRequest(f"`tools` has {len(tools)} functions; at most {MAX_TOOLS} are accepted", "tools")
    return tuple(tools.values())


def _tools_at(path: str, value: object, names: ToolNames, unread: set[str], searches: list[str]) -> Iterable[Tool]:
    """Yield the functions of one list. `searches` gets the paths of those that are left out."""
    for position, entry in enumerate(items(value, path, at_most=MAX_TOOLS)):
        place = f"{path}[{position}]"
        source = mapping(entry, place)
        kind = source.get("type")
        if isinstance(kind, str) and kind.startswith(_SEARCHES):
            unread.add(f"tools.{_SEARCHES[0]}")
            searches.append(place)
        elif kind == "namespace":
            yield from _group(source, place, names, unread)
        else:
            yield _tool(source, place, names, unread)


def _group(source: Mapping[str, object], path: str, names: ToolNames, unread: set[str]) -> Iterable[Tool]:
    _note_unknown(source, _NAMESPACE, "tools", unread)
    namespace = _name(source, path)
    for position, entry in enumerate(items(source.get("tools"), f"{path}.tools", at_most=MAX_TOOLS)):
        place = f"{path}.tools[{position}]"
        yield _tool(mapping(entry, place), place, names, unread, namespace)


def _tool(
    source: Mapping[str, object], path: str, names: ToolNames, unread: set[str], namespace: str | None = None
) -> Tool:
    kind = source.get("type")
    if kind == CUSTOM:
        tool = _custom(source, path, unread)
    elif kind == TOOL_SEARCH and source.get("execution") == "client":
        _note_unknown(source, _SEARCH, "tools", unread)
        tool = _function({**source, "type": "function", "name": TOOL_SEARCH, "execution": None}, path, unread)
    else:
        tool = _function(source, path, unread)
    name = names.flat(namespace, tool.name)
    if kind in (CUSTOM, TOOL_SEARCH):
        names.kinds[name] = kind
    else:
        names.kinds.pop(name, None)
    return tool if namespace is None else Tool(name, tool.description, tool.parameters, tool.strict)


def _custom(source: Mapping[str, object], path: str, unread: set[str]) -> Tool:
    _note_unknown(source, _CUSTOM, "tools", unread)
    description = text(source, "description", f"{path}.description") or ""
    form = mapping(source.get("format") or {}, f"{path}.format")
    if definition := text(form, "definition", f"{path}.format.definition"):
        syntax = text(form, "syntax", f"{path}.format.syntax") or "grammar"
        description += f"\n\n`{INPUT}` must match this grammar ({syntax}):\n{definition}"
    return Tool(_name(source, path), description.strip() or None, _CUSTOM_SCHEMA, strict=False)


def _function(source: Mapping[str, object], path: str, unread: set[str]) -> Tool:
    kind = source.get("type")
    if kind != "function":
        _refuse(kind, path)
    _note_unknown(source, _FUNCTION, "tools", unread)
    name = _name(source, path)
    parameters = source.get("parameters")
    schema = None if parameters is None else mapping(parameters, f"{path}.parameters")
    strict = boolean(source, "strict", f"{path}.strict")
    if strict is None:
        # OpenAI would rewrite the schema into strict mode, which makes optional arguments mandatory.
        strict = schema is not None and allows_strict(schema)
    return Tool(name, text(source, "description", f"{path}.description"), schema, strict)


def _name(source: Mapping[str, object], path: str) -> str:
    name = text(source, "name", f"{path}.name")
    if name is None or not TOOL_NAME.fullmatch(name):
        raise InvalidRequest(f"`{path}.name` {NAME_RULE}", f"{path}.name")
    return name


def _refuse(kind: object, path: str) -> NoReturn:
    """Raise the error for a tool that is not a function."""
    place = f"{path}.type"
    if isinstance(kind, str) and kind.startswith(_SEARCHES):
        raise InvalidRequest(
            f"`{path}` is the hosted tool `web_search`, which would send data elsewhere: leave it out (in Codex, set "
            '`web_search = "disabled"` in its config), and offer a function of your own for searches',
            place,
        )
    if not isinstance(kind, str):
        raise InvalidRequest(f"`{place}` must be 'function' or 'namespace'", place)
    shown = kind if TOOL_NAME.fullmatch(kind) else "…"
    raise InvalidRequest(
        f"`{path}` is the hosted tool `{shown}`, which would send data elsewhere: offer functions, which your app runs",
        place,
        log_message=f"`{path}` is a hosted tool",
    )


def decode_tool_choice(value: object, tools: tuple[Tool, ...], names: ToolNames, unread: set[str]) -> ToolChoice | None:
    """Return `tool_choice`. Raises InvalidRequest."""
    if is_choice_without_tools(value, tools):
        return None
    match value:
        case "auto" | "none" | "required":
            return value
        case {"type": "function" | "custom"}:
            return NamedTool(_chosen(mapping(value, "tool_choice"), "tool_choice", tools, names, unread))
        case {"type": "allowed_tools"}:
            source = mapping(value, "tool_choice")
            _note_unknown(source, frozenset({"type", "mode", "tools"}), "tool_choice", unread)
            mode = choice(source.get("mode") or "auto", "tool_choice.mode", ("auto", "required"))
            entries = items(source.get("tools"), "tool_choice.tools", at_most=MAX_TOOLS)
            chosen = [
                _chosen(mapping(entry, path), path, tools, names, unread)
                for entry, path in ((entry, f"tool_choice.tools[{at}]") for at, entry in enumerate(entries))
            ]
            if not chosen:
                raise InvalidRequest("`tool_choice.tools` must name at least one tool", "tool_choice.tools")
            return AllowedTools("required" if mode == "required" else "auto", tuple(chosen))
        case {"type": str(kind)}:
            _refuse(kind, "tool_choice")
    raise unknown_tool_choice()


def _chosen(given: Mapping[str, object], path: str, tools: tuple[Tool, ...], names: ToolNames, unread: set[str]) -> str:
    if given.get("type") not in ("function", CUSTOM):
        _refuse(given.get("type"), path)
    _note_unknown(given, frozenset({"type", "name", "namespace"}), "tool_choice", unread)
    name, namespace = text(given, "name", f"{path}.name"), text(given, "namespace", f"{path}.namespace")
    if name and namespace:
        name = names.flatten(namespace, name)
    if name is None or all(tool.name != name for tool in tools):
        raise InvalidRequest(f"`{path}.name` is not one of the `tools`", f"{path}.name")
    return name


def _note_unknown(source: Mapping[str, object], known: frozenset[str], path: str, unread: set[str]) -> None:
    if not source.keys() <= known:
        unread.update(f"{path}.{name}" for name, value in source.items() if name not in known and value is not None)
