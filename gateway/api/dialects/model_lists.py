"""The list of assistants, in the form of the API that asks: OpenAI's, Anthropic's or Gemini's.

OpenAI's form has OpenRouter's members too, because its clients read there what a model takes and returns.
Source: openai 3.51 (Model), anthropic 2.12 (ModelInfo), google-genai 3.4 (Model, ListModelsResponse), read 2026-11-22;
openrouter.ai/docs/guides/overview/models (Architecture Object, Supported Parameters), read 2026-11-27.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from gateway.api.errors import ApiError
from gateway.model.served import INPUTS, USES, Use
from gateway.model.units import at_second
from gateway.service.capabilities import Offer
from providers.matching.requirements import INNER_PARAMETERS, PARAMETERS

ListForm = Literal["chat", "messages", "generate"]
_METHODS: Mapping[Use, tuple[str, ...]] = {
    "chat": ("generateContent", "streamGenerateContent", "countTokens"),
    **{use: row.methods for use, row in INPUTS.items()},
}
"""The methods of Gemini's API that work for each use."""
_OUTPUTS: Mapping[Use, str] = {"chat": "text", **{use: row.output for use, row in INPUTS.items() if row.output}}
"""OpenRouter's name of what each use returns. It has none for verdicts."""
_INPUTS = {"vision": "image", "file": "file", "audio": "audio"}
_ALSO_SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "tools": ("tools",),
    "tool_choice_required": ("tool_choice",),
    "json_object": ("response_format",),
    "json_schema": ("response_format", "structured_outputs"),
    "logprobs": ("logprobs", "top_logprobs"),
    "reasoning": ("reasoning", "include_reasoning"),
}
"""OpenRouter's names of parameters that are features here. Those of the other parameters are the same."""
_LIMITS: Mapping[ListForm, tuple[str, str]] = {
    "chat": ("context_length", "max_output_tokens"),
    "messages": ("max_input_tokens", "max_tokens"),
    "generate": ("inputTokenLimit", "outputTokenLimit"),
}

# Assistants have no creation time. This value is the same in every worker and after every start (2026-11-20, UTC).
_CREATED = 1_795_132_800
_CREATED_AT = at_second(_CREATED)
_MOST_LISTED = 1000
_USUAL_OF_ANTHROPIC = 20
_USUAL_OF_GEMINI = 50


def form_of(path: str, headers: Mapping[bytes, bytes]) -> ListForm:
    """Return the form in which a request with these headers, by lower-case name, gets a list of models."""
    if path.startswith("/v1beta/") or b"x-goog-api-key" in headers:
        return "generate"
    return "messages" if b"anthropic-version" in headers else "chat"


def encode_list(form: ListForm, offers: Mapping[str, Offer], query: Mapping[str, str]) -> dict[str, object]:
    """Return the list of these assistants, or the page of it that the query asks for. Raises ApiError."""
    entries: list[object]
    names = [*offers]
    match form:
        case "chat":
            return {"object": "list", "data": [encode_model(form, name, offers[name]) for name in names]}
        case "messages":
            start, end = _anthropic_page(names, query)
            page = names[start:end]
            entries = [encode_model(form, name, offers[name]) for name in page]
            first, last = (page[0], page[-1]) if page else (None, None)
            is_backwards = "before_id" in query
            has_more = start > 0 if is_backwards else end < len(names)
            return {"data": entries, "has_more": has_more, "first_id": first, "last_id": last}
        case "generate":
            start = _number(query, "pageToken", 0, 0)
            end = start + _number(query, "pageSize", _USUAL_OF_GEMINI, 1)
            body: dict[str, object] = {"models": [encode_model(form, name, offers[name]) for name in names[start:end]]}
            return {**body, "nextPageToken": str(end)} if end < len(names) else body


def encode_model(form: ListForm, name: str, offer: Offer) -> dict[str, object]:
    """Return one entry of a list, with its methods and the limits of its tokens where the form has them."""
    known = zip(_LIMITS[form], (offer.prompt_tokens, offer.answer_tokens), strict=True)
    limits = {field: limit for field, limit in known if limit is not None}
    match form:
        case "chat":
            serves = [use for use in USES if use in offer.uses]
            entry = {"id": name, "object": "model", "created": _CREATED, "owned_by": "gateway"}
            return {**entry, **limits, **_openrouter_members(offer), "x_gateway": {"serves": serves}}
        case "messages":
            return {
                "type": "model",
                "id": name,
                "display_name": name,
                "created_at": _CREATED_AT,
                "lifecycle": "active",
                **limits,
            }
        case "generate":
            methods = [method for use in _METHODS if use in offer.uses for method in _METHODS[use]]
            return {
                "name": f"models/{name}",
                "baseModelId": name,
                "version": "1",
                "displayName": name,
                "supportedGenerationMethods": methods,
                **limits,
            }


def _openrouter_members(offer: Offer) -> dict[str, object]:
    """Return what an assistant takes and returns, as OpenRouter's list states it."""
    taken = offer.features.union(*(row.media for use, row in INPUTS.items() if use in offer.uses))
    inputs = [name for feature, name in _INPUTS.items() if feature in taken]
    # Each name once: an assistant may answer and transcribe, which both return text.
    returned = dict.fromkeys(name for use, name in _OUTPUTS.items() if use in offer.uses)
    names = [name for feature in offer.features for name in _ALSO_SUPPORTED.get(feature, ())]
    limits = {"context_length": offer.prompt_tokens, "max_completion_tokens": offer.answer_tokens}
    known = {name: limit for name, limit in limits.items() if limit is not None}
    return {
        **({"top_provider": known} if known else {}),
        "architecture": {"input_modalities": ["text", *inputs], "output_modalities": [*returned]},
        "supported_parameters": sorted({*((offer.parameters & PARAMETERS) - INNER_PARAMETERS), *names}),
    }


def _anthropic_page(names: Sequence[str], query: Mapping[str, str]) -> tuple[int, int]:
    """Return where the page begins and ends."""
    limit = _number(query, "limit", _USUAL_OF_ANTHROPIC, 1)
    if (after := query.get("after_id")) is not None:
        start = _position(names, after, "after_id") + 1
        return start, min(start + limit, len(names))
    if (before := query.get("before_id")) is not None:
        end = _position(names, before, "before_id")
        return max(0, end - limit), end
    return 0, min(limit, len(names))


def _position(names: Sequence[str], name: str, param: str) -> int:
    if name not in names:
        raise ApiError("invalid_request", f"{param}: there is no such model in the list", param)
    return names.index(name)


def _number(query: Mapping[str, str], name: str, default: int, least: int) -> int:
    given = query.get(name)
    if given is None or given == "":
        return default
    if not given.isdecimal() or len(given) > 6 or int(given) < least:
        raise ApiError("invalid_request", f"{name}: Input should be a whole number from {least} on", name)
    return min(int(given), _MOST_LISTED) if least else int(given)
