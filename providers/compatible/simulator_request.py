"""Check and read a request as a compatible vendor does. It is as strict as the vendor is, or may be.

The messages imitate those of vendors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from providers.catalogue.models import ModelFacts
from providers.compatible.dialect import CompatibleDialect, Requests, Thinking
from providers.json_values import as_list, as_map, read_list, read_map, read_str
from providers.matching.requirements import CACHE_CONTROL
from providers.testkit.request_checks import find_alternation_error

_MESSAGE_FIELDS = {
    "system": {"role", "content"},
    "developer": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
_PARTS = {"document_url": "file", "image_url": "vision", "input_audio": "audio", "file": "file"}
_NO_FIELDS = frozenset({"reasoning_effort", "strict_tools", "message_name", "image_detail"})
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_SOUND_URI = "data:;base64,"
_WITH_FEATURES = {
    "tools": ("tools", "tool_choice"),
    "json_object": ("response_format",),
    "json_schema": ("response_format",),
    "n": ("n",),
    "logprobs": ("logprobs", "top_logprobs"),
}


def objections(body: Mapping[str, object], dialect: CompatibleDialect, facts: ModelFacts, path: str) -> Iterator[str]:
    """Yield a message for each rule of the vendor that a parsed body breaks, in the order of the checks."""
    able = dialect.native & facts.features
    known = _fields(dialect)
    yield from (f"{name}: Extra inputs are not permitted" for name in body if name not in known)
    for name in facts.without:
        if (field := _field_of(name, dialect)) in body and field not in dialect.requests.constants:
            yield f"{field} is not supported by this model"
    yield from _about_numbers(body, dialect)
    yield from _about_messages(body, dialect, able, facts)
    yield from _about_tools(body, dialect, able)
    kind = read_str(read_map(body, "response_format"), "type")
    if kind not in (None, "text") and kind not in able:
        yield f"response_format {kind!r} is not supported"
    if kind == "json_object" and dialect.requests.json_word and "json" not in str(body.get("messages")).lower():
        yield "Prompt must contain the word 'json' in some form to use response_format."
    yield from _about_thinking(body, dialect, facts)
    prefill = dialect.requests.prefill
    continues = as_map(next(reversed(read_list(body, "messages")), None)).get("role") == "assistant"
    if prefill is not None and prefill.path and path.endswith(prefill.path) != continues:
        yield "the prefix of an answer is accepted only on the beta path"


def _field_of(parameter: str, dialect: CompatibleDialect) -> str:
    return (
        dialect.requests.max_tokens if parameter == "max_tokens" else dialect.requests.rename.get(parameter, parameter)
    )


def _fields(dialect: CompatibleDialect) -> frozenset[str]:
    rule = dialect.requests
    known = {"model", "messages", "stream", *rule.constants, *rule.streaming, *rule.streaming_tools}
    known |= {"stream_options"} if rule.stream_options else set()
    for feature, names in _WITH_FEATURES.items():
        known |= set(names) if feature in dialect.native else set()
    known |= {_field_of(name, dialect) for name in dialect.capabilities.parameters - _NO_FIELDS}
    for form in dialect.thinking.values():
        known |= {*form.on, *form.off, form.effort, form.budget} - {""}
    if rule.prefill is not None:
        known |= set(rule.prefill.body)
    return frozenset(known)


def _about_numbers(body: Mapping[str, object], dialect: CompatibleDialect) -> Iterator[str]:
    for parameter, (low, high) in dialect.requests.bounds.items():
        field = _field_of(parameter, dialect)
        value = body.get(field)
        if isinstance(value, int | float) and not low <= value <= high:
            yield f"{field} must be between {low:g} and {high:g}"
    user, longest_user = str(body.get(_field_of("user", dialect))), dialect.requests.user_bytes
    if longest_user is not None and len(user.encode("utf-8", "replace")) > longest_user:
        yield f"{_field_of('user', dialect)} has more than {longest_user} bytes"
    stops = body.get("stop")
    if stops is not None and not isinstance(stops, list):
        yield "stop must be a list"
    most, longest = dialect.requests.most_stops, dialect.requests.stop_characters
    if most is not None and len(as_list(stops)) > most:
        yield f"stop has more than {most} entries"
    if longest is not None and any(len(str(stop)) > longest for stop in as_list(stops)):
        yield f"stop has an entry of more than {longest} characters"


def _about_messages(
    body: Mapping[str, object], dialect: CompatibleDialect, able: frozenset[str], facts: ModelFacts
) -> Iterator[str]:
    rule = dialect.requests
    details = rule.details if "image_detail" in dialect.capabilities.parameters else frozenset()
    continued = rule.prefill.message if rule.prefill is not None else {}
    names = {"name"} if "message_name" in dialect.capabilities.parameters else set()
    messages = [as_map(entry) for entry in read_list(body, "messages")]
    if rule.turns == "alternate":
        yield from _about_turns(messages, continued)
    if "reasoning" in facts.features and rule.reasoning_back == "required" and _lacks_reasoning(messages, continued):
        yield "The reasoning_content in the thinking mode must be passed back to the API."
    for position, message in enumerate(messages):
        role, path = str(message.get("role")), f"messages[{position}]"
        yield from _about_role(message, rule, path, position == len(messages) - 1)
        if rule.turns == "spoken" and not message.get("content") and not message.get("tool_calls"):
            yield f"the message at position {position} with role '{role}' must not be empty"
        fields = _MESSAGE_FIELDS.get(role, set()) | names
        if role == "assistant":
            fields |= {"reasoning_content", *continued} if rule.reasoning_back else {*continued}
        yield from (f"{path}.{name}: Extra inputs are not permitted" for name in message.keys() - fields)
        yield from _about_content(message.get("content"), details, able, path)
        for part in map(as_map, as_list(message.get("content"))):
            data = read_str(read_map(part, "input_audio"), "data")
            if data is not None and data.startswith(_SOUND_URI) != rule.sound_uri:
                wrong = "The provided URL does not appear to be valid" if rule.sound_uri else "Incorrect padding"
                yield f"{path}: {wrong}"


def _about_role(message: Mapping[str, object], rule: Requests, path: str, is_last: bool) -> Iterator[str]:
    match message.get("role"):
        case "developer" if not rule.developer:
            yield f"{path}: unknown variant `developer`, expected one of system, user, assistant, tool"
        case "system" if rule.system == "first" and path != "messages[0]":
            yield f"{path}: a system message must be the first"
        case "assistant":
            if rule.prefill is not None and not is_last and any(map(message.get, rule.prefill.message)):
                yield f"{path}: only the last message may be continued"
            yield from _about_ids([as_map(call).get("id") for call in read_list(message, "tool_calls")], rule)
        case "tool":
            yield from _about_ids([message.get("tool_call_id")], rule)


def _about_ids(ids: list[object], rule: Requests) -> Iterator[str]:
    if rule.call_ids and not all(_NINE.fullmatch(str(id)) for id in ids):
        yield "Tool call id must be a-z, A-Z, 0-9, with a length of 9."


def _lacks_reasoning(messages: Sequence[Mapping[str, object]], continued: Mapping[str, object]) -> bool:
    """Return whether an answer in a turn with calls lacks its reasoning. An answer to be `continued` does not count."""
    calls = lacks = False
    for message in messages:
        if message.get("role") == "user":
            calls = lacks = False
        elif message.get("role") == "assistant" and not any(map(message.get, continued)):
            calls = calls or bool(message.get("tool_calls"))
            lacks = lacks or not read_str(message, "reasoning_content")
        if calls and lacks:
            return True
    return False


def _about_turns(messages: Sequence[Mapping[str, object]], continued: Mapping[str, object]) -> Iterator[str]:
    """Check that roles alternate, for vendors that require it. The last answer may be one to be `continued`."""
    if (wrong := find_alternation_error([str(message.get("role")) for message in messages])) is not None:
        yield f"messages[{wrong}]: user (tool) and assistant must alternate"
    for message in messages:
        if message.get("role") == "assistant" and not message.get("content") and not message.get("tool_calls"):
            yield "Assistant message must have either content or tool_calls, but not none."
    last = messages[-1] if messages else {}
    if last.get("role") not in ("user", "tool") and not any(map(last.get, continued)):
        yield "Expected last role User or Tool (or Assistant with prefix True) for serving"


def _about_content(content: object, details: frozenset[str], able: frozenset[str], path: str) -> Iterator[str]:
    parts = [as_map(part) for part in as_list(content)]
    if parts and all(part.get("type") == "text" and CACHE_CONTROL not in part for part in parts):
        yield f"{path}.content: expected a string"
    for part in parts:
        kind = str(part.get("type"))
        if kind in _PARTS and _PARTS[kind] not in able:
            yield f"{path}: this model does not take {kind}"
        image = read_map(part, "image_url")
        url, detail = read_str(image, "url") or "", read_str(image, "detail")
        if url and not url.startswith("data:") and "image_url" not in able:
            yield f"{path}: images are taken as data only"
        if detail is not None and detail not in details:
            yield f"{path}: detail {detail!r} is not supported"


def _about_tools(body: Mapping[str, object], dialect: CompatibleDialect, able: frozenset[str]) -> Iterator[str]:
    tools = [read_map(as_map(tool), "function") for tool in read_list(body, "tools")]
    if dialect.requests.most_tools is not None and len(tools) > dialect.requests.most_tools:
        yield f"tools has more than {dialect.requests.most_tools} entries"
    if tools and not dialect.requests.n_beside_tools and body.get("n") not in (None, 1):
        yield "n must be 1 if tools are given"
    strict = "strict_tools" in dialect.capabilities.parameters
    if any(tool.get("parameters") is None or (not strict and "strict" in tool) for tool in tools):
        yield "tools: every function needs parameters, and no unknown fields"
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not tools:
        yield "tool_choice is only allowed when tools are given"
    word = "named" if isinstance(choice, dict) else str(choice)
    if word not in _tool_choices(dialect, able) or (isinstance(choice, dict) and choice.get("type") != "function"):
        yield f"tool_choice {word!r} is not supported"


def _tool_choices(dialect: CompatibleDialect, able: frozenset[str]) -> frozenset[str]:
    """Return the values of `tool_choice` that the vendor accepts."""
    ours = {"auto", "none"}
    ours |= {"required"} if "tool_choice_required" in able else set()
    ours |= {"named"} if "tool_choice_named" in able else set()
    return frozenset(dialect.requests.choices.get(word, word) for word in ours) - {"omit", "leave", "only"}


def _about_thinking(body: Mapping[str, object], dialect: CompatibleDialect, facts: ModelFacts) -> Iterator[str]:
    form = _form(dialect, facts)
    if form is None:
        return
    wanted = _effort(body, form)
    thinks = "thinking_only" in facts.flags or wanted not in (None, "none")
    thinks = thinks or (wanted is None and "thinking_default" in facts.flags)
    choice = body.get("tool_choice")
    forces = isinstance(choice, dict) or choice in ("required", "any")
    if thinks and forces and form.forced_off:
        yield "Thinking mode does not support this tool_choice"
    is_off = wanted == "none" or (wanted is None and "thinking_default" not in facts.flags)
    if "tools_without_thinking" in facts.flags and body.get("tools") and not is_off:
        yield "Function tools with reasoning_effort are not supported"
    if thinks and form.streamed and body.get("stream") is not True:
        yield "enable_thinking must be set to false for non-streaming calls"
    effort = _stated_effort(body, form)
    if effort is not None and facts.efforts and effort not in facts.efforts:
        yield f"{form.effort}: {effort!r} is not supported by this model"


def _form(dialect: CompatibleDialect, facts: ModelFacts) -> Thinking | None:
    return dialect.thinking.get(facts.thinking or "default")


def _effort(body: Mapping[str, object], form: Thinking) -> str | None:
    """Return the reasoning effort of a body. It is `medium` if the body only switches thinking on."""
    if isinstance(stated := _stated_effort(body, form), str):
        return stated
    if form.off and all(body.get(name) == value for name, value in form.off.items()):
        return "none"
    if form.on and all(body.get(name) == value for name, value in form.on.items()):
        return "medium"
    return None


def _stated_effort(body: Mapping[str, object], form: Thinking) -> object:
    outer, _, name = form.effort.rpartition(".")
    return (as_map(body.get(outer)) if outer else body).get(name)


def as_openai(body: Mapping[str, object], dialect: CompatibleDialect, facts: ModelFacts) -> dict[str, object]:
    """Return the body as a request of OpenAI's API."""
    rule = dialect.requests
    back = {name: ours for ours, name in rule.rename.items()} | {rule.max_tokens: "max_tokens"}
    own = set(_fields(dialect)) - set(back) - {_field_of(name, dialect) for name in dialect.capabilities.parameters}
    plain = {"model", "messages", "stream", "stream_options", "tools", "tool_choice", "response_format", "n"}
    plain |= {"logprobs", "top_logprobs"}
    converted = {back.get(name, name): value for name, value in body.items() if name not in own or name in plain}
    messages = [as_map(entry) for entry in read_list(body, "messages")]
    converted["messages"] = [_plain_message(message, dialect) for message in messages]
    if body.get("stream") is True and not rule.stream_options:
        converted["stream_options"] = {"include_usage": True}
    words: dict[object, str] = {theirs: ours for ours, theirs in rule.choices.items()}
    choice: Any = body.get("tool_choice")
    if isinstance(choice, str) and choice in words:
        converted["tool_choice"] = words[choice]
    form = _form(dialect, facts)
    if form is not None and (effort := _effort(body, form)) is not None:
        converted["reasoning_effort"] = effort
    return converted


def _plain_message(message: Mapping[str, object], dialect: CompatibleDialect) -> Mapping[str, object]:
    prefill = dialect.requests.prefill
    dropped = set(prefill.message) if prefill is not None else set()
    plain = {name: value for name, value in message.items() if name not in dropped}
    if (dialect.requests.sound_uri or dialect.requests.document_url) and isinstance(
        parts := plain.get("content"), list
    ):
        plain["content"] = [_plain_part(as_map(part)) for part in parts]
    return plain


def _plain_part(part: Mapping[str, object]) -> Mapping[str, object]:
    if part.get("type") == "document_url":
        name = read_str(part, "document_name")
        file = {"file_data": part.get("document_url"), **({"filename": name} if name else {})}
        return {"type": "file", "file": file}
    sound = read_map(part, "input_audio")
    data = read_str(sound, "data")
    return part if data is None else {**part, "input_audio": {**sound, "data": data.removeprefix(_SOUND_URI)}}
