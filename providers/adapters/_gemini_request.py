"""`ChatRequest` -> the body of Gemini's `generateContent`.

Source: google-genai 3.3.0 (GenerateContentConfig and its converter for the Developer API), ai.google.dev on thinking
and structured output; read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import assert_never

from providers.adapter import Target
from providers.adapters._efforts import nearest_effort
from providers.adapters._gemini_contents import Replay, contents_of, system_parts
from providers.chat import AllowedTools, ChatRequest, JsonObjectFormat, JsonSchemaFormat, NamedTool, Tool, ToolChoice
from providers.failures import UnsupportedFeature
from providers.json_values import as_map

__all__ = ["encode_body"]

_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_OURS = frozenset({"contents", "systemInstruction", "toolConfig"})
_MAX_SEED = 2**31 - 1
# Above 0, as google-genai's types have it.
_LEAST_TEMPERATURE = 0.01
_LEVELS = ("minimal", "low", "medium", "high", "xhigh")
# Tokens, as Google's own OpenAI-compatible layer sets them for 2.5; 0 switches thinking off.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}


def encode_body(request: ChatRequest, target: Target, bypass: str) -> dict[str, object]:
    """The body, with what the site pins written last; raises UnsupportedFeature."""
    if clash := sorted(_OURS & request.extra.keys()):
        raise UnsupportedFeature(clash[0], f"{clash[0]!r} is made of the messages and tools; it can't be sent besides")
    body: dict[str, object] = {
        name: value for name, value in request.extra.items() if name not in ("top_k", "generationConfig")
    }
    replay = Replay(target.model, "call_ids" in target.facts.flags, bypass)
    if system := system_parts(request.messages):
        body["systemInstruction"] = {"parts": system}
    body["contents"] = contents_of(request.messages, replay)
    if request.tools:
        body["tools"] = [{"functionDeclarations": _declarations(request.tools)}]
        if request.tool_choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _calling(request.tool_choice)}
    if config := _generation_config(request, target):
        body["generationConfig"] = config
    body.update(target.pins)
    return body


def _declarations(tools: Sequence[Tool]) -> list[dict[str, object]]:
    declarations: list[dict[str, object]] = []
    for position, tool in enumerate(tools):
        if not _FUNCTION_NAME.fullmatch(tool.name):
            message = f"tools[{position}]: Gemini takes function names that begin with a letter or '_' only"
            raise UnsupportedFeature("tools", message)
        declaration: dict[str, object] = {"name": tool.name}
        if tool.description:
            declaration["description"] = tool.description
        if tool.parameters is not None:
            declaration["parametersJsonSchema"] = tool.parameters
        declarations.append(declaration)
    return declarations


def _calling(choice: ToolChoice) -> dict[str, object]:
    match choice:
        case NamedTool(name):
            return {"mode": "ANY", "allowedFunctionNames": [name]}
        case AllowedTools(mode, names):
            # AUTO takes no names; VALIDATED is AUTO with names, and holds the calls to their schemas.
            return {"mode": "ANY" if mode == "required" else "VALIDATED", "allowedFunctionNames": list(names)}
        case "auto":
            return {"mode": "AUTO"}
        case "none":
            return {"mode": "NONE"}
        case "required":
            return {"mode": "ANY"}
        case _:
            assert_never(choice)


def _generation_config(request: ChatRequest, target: Target) -> dict[str, object]:
    """What an operator lets through (`passthrough: [generationConfig]`), and over it what the request says."""
    said: dict[str, object] = {
        "temperature": None if request.temperature is None else max(request.temperature, _LEAST_TEMPERATURE),
        "topP": request.top_p,
        "topK": request.extra.get("top_k"),
        # One choice is the default, and newer models refuse the field.
        "candidateCount": request.n if request.n is not None and request.n > 1 else None,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        # 32 bits with a sign; any number is as good as another.
        "seed": None if request.seed is None else request.seed & _MAX_SEED,
        "responseLogprobs": request.logprobs or None,
        "logprobs": (request.top_logprobs or None) if request.logprobs else None,
    }
    match request.response_format:
        case None:
            pass
        case JsonObjectFormat():
            said["responseMimeType"] = "application/json"
        case JsonSchemaFormat(_, schema):
            said["responseMimeType"] = "application/json"
            said["responseJsonSchema"] = schema
        case _:
            assert_never(request.response_format)
    if request.reasoning_effort is not None:
        said["thinkingConfig"] = _thinking(request.reasoning_effort, target)
    config = dict(as_map(request.extra.get("generationConfig")))
    config.update({name: value for name, value in said.items() if value is not None})
    return config


def _thinking(wanted: str, target: Target) -> dict[str, object]:
    """The effort as a level, or for 2.5 as a budget of tokens; thoughts are shown unless none were wanted."""
    effort = nearest_effort(wanted, target.facts.efforts or _LEVELS)
    config: dict[str, object] = (
        {"thinkingBudget": _BUDGETS[effort]}
        if "thinking_budget" in target.facts.flags
        else {"thinkingLevel": effort.upper()}
    )
    if wanted != "none" and "reasoning" in target.facts.features:
        config["includeThoughts"] = True
    return config
