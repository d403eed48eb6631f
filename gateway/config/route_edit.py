"""Edit one route in the text of a configuration, and leave everything else, including comments, unchanged."""

from __future__ import annotations

import json
from typing import Any

import yaml

from gateway.config.problems import ConfigRejected, Problem, quoted
from gateway.config.yaml_document import scalar


def with_route(text: str, file: str, assistant: str, region: str, steps: list[str]) -> str:
    """Return the text with these steps as the route of an assistant (a name, not an alias) for a region.

    Comments inside the old route are lost. Raises ConfigRejected for a route that cannot be edited, such as an alias.
    """
    path = ("assistants", assistant, "routes", region)
    message = f"the route of {quoted(assistant)} for {quoted(region)} can't be edited in its present form"
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    routes = _at(_at(_at(root, "assistants"), assistant), "routes")
    written = f"[{', '.join(map(scalar, steps))}]"
    route = _at(routes, region)
    if route is not None:
        if route.start_mark.index == route.end_mark.index or text[route.start_mark.index] in "*&":
            raise _rejected(file, route, path, message)
        if _is_at_key_column(routes, route):
            # A flow sequence must be indented more than its key, so the new route is a block like the old one.
            written = f"\n{' ' * route.start_mark.column}".join(f"- {scalar(step)}" for step in steps)
        return text[: route.start_mark.index] + written + text[_end(route) :]
    if not isinstance(routes, yaml.MappingNode) or not routes.value:
        raise _rejected(file, routes, path, message)
    first = routes.value[0][0].start_mark
    if routes.flow_style:
        return f"{text[: first.index]}{scalar(region)}: {written}, {text[first.index :]}"
    return f"{text[: first.index]}{scalar(region)}: {written}\n{' ' * first.column}{text[first.index :]}"


def without_schedule(text: str, file: str, assistant: str, region: str) -> str:
    """Return the text without the schedule of the route. Raises ConfigRejected if it cannot be edited.

    A schedule belongs to a weighted first step, and the new route may begin with another step.
    """
    holder = _at(_at(yaml.compose(text, Loader=yaml.SafeLoader), "assistants"), assistant)
    schedules = _at(holder, "schedules")
    if not isinstance(holder, yaml.MappingNode) or not isinstance(schedules, yaml.MappingNode):
        return text
    if (schedule := _at(schedules, region)) is None:
        return text
    changed = _cut(text, holder, "schedules") if len(schedules.value) == 1 else _cut(text, schedules, region)
    expected = _read(text)
    section = expected["assistants"][assistant]
    del section["schedules"][region]
    if not section["schedules"]:
        del section["schedules"]
    # Aliases and anchors may be anywhere, so the result is compared with the expected values.
    if _read(changed) != expected:
        message = f"the schedule of {quoted(assistant)} for {quoted(region)} can't be removed in its present form"
        raise _rejected(file, schedule, ("assistants", assistant, "schedules", region), message)
    return changed


def _cut(text: str, mapping: yaml.MappingNode, key: str) -> str:
    """Return the text without one entry of a mapping: its lines in block style, or the entry and its comma."""
    starts = [name.start_mark.index for name, _ in mapping.value]
    index = next(number for number, (name, _) in enumerate(mapping.value) if name.value == key)
    start, end = starts[index], _end(mapping.value[index][1])
    if not mapping.flow_style:
        line_end = text.find("\n", end)
        return text[: text.rfind("\n", 0, start) + 1] + (text[line_end + 1 :] if line_end >= 0 else "")
    if index + 1 < len(starts):
        return text[:start] + text[starts[index + 1] :]
    return text[: _end(mapping.value[index - 1][1]) if index else start] + text[end:]


def _end(node: yaml.Node) -> int:
    """Return the index where the node's text ends. The end mark of a block is after its last line break."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _read(text: str) -> Any:
    """Return the values as texts, with a copy for each alias, or None if the text is not valid YAML."""
    try:
        return json.loads(json.dumps(yaml.load(text, Loader=yaml.BaseLoader)))  # noqa: S506  # BaseLoader creates only texts
    except yaml.YAMLError:
        return None


def _is_at_key_column(routes: yaml.Node | None, route: yaml.Node) -> bool:
    """Return whether the route is a list whose dashes are below the first letter of its key, as PyYAML writes it."""
    keys = routes.value if isinstance(routes, yaml.MappingNode) else []
    own = (key for key, value in keys if value is route)
    is_block = isinstance(route, yaml.SequenceNode) and not route.flow_style
    return is_block and any(key.start_mark.column == route.start_mark.column for key in own)


def _at(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if isinstance(name, yaml.ScalarNode) and name.value == key), None)


def _rejected(file: str, node: yaml.Node | None, path: tuple[str, ...], message: str) -> ConfigRejected:
    line, column = (node.start_mark.line + 1, node.start_mark.column + 1) if node is not None else (0, 0)
    return ConfigRejected([Problem(file, line, column, path, message, "write it out, without an alias")])
