"""Rules of Bedrock that botocore's service model does not express: the order of turns, and the features that a model
lacks.

Source: docs.aws.amazon.com on Converse and public captures of 400 bodies; read 2026-11-20.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from providers.catalogue.models import ModelFacts
from providers.json_values import JsonError, as_map, loads_text, read_float, read_list, read_map, read_str
from tests.kit.vendor_checks.anthropic import bytes_of

_CALL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_DOCUMENT_NAME = re.compile(r"[A-Za-z0-9()\[\]-]+( [A-Za-z0-9()\[\]-]+)*")
_MOST_STOPS = 2500
_LEAST_BUDGET = 1024
_ASSISTANT_BLOCKS = {"text", "toolUse", "reasoningContent"}
_USER_BLOCKS = {"text", "image", "document", "toolResult"}


def converse_errors(body: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    """Yield an error for each rule of Converse that the request breaks."""
    config = read_map(body, "inferenceConfig")
    for name, field in (("temperature", "temperature"), ("top_p", "topP")):
        if config.get(field) is not None and name in facts.without:
            yield f"inferenceConfig.{field}: deprecated for this model"
        if not 0 <= (read_float(config, field) or 0) <= 1:
            yield f"inferenceConfig.{field}: must be between 0 and 1"
    most = read_float(config, "maxTokens")
    if most is not None and not 1 <= most <= (facts.output_tokens or 2**31):
        yield "inferenceConfig.maxTokens: must be between 1 and the model's maximum"
    stops = read_list(config, "stopSequences")
    if len(stops) > _MOST_STOPS or not all(str(stop) and (str(stop).strip() or _takes_blanks(facts)) for stop in stops):
        yield "inferenceConfig.stopSequences: each stop sequence must contain non-whitespace"
    if not all(str(as_map(one).get("text", ".")).strip() for one in read_list(body, "system")):
        yield "system: a text is blank"
    yield from _tool_errors(body, facts)
    yield from _thinking_errors(body, facts)
    yield from _format_errors(body)
    yield from _turn_errors(body, facts)


def _takes_blanks(facts: ModelFacts) -> bool:
    return "blank_stop" not in facts.without


def _tool_errors(body: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    config = read_map(body, "toolConfig")
    specs = [read_map(as_map(tool), "toolSpec") for tool in read_list(config, "tools")]
    for spec in specs:
        if read_map(read_map(spec, "inputSchema"), "json").get("type") != "object":
            yield "toolConfig: toolSpec.inputSchema.json.type must be one of the following: object"
    choice = read_map(config, "toolChoice")
    if choice.keys() & {"any", "tool"} and "tool_choice_required" not in facts.features:
        yield "toolConfig.toolChoice: not supported by this model"
    if "tool" in choice and read_map(choice, "tool").get("name") not in [spec.get("name") for spec in specs]:
        yield "toolConfig.toolChoice.tool.name: not in the list of tools"


def _thinking_errors(body: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    thinking = read_map(read_map(body, "additionalModelRequestFields"), "thinking")
    if not thinking:
        return
    kind = thinking.get("type")
    kinds = ("enabled", "disabled") if "thinking_budget" in facts.flags else ("adaptive", "disabled", "between_tools")
    if not facts.efforts or kind not in kinds or thinking.keys() - {"type", "budget_tokens", "display"}:
        yield f"thinking.type: {kind!r} is not supported by this model"
    most = read_float(read_map(body, "inferenceConfig"), "maxTokens")
    budget = read_float(thinking, "budget_tokens") or 0
    if kind == "enabled" and (most is None or not _LEAST_BUDGET <= budget < most):
        yield "thinking.budget_tokens: must be at least 1024 and below maxTokens"
    if kind in ("enabled", "adaptive") and read_map(read_map(body, "toolConfig"), "toolChoice").keys() & {
        "any",
        "tool",
    }:
        yield "toolConfig: Thinking may not be enabled when tool_choice forces tool use"


def _format_errors(body: Mapping[str, object]) -> Iterator[str]:
    text_format = read_map(read_map(body, "outputConfig"), "textFormat")
    definition = read_map(read_map(text_format, "structure"), "jsonSchema")
    try:
        is_schema = not text_format or isinstance(loads_text(read_str(definition, "schema") or ""), dict)
    except JsonError:
        is_schema = False
    if not is_schema:
        yield "outputConfig.textFormat: the schema is not a JSON object"


# --- turns ----------------------------------------------------------------------------------------


def _turn_errors(body: Mapping[str, object], facts: ModelFacts) -> Iterator[str]:
    turns = [as_map(turn) for turn in read_list(body, "messages")]
    roles = [turn.get("role") for turn in turns]
    if roles[:1] != ["user"] or any(one == after for one, after in pairwise(roles)):
        yield "messages: a conversation must start with a user message and alternate between the roles"
    calls: list[str] = []
    for role, turn in zip(roles, turns, strict=True):
        blocks = [as_map(block) for block in read_list(turn, "content")]
        if not blocks:
            yield "messages: the content field in the Message object is empty"
        yield from _block_errors(blocks, _ASSISTANT_BLOCKS if role == "assistant" else _USER_BLOCKS)
        results = [str(read_map(block, "toolResult").get("toolUseId")) for block in blocks if "toolResult" in block]
        if sorted(results) != sorted(calls):
            yield f"messages: toolUse ids {calls} and toolResult ids {results} differ"
        calls = [str(read_map(block, "toolUse").get("toolUseId")) for block in blocks if "toolUse" in block]
        if not all(_CALL_ID.fullmatch(call) for call in calls):
            yield "messages: toolUseId failed to satisfy its constraint"
        if (calls or results) and not read_list(read_map(body, "toolConfig"), "tools"):
            yield "toolConfig: must be defined when using toolUse and toolResult content blocks"
    if calls or (roles[-1:] == ["assistant"] and "prefill" not in facts.features):
        yield "messages: this model does not support assistant message prefill"


def _block_errors(blocks: Sequence[Mapping[str, object]], known: set[str]) -> Iterator[str]:
    kinds = {kind for block in blocks for kind in block}
    if kinds - known:
        yield f"messages: {', '.join(sorted(kinds - known))} is not expected in this turn"
    if "document" in kinds and "text" not in kinds:
        yield "messages: a document needs a text block in the same turn"
    for block in blocks:
        results = read_list(read_map(block, "toolResult"), "content")
        if not all(str(one["text"]).strip() for one in (block, *map(as_map, results)) if "text" in one):
            yield "messages: the text field in the ContentBlock object is blank"
        thought = read_map(read_map(block, "reasoningContent"), "reasoningText")
        if thought and not thought.get("signature"):
            yield "messages: thinking.signature: Field required"
        if "document" in block and not _DOCUMENT_NAME.fullmatch(str(read_map(block, "document").get("name"))):
            yield "messages: the document file name can only contain alphanumeric characters and single spaces"
        for kind in ("image", "document"):
            if kind in block and not bytes_of(read_map(read_map(block, kind), "source").get("bytes")):
                yield f"messages: {kind}.source.bytes is not base64, or empty"
