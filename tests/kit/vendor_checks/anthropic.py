"""Rules of Anthropic that the types of its client do not express: the order of turns, and the features that a model
lacks.

Source: platform.claude.com on tool use, thinking and prefill, and public captures of 400 bodies; read 2026-11-20.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence

from providers.catalogue.models import ModelFacts
from providers.json_values import as_list, as_map, read_float, read_list, read_map, read_str
from providers.testkit.claude_messages import signature_of
from providers.testkit.request_checks import texts_of

_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SAMPLING = ("temperature", "top_p", "top_k")
_CLASSIC = "2023-06-01"
_LEAST_BUDGET = 1024
_NOT_IN_STRICT_SCHEMAS = frozenset(
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength maxItems pattern".split()
)
_SUPPORTED_GEO_FROM = re.compile(r"claude-([a-z]+-5|[a-z]+-4-[6-9])(-|$)")

_Block = Mapping[str, object]


def messages_errors(body: Mapping[str, object], facts: ModelFacts, version: str) -> Iterator[str]:
    """Yield an error for each rule of the Messages API that the request breaks."""
    yield from _model_errors(body, facts, version)
    yield from _tool_errors(body, facts)
    yield from _thinking_errors(body, facts)
    if not all(str(stop).strip() for stop in read_list(body, "stop_sequences")):
        yield "stop_sequences: each stop sequence must contain non-whitespace"
    if not all(text.strip() for text in texts_of(body.get("system"))):
        yield "system: text content blocks must contain non-whitespace text"
    form = read_map(read_map(body, "output_config"), "format")
    if form:
        yield from _schema_errors(read_map(form, "schema"), "output_config.format.schema")
    yield from _turn_errors(body, facts)


def _model_errors(body: Mapping[str, object], facts: ModelFacts, version: str) -> Iterator[str]:
    for name in _SAMPLING:
        if body.get(name) is not None and (version != _CLASSIC or name in facts.without):
            yield f"{name}: not supported by this model or API version"
    for name in ("temperature", "top_p"):
        if not 0 <= (read_float(body, name) or 0) <= 1:
            yield f"{name}: must be between 0 and 1"
    if not 1 <= (read_float(body, "max_tokens") or 0) <= (facts.output_tokens or 2**31):
        yield "max_tokens: must be between 1 and the model's maximum"
    geo = body.get("inference_geo")
    if geo is not None and (geo not in ("global", "us") or not _SUPPORTED_GEO_FROM.match(str(body.get("model")))):
        yield "inference_geo: not supported by this model"


def _tool_errors(body: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    tools = [as_map(tool) for tool in read_list(body, "tools")]
    names = [read_str(tool, "name") or "" for tool in tools]
    if len(set(names)) < len(names):
        yield "tools: Tool names must be unique"
    for position, tool in enumerate(tools):
        if not _NAME.fullmatch(names[position]):
            yield f"tools.{position}.name: must match {_NAME.pattern}"
        schema = read_map(tool, "input_schema")
        if schema.get("type") != "object":
            yield f"tools.{position}.input_schema.type: Field required"
        if tool.get("strict"):
            yield from _schema_errors(schema, f"tools.{position}.input_schema")
    choice = read_map(body, "tool_choice")
    if choice and not tools:
        yield "tool_choice: may only be specified while providing tools"
    if choice.get("type") in ("any", "tool") and "tool_choice_required" not in facts.features:
        yield "tool_choice: forced tool use is not supported by this model"
    if choice.get("type") == "tool" and choice.get("name") not in names:
        yield "tool_choice: the tool is not among the tools"


def _thinking_errors(body: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    effort, thinking = read_map(body, "output_config").get("effort"), read_map(body, "thinking")
    if effort is not None and (effort not in facts.efforts or "thinking_budget" in facts.flags):
        yield "output_config.effort: not supported by this model"
    kind = thinking.get("type")
    if thinking and kind not in _thinking_kinds(facts):
        yield f"thinking.type: {kind!r} is not supported by this model"
    is_on = kind in ("enabled", "adaptive") or (not thinking and "thinking_default" in facts.flags)
    is_forced = read_map(body, "tool_choice").get("type") in ("any", "tool")
    if is_forced and is_on and "thinking_calls_freely" in facts.flags:
        yield "thinking: may not be enabled when tool_choice forces tool use"
    if is_on and thinking and any(body.get(name) is not None for name in _SAMPLING):
        yield "temperature: may only be set to 1 when thinking is enabled"
    most = (read_float(body, "max_tokens") or 0) - 1
    if kind == "enabled" and not _LEAST_BUDGET <= (read_float(thinking, "budget_tokens") or 0) <= most:
        yield "thinking.budget_tokens: must be at least 1024 and below max_tokens"


def _thinking_kinds(facts: ModelFacts) -> Iterator[str]:
    if not facts.efforts:
        return
    if "thinking_budget" in facts.flags:
        yield from ("enabled", "disabled")
        return
    yield "adaptive"
    if "thinking_between_tools" in facts.flags:
        yield "between_tools"
    elif "none" in facts.efforts:
        yield "disabled"


def _schema_errors(schema: _Block, place: str) -> Iterator[str]:
    """Yield the parts outside the subset of JSON Schema that structured outputs and strict tools accept."""
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield f"{place}: 'additionalProperties' must be explicitly set to false"
    for name in sorted(_NOT_IN_STRICT_SCHEMAS & schema.keys()):
        yield f"{place}: property '{name}' is not supported"
    inner = [schema.get("items"), *as_list(schema.get("anyOf")), *as_list(schema.get("allOf"))]
    inner += [*read_map(schema, "properties").values(), *read_map(schema, "$defs").values()]
    for one in inner:
        if one:
            yield from _schema_errors(as_map(one), place)


# --- turns ----------------------------------------------------------------------------------------


def _turns(body: Mapping[str, object]) -> list[tuple[str, list[_Block]]]:
    """Return the turns as role and blocks. Consecutive messages of one role are one turn."""
    turns: list[tuple[str, list[_Block]]] = []
    for entry in read_list(body, "messages"):
        message = as_map(entry)
        role, content = str(message.get("role")), message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else as_list(content)
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        # A message without content is represented by itself, as a block without a kind.
        turns[-1][1].extend(as_map(block) for block in blocks or [{}])
    return turns


def _turn_errors(body: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    turns = _turns(body)
    roles = [role for role, _ in turns]
    if roles[:1] != ["user"] or set(roles) - {"user", "assistant"}:
        yield 'messages: first message must use the "user" role, and only "user" and "assistant" are known'
    if roles[-1:] == ["assistant"]:
        if "prefill" not in facts.features:
            yield "messages: this model does not support assistant message prefill"
        last = str(turns[-1][1][-1].get("text", ""))
        if last != last.rstrip():
            yield "messages: final assistant content cannot end with trailing whitespace"
    calls, seen = list[str](), set[str]()
    thoughtful = read_map(body, "thinking").get("type") == "enabled"
    last_answer = max((number for number, role in enumerate(roles) if role == "assistant"), default=-1)
    for number, (role, blocks) in enumerate(turns):
        yield from _block_errors(role, blocks, str(body.get("model")))
        if role == "assistant":
            calls = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
            if len(set(calls)) < len(calls) or seen & set(calls):
                yield "messages: `tool_use` ids must be unique"
            seen.update(calls)
            if calls and not body.get("tools"):
                yield "tools: requests which include `tool_use` or `tool_result` blocks must define tools"
            begins_with = blocks[0].get("type")
            if calls and thoughtful and number == last_answer and begins_with not in ("thinking", "redacted_thinking"):
                yield "messages: expected `thinking` or `redacted_thinking` before `tool_use`"
            continue
        kinds = [block.get("type") for block in blocks]
        results = [str(block.get("tool_use_id")) for block in blocks if block.get("type") == "tool_result"]
        if sorted(results) != sorted(calls):
            yield f"messages: `tool_use` ids {calls} and `tool_result` ids {results} differ"
        if "tool_result" in kinds[len(results) :]:
            yield "messages: tool_result blocks must come first"
        calls = []
    if calls:
        yield f"messages: `tool_use` ids were found without `tool_result` blocks: {calls}"


def _block_errors(role: str, blocks: Sequence[_Block], model: str) -> Iterator[str]:
    kinds = ("text", "thinking", "redacted_thinking", "tool_use")
    if role != "assistant":
        kinds = ("text", "image", "document", "tool_result")
    for block in blocks:
        source = read_map(block, "source")
        match block.get("type"):
            case kind if kind not in kinds:
                yield f"messages: {role} turn: {kind!r} is not expected here"
            case "text" if not str(block.get("text")).strip():
                yield "messages: text content blocks must contain non-whitespace text"
            case "tool_result" if isinstance(block.get("content"), list):
                yield from _block_errors("user", [as_map(one) for one in read_list(block, "content")], model)
            case "tool_use":
                if not _CALL_ID.fullmatch(str(block.get("id"))) or not _NAME.fullmatch(str(block.get("name"))):
                    yield "messages: tool_use: id or name does not match its pattern"
                if not isinstance(block.get("input"), dict):
                    yield "messages: tool_use.input: Input should be an object"
            case "thinking" | "redacted_thinking":
                thought = read_str(block, "thinking") or ""
                seal = read_str(block, "signature") or read_str(block, "data")
                if not _is_signature_of(seal, model, thought):
                    yield "messages: Invalid `signature` in `thinking` block"
            case "image" | "document" if source.get("type") == "base64" and not bytes_of(source.get("data")):
                yield "messages: source.data: invalid base64 data"
            case "image" if source.get("type") == "url" and not str(source.get("url")).lower().startswith(
                ("https:", "http:")
            ):
                yield "messages: only HTTP and HTTPS URLs are supported"


def _is_signature_of(signature: str | None, model: str, thought: str) -> bool:
    """Return whether this model signed the thought. A signature that no simulator wrote is accepted."""
    content = bytes_of(signature)
    return bool(content) and (
        not content.startswith(b"simulated thought of ") or signature == signature_of(model, thought)
    )


def bytes_of(text: object) -> bytes:
    """Return the bytes of a field in base64. Empty if it is not."""
    try:
        return base64.b64decode(str(text or ""), validate=True)
    except binascii.Error:
        return b""
