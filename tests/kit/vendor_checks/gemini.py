"""Rules of Gemini that the types of its client do not express: the order of turns, and the features that a model lacks.

Source: public captures of 400 bodies about turns, calls, results and thought signatures; read 2026-11-20.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence

from providers.catalogue.models import ModelFacts
from providers.json_values import as_map, read_float, read_list, read_map, read_str
from providers.vendors.gemini.simulator_request import signature_of

_PART_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
_BYPASS = "skip_thought_signature_validator"
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_BOUNDS = {
    "maxOutputTokens": (1, 2**31 - 1),
    "temperature": (0, 2),
    "topP": (0, 1),
    "presencePenalty": (-2, 2),
    "frequencyPenalty": (-2, 2),
    "seed": (-(2**63), 2**63 - 1),
    "candidateCount": (1, 8),
    "logprobs": (0, 20),
}
_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
_MIME_TYPES = (None, "text/plain", "application/json", "text/x.enum")
_MOST_STOPS = 5
_MOST_BUDGET = 32768
# The largest budget of thinking tokens for each effort.
_BUDGETS = ((0, "none"), (1024, "low"), (8192, "medium"))

_Part = Mapping[str, object]


def generate_errors(body: Mapping[str, object], model: str, facts: ModelFacts) -> Iterator[str]:
    """Yield an error for each rule of generateContent that the request breaks."""
    config = read_map(body, "generationConfig")
    yield from _config_errors(config, facts)
    yield from _thinking_errors(read_map(config, "thinkingConfig"), facts)
    yield from _tool_errors(body)
    if body.get("systemInstruction") is not None:
        parts = [as_map(part) for part in read_list(read_map(body, "systemInstruction"), "parts")]
        if not parts or not all(read_str(part, "text") for part in parts):
            yield "systemInstruction: parts must be non-empty texts"
    yield from _turn_errors(body, model, facts)


def _config_errors(config: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    for name, (low, high) in _BOUNDS.items():
        if (value := read_float(config, name)) is not None and not low <= value <= high:
            yield f"generationConfig.{name}: must be between {low} and {high}"
    for parameter, name in _SAMPLING.items():
        ignored = (None, 0) if parameter.endswith("penalty") else (None,)
        if parameter in facts.without and config.get(name) not in ignored:
            yield f"generationConfig.{name}: not enabled for this model"
    for feature, name in (("n", "candidateCount"), ("logprobs", "responseLogprobs")):
        if feature not in facts.features and config.get(name) is not None:
            yield f"generationConfig.{name}: not enabled for this model"
    if config.get("logprobs") is not None and config.get("responseLogprobs") is not True:
        yield "generationConfig.logprobs: needs responseLogprobs"
    stops = read_list(config, "stopSequences")
    if len(stops) > _MOST_STOPS or "" in stops:
        yield f"generationConfig.stopSequences: at most {_MOST_STOPS}, none of them empty"
    mime = config.get("responseMimeType")
    if mime not in _MIME_TYPES:
        yield f"generationConfig.responseMimeType: unknown type {mime!r}"
    schemas = [name for name in ("responseSchema", "responseJsonSchema") if config.get(name) is not None]
    if len(schemas) > 1 or (schemas and mime not in ("application/json", "text/x.enum")):
        yield f"generationConfig: {' and '.join(schemas)} need one schema and the mime type application/json"


def _thinking_errors(thinking: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    place, by_budget = "generationConfig.thinkingConfig", "thinking_budget" in facts.flags
    level, budget = thinking.get("thinkingLevel"), read_float(thinking, "thinkingBudget")
    if thinking and not facts.efforts:
        yield f"{place}: thinking is not enabled for this model"
    if (level is not None and by_budget) or (budget is not None and not by_budget):
        yield f"{place}: this model uses a thinking {'budget' if by_budget else 'level'}"
    if level is not None and level not in [effort.upper() for effort in facts.efforts]:
        yield f"{place}.thinkingLevel: {level!r} is not a level of this model"
    if budget is not None and not -1 <= budget <= _MOST_BUDGET:
        yield f"{place}.thinkingBudget: must be between -1 and {_MOST_BUDGET}"
    if budget is not None and budget >= 0:
        effort = next((effort for limit, effort in _BUDGETS if budget <= limit), "high")
        if effort not in facts.efforts:
            yield f"{place}.thinkingBudget: {budget:g} is invalid, this model only works in thinking mode"


def _tool_errors(body: Mapping[str, object]) -> Iterator[str]:
    groups = [as_map(group) for group in read_list(body, "tools")]
    if any(group.keys() != {"functionDeclarations"} for group in groups):
        yield "tools: the gateway sends only functions"
    tools = [as_map(tool) for group in groups for tool in read_list(group, "functionDeclarations")]
    names = [read_str(tool, "name") or "" for tool in tools]
    if len(set(names)) < len(names):
        yield "tools: Duplicate function declaration found"
    if not all(_FUNCTION_NAME.fullmatch(name) for name in names):
        yield "tools: Invalid function name. Must start with a letter or an underscore"
    if any("parameters" in tool and "parametersJsonSchema" in tool for tool in tools):
        yield "tools: parameters and parametersJsonSchema exclude each other"
    if body.get("toolConfig") is None:
        return
    config = read_map(read_map(body, "toolConfig"), "functionCallingConfig")
    allowed = read_list(config, "allowedFunctionNames")
    if config.get("mode") not in ("AUTO", "ANY", "NONE", "VALIDATED"):
        yield "toolConfig: the mode is missing or unknown"
    if not tools:
        yield "toolConfig: Function calling config is set without function_declarations"
    if allowed and config.get("mode") in ("AUTO", "NONE"):
        yield "toolConfig: allowedFunctionNames are only allowed with the modes ANY and VALIDATED"
    if not set(allowed) <= set(names):
        yield "toolConfig: allowedFunctionNames has an undeclared name"


# --- turns ----------------------------------------------------------------------------------------


def _turn_errors(body: Mapping[str, object], model: str, facts: ModelFacts) -> Iterator[str]:
    contents = [as_map(content) for content in read_list(body, "contents")]
    if not contents:
        yield "contents: contents is not specified"
        return
    has_ids = "call_ids" in facts.flags
    calls: list[_Part] = []
    for position, content in enumerate(contents):
        place, role = f"contents[{position}]", content.get("role")
        parts = [as_map(part) for part in read_list(content, "parts")]
        if role not in ("user", "model"):
            yield f"{place}.role: {role!r} is not user or model"
        if not parts:
            yield f"{place}.parts: must not be empty"
        for part in parts:
            yield from _part_errors(part, place, is_model=role == "model")
        results = [read_map(part, "functionResponse") for part in parts if "functionResponse" in part]
        if results and len(results) != len(parts):
            yield f"{place}: function responses must not be mixed with other parts"
        yield from _result_errors(results, calls, place, has_ids=has_ids)
        called = [part for part in parts if "functionCall" in part]
        calls = [read_map(part, "functionCall") for part in called]
        if calls and position == 0:
            yield f"{place}: a function call turn comes immediately after a user turn or a function response turn"
        yield from _call_errors(called, model, place, has_ids=has_ids)
        if has_ids and called and not read_str(called[0], "thoughtSignature"):
            yield f"{place}: Function call is missing a thought_signature in functionCall parts"
    if contents[-1].get("role") == "model" and (calls or "prefill" not in facts.features):
        yield "contents: requests ending with a model turn are not supported for this model"
    links = [read_map(as_map(part), "fileData") for content in contents for part in read_list(content, "parts")]
    for link in links:
        if link and not (
            "image_url" in facts.features and str(link.get("fileUri")).lower().startswith(("https:", "http:"))
        ):
            yield "contents: Invalid or unsupported file uri"


def _part_errors(part: _Part, place: str, *, is_model: bool) -> Iterator[str]:
    kinds = [kind for kind in _PART_KINDS if part.get(kind) is not None]
    if len(kinds) != 1:
        yield f"{place}: required oneof field 'data' must have one initialized field"
        return
    (kind,) = kinds
    if kind not in (("text", "functionCall") if is_model else ("text", "inlineData", "fileData", "functionResponse")):
        yield f"{place}: {kind} is not a part of this turn"
    if kind == "text" and not part["text"]:
        yield f"{place}: Unable to submit request because it has an empty text parameter"
    blob = read_map(part, "inlineData")
    if blob and not (read_str(blob, "mimeType") and _bytes(read_str(blob, "data"))):
        yield f"{place}: inlineData needs mimeType and data in base64"
    if kind == "functionResponse" and not isinstance(read_map(part, kind).get("response"), dict):
        yield f"{place}: functionResponse.response must be an object"


def _result_errors(results: Sequence[_Part], calls: Sequence[_Part], place: str, *, has_ids: bool) -> Iterator[str]:
    """Yield results that do not match the calls of the previous turn, by id and name or by name alone."""
    members = ("id", "name") if has_ids else ("name",)
    wanted, got = ([tuple(str(one.get(name)) for name in members) for one in some] for some in (calls, results))
    if sorted(wanted) != sorted(got):
        yield f"{place}: the function response parts must match the function call parts before them, one for one"
    # Models since Gemini 3, whose calls have ids, accept media in a result.
    known = {*members, "response", "parts"} if has_ids else {*members, "response"}
    if any(result.keys() - known for result in results):
        yield f"{place}: functionResponse has a field that this model does not know"


def _call_errors(called: Sequence[_Part], model: str, place: str, *, has_ids: bool) -> Iterator[str]:
    for part in called:
        call, signature = read_map(part, "functionCall"), read_str(part, "thoughtSignature")
        if not read_str(call, "name"):
            yield f"{place}: functionCall.name: Name cannot be empty"
        if has_ids != bool(call.get("id")):
            yield f"{place}: the function call {'is missing an id' if has_ids else 'has an id'}"
        if signature is not None and not _is_signature_of(signature, model):
            yield f"{place}: Thought signature is not valid"


def _is_signature_of(signature: str, model: str) -> bool:
    """Return whether this model signed the call. A signature that no simulator wrote, or the bypass, is accepted."""
    if signature == _BYPASS:
        return True
    content = _bytes(signature)
    return bool(content) and (not content.startswith(b"simulated thought of ") or signature == signature_of(model))


def _bytes(text: str | None) -> bytes:
    """Return the bytes of a field in base64, in either alphabet and with or without padding. Empty if it is not."""
    encoded = (text or "").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, binascii.Error):
        return b""
