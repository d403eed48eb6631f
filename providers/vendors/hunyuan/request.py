"""Write requests in Hunyuan's native format, which is that of a compatible vendor in PascalCase, with schemas as text.

Source: Tencent Cloud API 3.0, hunyuan 2023-09-01, ChatCompletions, and tencentcloud-sdk-python-hunyuan 3.1.180, read
2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from providers.adapter import Target
from providers.catalogue import FactsFile
from providers.chat import AssistantMessage, ChatRequest, SystemMessage, UserMessage
from providers.compatible.dialect import CompatibleDialect, read_dialect
from providers.compatible.request import encode_body as encode_compatible
from providers.formats.tool_calls import FILLER_TEXT
from providers.json_values import as_list, as_map, dumps_text
from providers.value import replace

FACTS = FactsFile("providers.vendors.hunyuan", "hunyuan")
_MAX_SEED = 10000


@cache
def dialect() -> CompatibleDialect:
    """Return the differences of the native API from OpenAI's, apart from the names of its fields."""
    return read_dialect(as_map(FACTS.read()["dialect"]))


def encode_body(request: ChatRequest, target: Target) -> tuple[dict[str, object], frozenset[str]]:
    """Return the body, and what was changed to fit (`WireRequest.changed`). Raises UnsupportedFeature."""
    changes: dict[str, Any] = {"extra": {}}
    if "enable_thinking" not in target.facts.flags:
        changes["reasoning_effort"] = None
    if request.seed is not None and not 1 <= request.seed <= _MAX_SEED:
        # Any mapping will do if the same seed gives the same number.
        changes["seed"] = 1 + request.seed % _MAX_SEED
    if isinstance(next((m for m in request.messages if not isinstance(m, SystemMessage)), None), AssistantMessage):
        # The first turn must be the user's, but a conversation may begin with the assistant's greeting.
        at = next(i for i, message in enumerate(request.messages) if isinstance(message, AssistantMessage))
        changes["messages"] = (*request.messages[:at], UserMessage(FILLER_TEXT), *request.messages[at:])
    body, changed = encode_compatible(replace(request, **changes), replace(target, pins={}), dialect())
    plain: dict[str, Any] = body
    plain["messages"] = [_message(as_map(message)) for message in as_list(plain["messages"])]
    tools = {tool["function"]["name"]: _tool(tool["function"]) for tool in plain.get("tools", ())}
    if tools:
        plain["tools"] = list(tools.values())
    if isinstance(choice := plain.get("tool_choice"), dict):
        plain |= {"tool_choice": "custom", "custom_tool": tools[choice["function"]["name"]]}
    return {"Stream": False, **as_map(_in_pascal_case(plain)), **request.extra, **target.pins}, changed


def _in_pascal_case(value: object) -> object:
    """Return the value with the names of the native API: `tool_calls` is `ToolCalls`."""
    if isinstance(value, dict):
        return {_pascal(name): _in_pascal_case(member) for name, member in value.items()}
    return [_in_pascal_case(member) for member in value] if isinstance(value, list) else value


def _pascal(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _tool(function: Mapping[str, object]) -> dict[str, object]:
    return {"type": "function", "function": {**function, "parameters": dumps_text(function["parameters"])}}


def _message(message: Mapping[str, object]) -> dict[str, object]:
    changed = dict(message)
    if isinstance(parts := changed.get("content"), list):
        del changed["content"]
        # The vendor refuses images without a text.
        is_told = any(as_map(part).get("type") == "text" for part in parts)
        changed["contents"] = parts if is_told else [*parts, {"type": "text", "text": " "}]
    if calls := as_list(message.get("tool_calls")):
        changed["tool_calls"] = [{**as_map(call), "index": index} for index, call in enumerate(calls)]
    return changed
