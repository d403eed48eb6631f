"""Claude's own client tools, which a request names by a type, such as `bash_20250124`, and which the client runs.

Claude gets the type. Every other model gets a function with the same arguments. Source of the arguments: Anthropic's
pages of these tools, as @langchain/anthropic 1.3.3 has them (types); read 2026-11-27.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from providers.failures import UnsupportedFeature
from providers.json_values import as_map

_TYPE = re.compile(r"([a-z_]+_)\d{8}")


@cache
def _known() -> Mapping[str, Mapping[str, Any]]:
    tools: dict[str, Any] = json.loads(Path(__file__).with_name("client_tools.json").read_text("utf-8"))
    return tools


def has_type(tool: object) -> bool:
    """Return whether a tool is not an ordinary function, but one that Anthropic's API names by its type."""
    return as_map(tool).get("type") not in (None, "custom")


def as_function(tool: object, position: int) -> object:
    """Return a tool as a function. One of Claude's client tools has its definition for Claude as its `type`.

    Raises UnsupportedFeature if a provider runs the tool.
    """
    if not has_type(tool):
        return tool
    source = as_map(tool)
    kind = source["type"]
    known = _TYPE.fullmatch(kind) if isinstance(kind, str) else None
    if known is None or (form := _known().get(known[1])) is None:
        message = (
            f"tools.{position}: the gateway does not support the tool {str(kind)[:60]!r}, which a provider defines or "
            "runs; send a function with `name` and `input_schema`, and run it in your own app"
        )
        raise UnsupportedFeature("tools", message, f"tools.{position}.type")
    own, rest = {"type": kind}, dict(source)
    if type(source.get("max_characters")) is int:
        own["max_characters"] = rest.pop("max_characters")
    return {**rest, "description": form["description"], "input_schema": form["parameters"], "type": own}
