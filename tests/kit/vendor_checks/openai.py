"""Rules of OpenAI that the types of its client do not express: the parameters of each model, and the order of items.

Source: captured 400 bodies of 2025 and 2026, read 2026-11-20.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence

from providers.json_values import as_list, as_map, read_list, read_map, read_str
from providers.vendors.openai.responses_simulator import sealed

_REASONS = re.compile(r"(gpt-(?P<major>\d+)(\.(?P<minor>\d+))?|o\d)(?![\w.])")
_TAKES_NO_STOP = re.compile(r"(o3|o4-mini|gpt-5|gpt-5-mini|gpt-5-nano|gpt-5\.2|gpt-6-astra)(?![\w.])")
# The efforts of a family of models. The first pattern that matches the start of the name applies.
_EFFORTS = (
    (re.compile(r"o\d"), "low medium high"),
    (re.compile(r"gpt-6-astra"), "low medium high xhigh max"),
    (re.compile(r"gpt-5\.1(?!\d)"), "none low medium high"),
    (re.compile(r"gpt-5\.[2-5](?!\d)"), "none low medium high xhigh"),
    (re.compile(r"gpt-5(?![.\d])"), "minimal low medium high"),
    (re.compile(r"gpt-"), "none low medium high xhigh max"),
)
_DEFAULTS: Mapping[str, object] = {
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
}
_KEPT_ELSEWHERE = ("background", "conversation", "previous_response_id", "prompt")
_PHASES = ("commentary", "final_answer")
_LEAST_TOKENS = 16
_MOST_ID_CHARACTERS = 64


def chat_errors(body: Mapping[str, object]) -> Iterator[str]:
    """Yield an error for each rule of chat completions that the request breaks."""
    if not body.get("tools"):
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) is not None:
                yield f"{name}: only allowed when 'tools' are specified"
    yield from _model_errors(body)


def _model_errors(body: Mapping[str, object]) -> Iterator[str]:
    """Yield the parameters that this family of models refuses, though the API has them."""
    model = str(body.get("model"))
    family = _REASONS.match(model)
    major, minor = (int(family[name] or 0) for name in ("major", "minor")) if family else (0, 0)
    effort = body.get("reasoning_effort")
    if family is None or not (major >= 5 or model.startswith("o")):
        if effort is not None and model.startswith(("gpt-", "chatgpt-")):
            yield "reasoning_effort: not supported with this model"
        return
    if body.get("max_tokens") is not None:
        yield "max_tokens: not supported with this model, use 'max_completion_tokens'"
    if body.get("stop") is not None and _TAKES_NO_STOP.match(model):
        yield "stop: not supported with this model"
    for name, default in _DEFAULTS.items():
        if body.get(name) not in (None, default):
            yield f"{name}: {body[name]} is not supported with this model"
    efforts = next(words.split() for beginning, words in _EFFORTS if beginning.match(model))
    if effort is not None and effort not in efforts:
        yield f"reasoning_effort: '{effort}' is not supported with this model"
    thinks = effort != "none" if (major, minor) >= (5, 6) else effort not in (None, "none")
    if body.get("tools") and (major, minor) >= (5, 4) and thinks:
        yield "reasoning_effort: not supported with function tools in /v1/chat/completions"


# --- the Responses API ----------------------------------------------------------------------------


def responses_errors(body: Mapping[str, object]) -> Iterator[str]:
    """Yield an error for each rule of the Responses API that the request breaks."""
    model, effort = str(body.get("model")), read_map(body, "reasoning").get("effort")
    tuning = {name: body.get(name) for name in ("model", "temperature", "top_p")}
    yield from _model_errors({**tuning, "reasoning_effort": effort})
    for name in _KEPT_ELSEWHERE:
        if body.get(name):
            yield f"{name}: refers to data stored by the vendor"
    if not body.get("tools") and body.get("tool_choice") not in (None, "auto", "none"):
        yield "tool_choice: only allowed when 'tools' are specified"
    for position, tool in enumerate(read_list(body, "tools")):
        if as_map(tool).get("type") != "function":
            yield f"tools[{position}].type: the gateway sends only functions"
    most = body.get("max_output_tokens")
    if isinstance(most, int) and most < _LEAST_TOKENS:
        yield f"max_output_tokens: below {_LEAST_TOKENS}"
    items = [as_map(item) for item in read_list(body, "input")]
    if not items and not read_str(body, "input"):
        yield "input: Missing required parameter"
    for position, item in enumerate(items):
        if item.get("type") in ("message", None):
            yield from _message_errors(item, f"input[{position}]")
    yield from _call_errors(items)
    yield from _thought_errors(items, model)


def _message_errors(item: Mapping[str, object], place: str) -> Iterator[str]:
    """Yield a phase or a kind of part that belongs to another role."""
    is_assistant = item.get("role") == "assistant"
    if item.get("phase") not in (_PHASES if is_assistant else (None,)):
        yield f"{place}.phase: {item.get('phase')!r}; only an assistant's message has a phase"
    for part in as_list(item.get("content")):
        if (as_map(part).get("type") in ("output_text", "refusal")) != is_assistant:
            yield f"{place}.content: {as_map(part).get('type')!r} is not a part of this role"


def _call_errors(items: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """Yield calls without an output, and outputs without a call or with another output before them."""
    waiting, answered = set[str](), set[str]()
    for position, item in enumerate(items):
        call_id = read_str(item, "call_id") or ""
        if item.get("type") == "function_call":
            waiting.add(call_id)
            if not call_id or not item.get("name") or len(call_id) > _MOST_ID_CHARACTERS:
                yield f"input[{position}].call_id: a call needs a name and an id of at most 64 characters"
        elif item.get("type") == "function_call_output":
            if call_id in answered:
                yield f"input[{position}]: Duplicate function_call_output for call_id {call_id!r}"
            elif call_id not in waiting:
                yield f"input[{position}]: No tool call found for function call output {call_id!r}"
            waiting.discard(call_id)
            answered.add(call_id)
    if waiting:
        yield f"input: No tool output found for function call {min(waiting)}"


def _thought_errors(items: Sequence[Mapping[str, object]], model: str) -> Iterator[str]:
    """Yield reasoning items that are returned without encrypted content, encrypted for another model, or without the
    item that followed.
    """
    for position, item in enumerate(items):
        after = items[position + 1] if position + 1 < len(items) else {}
        if item.get("type") != "reasoning":
            continue
        name, seal = read_str(item, "id") or "", read_str(item, "encrypted_content")
        if not name.startswith("rs_"):
            yield f"input[{position}].id: {name!r} is not the id of a thought"
        if not seal:
            yield f"input[{position}]: Item with id {name!r} not found; items are not persisted"
        elif not _is_seal_of(seal, model, name):
            yield f"input[{position}].encrypted_content: could not be verified"
        if after.get("type") not in ("reasoning", "function_call") and after.get("role") != "assistant":
            yield f"input[{position}]: 'reasoning' was provided without its required following item"


def _is_seal_of(seal: str, model: str, thought_id: str) -> bool:
    """Return whether the simulated model encrypted this item. Content that no simulator wrote is accepted."""
    try:
        content = base64.b64decode(seal, altchars=b"-_", validate=True)
    except ValueError:
        return False
    return bool(content) and (not content.startswith(b"simulated thought of ") or seal == sealed(model, thought_id))
