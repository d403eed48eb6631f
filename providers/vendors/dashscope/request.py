"""Write requests in DashScope's native format, which has a request of its compatible mode in `input` and `parameters`.

The rules of the vendor's models are in `dashscope-compatible.toml`. Only what differs between the two is here.

Source: Alibaba Cloud Model Studio API reference (DashScope), its pages on structured output and deep thinking, and
dashscope 2.0.2 with the command line that it bundles; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from providers.adapter import Target
from providers.catalogue.models import ModelFacts
from providers.chat import ChatRequest
from providers.compatible.adapter import adapter_named
from providers.compatible.dialect import CompatibleDialect
from providers.compatible.request import encode_body as encode_compatible
from providers.failures import UnsupportedFeature
from providers.json_values import as_list, as_map, read_map
from providers.value import replace

_COMPATIBLE = "dashscope-compatible"
_ILLEGAL_TOOL_NAME = "search"
_THINKS = {"thinking", "thinking_default", "thinking_only"}


@cache
def _dialect() -> CompatibleDialect:
    """Return the dialect of the compatible mode without marks of caches: the native format has no place for them."""
    dialect = adapter_named(_COMPATIBLE).dialect
    return replace(dialect, requests=replace(dialect.requests, cache_marks=False))


def is_multimodal(facts: ModelFacts) -> bool:
    """Return whether the model uses the multimodal path, by the catalogue. An unknown model uses the text path."""
    return facts.api == "multimodal"


def encode_body(request: ChatRequest, target: Target) -> tuple[dict[str, object], bool, frozenset[str]]:
    """Return the body, whether a stream is requested, and what was changed to fit (`WireRequest.changed`).

    The request's extra parameters go into `parameters`. Values that the site pins are written last, at the top level. A
    stream is also requested for a model that only streams, and for one that thinks; the reader folds it if the client
    wants one JSON body. Raises UnsupportedFeature.
    """
    if any(tool.name == _ILLEGAL_TOOL_NAME for tool in request.tools):
        raise UnsupportedFeature("tools", f"DashScope refuses a tool named '{_ILLEGAL_TOOL_NAME}': rename it")
    if not target.facts.flags & _THINKS:
        request = replace(request, reasoning_effort=None)
    allowed = {name: value for name, value in request.extra.items() if name not in target.pins}
    plain = replace(target, pins={})
    body, changed = encode_compatible(replace(request, extra=allowed), plain, _dialect())
    model, messages, streams = body.pop("model"), as_list(body.pop("messages")), bool(body.pop("stream", False))
    body.pop("stream_options", None)
    parameters: dict[str, object] = {**body, "result_format": "message"}
    parameters.pop("incremental_output", None)
    if streams:
        # Without this parameter, each event repeats the whole text so far.
        parameters["incremental_output"] = True
    multimodal = is_multimodal(target.facts)
    written = [_message(as_map(message), multimodal) for message in messages]
    data = {"model": model, "input": {"messages": written}, "parameters": parameters, **target.pins}
    return data, streams, changed


def _message(message: Mapping[str, object], multimodal: bool) -> Mapping[str, object]:
    """Return a message with a text for the text path, or with a list of parts for the multimodal path."""
    content = message.get("content") or ""
    if not multimodal or message["role"] == "tool":
        if not isinstance(content, str):
            raise UnsupportedFeature("vision", "this model accepts only text, according to its `api` in the catalogue")
        return {**message, "content": content}
    # A blank text is an empty list, as in the provider's own answers: the multimodal path has no strings.
    said = (
        ([{"text": content}] if content or message["role"] != "assistant" else [])
        if isinstance(content, str)
        else content
    )
    return {**message, "content": [_part(as_map(part)) for part in as_list(said)]}


def _part(part: Mapping[str, object]) -> Mapping[str, object]:
    match part.get("type"):
        case "image_url":
            return {"image": read_map(part, "image_url").get("url")}
        case "input_audio":
            sound = read_map(part, "input_audio")
            return {"audio": str(sound.get("data")).replace("data:;", f"data:audio/{sound.get('format')};", 1)}
    return {"text": part.get("text")}
