"""One route of a config changed in its text, so that everything else, comments and all, stays as it was written."""

from __future__ import annotations

import json
import re

import yaml

from gateway.config.problems import ConfigRejected, Problem, quoted

__all__ = ["with_route"]

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def with_route(text: str, file: str, assistant: str, region: str, steps: list[str]) -> str:
    """The text of a config in which the assistant's route for the region has these steps; raises ConfigRejected.

    assistant: its name, not an alias. What stood inside the old route, comments too, is gone.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    routes = _at(_at(_at(root, "assistants"), assistant), "routes")
    written = f"[{', '.join(map(_name, steps))}]"
    route = _at(routes, region)
    if route is not None:
        if route.start_mark.index == route.end_mark.index or text[route.start_mark.index] in "*&":
            raise _rejected(file, route, assistant, region)
        return text[: route.start_mark.index] + _behind(text, route, written)
    if not isinstance(routes, yaml.MappingNode) or not routes.value:
        raise _rejected(file, routes, assistant, region)
    first = routes.value[0][0].start_mark
    if routes.flow_style:
        return f"{text[: first.index]}{_name(region)}: {written}, {text[first.index :]}"
    return f"{text[: first.index]}{_name(region)}: {written}\n{' ' * first.column}{text[first.index :]}"


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


def _rejected(file: str, node: yaml.Node | None, assistant: str, region: str) -> ConfigRejected:
    line, column = (node.start_mark.line + 1, node.start_mark.column + 1) if node is not None else (0, 0)
    message = f"the route of {quoted(assistant)} for {quoted(region)} can't be changed where it is written"
    path = ("assistants", assistant, "routes", region)
    return ConfigRejected([Problem(file, line, column, path, message, "write it out, without an alias")])
