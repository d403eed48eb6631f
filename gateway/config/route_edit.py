"""One route of a config changed in its text, so that everything else, comments and all, stays as it was written."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from gateway.config.problems import ConfigRejected, Problem, quoted

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def with_route(text: str, file: str, assistant: str, region: str, steps: list[str]) -> str:
    """The text of a config in which the assistant's route for the region has these steps; raises ConfigRejected.

    assistant: its name, not an alias. What stood inside the old route, comments too, is gone.
    """
    place = ("assistants", assistant, "routes", region)
    message = f"the route of {quoted(assistant)} for {quoted(region)} can't be changed where it is written"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    routes = _at(_at(_at(root, "assistants"), assistant), "routes")
    written = f"[{', '.join(map(_name, steps))}]"
    route = _at(routes, region)
    if route is not None:
        if route.start_mark.index == route.end_mark.index or text[route.start_mark.index] in "*&":
            raise _rejected(file, route, place, message)
        return text[: route.start_mark.index] + _behind(text, route, written)
    if not isinstance(routes, yaml.MappingNode) or not routes.value:
        raise _rejected(file, routes, place, message)
    first = routes.value[0][0].start_mark
    if routes.flow_style:
        return f"{text[: first.index]}{_name(region)}: {written}, {text[first.index :]}"
    return f"{text[: first.index]}{_name(region)}: {written}\n{' ' * first.column}{text[first.index :]}"


def without_schedule(text: str, file: str, assistant: str, region: str) -> str:
    """The text without the schedule of that route, if it has one: it belongs to a weighted step that the route may not
    begin with any more. Raises ConfigRejected where it can't be taken out."""
    holder = _at(_at(yaml.compose(text, Loader=yaml.SafeLoader), "assistants"), assistant)
    schedules = _at(holder, "schedules")
    if not isinstance(holder, yaml.MappingNode) or not isinstance(schedules, yaml.MappingNode):
        return text
    if (schedule := _at(schedules, region)) is None:
        return text
    changed = _cut(text, holder, "schedules") if len(schedules.value) == 1 else _cut(text, schedules, region)
    wanted = _read(text)
    section = wanted["assistants"][assistant]
    del section["schedules"][region]
    if not section["schedules"]:
        del section["schedules"]
    # Aliases and anchors can stand anywhere: what was cut is known by what is left.
    if _read(changed) != wanted:
        message = f"the schedule of {quoted(assistant)} for {quoted(region)} can't be taken out where it is written"
        raise _rejected(file, schedule, ("assistants", assistant, "schedules", region), message)
    return changed


def _cut(text: str, mapping: yaml.MappingNode, key: str) -> str:
    """The text without one entry of a mapping: in block style its lines, in flow style with its comma."""
    keys = [name.start_mark.index for name, _ in mapping.value]
    place = next(number for number, (name, _) in enumerate(mapping.value) if name.value == key)
    start, end = keys[place], _end(mapping.value[place][1])
    if not mapping.flow_style:
        line_end = text.find("\n", end)
        return text[: text.rfind("\n", 0, start) + 1] + (text[line_end + 1 :] if line_end >= 0 else "")
    if place + 1 < len(keys):
        return text[:start] + text[keys[place + 1] :]
    return text[: _end(mapping.value[place - 1][1]) if place else start] + text[end:]


def _end(node: yaml.Node) -> int:
    """Where what is written of it ends. The end mark of a block lies behind its last line's break."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _read(text: str) -> Any:
    """What is written, word for word, each alias a copy of its own; None where it is no YAML."""
    try:
        return json.loads(json.dumps(yaml.load(text, Loader=yaml.BaseLoader)))  # noqa: S506  # it makes only texts
    except yaml.YAMLError:
        return None


def _behind(text: str, route: yaml.Node, written: str) -> str:
    """The new route and what follows the old one. A block's end mark lies behind its last line's break."""
    old = text[route.start_mark.index : route.end_mark.index]
    if not getattr(route, "flow_style", False) and isinstance(route, yaml.SequenceNode):
        old_end = route.value[-1].end_mark.index if route.value else route.end_mark.index
        return f"{written}{text[old_end:]}"
    return f"{written}{text[route.start_mark.index + len(old) :]}"


def _at(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if isinstance(name, yaml.ScalarNode) and name.value == key), None)


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _WORDS else json.dumps(name)


def _rejected(file: str, node: yaml.Node | None, place: tuple[str, ...], message: str) -> ConfigRejected:
    line, column = (node.start_mark.line + 1, node.start_mark.column + 1) if node is not None else (0, 0)
    return ConfigRejected([Problem(file, line, column, place, message, "write it out, without an alias")])
