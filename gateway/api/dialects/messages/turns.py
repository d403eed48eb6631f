"""Read Anthropic's turns as messages of a chat.

Consecutive turns of one role are one turn. The results of a turn come before its other content, and they must answer
the calls of the turn before it, one for one. Reasoning state stands in a thinking block before the call to which it
belongs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.api.dialects.messages.blocks import NO_STATE, BlockReader, is_too_many, plain_content, refuse_block
from providers.chat import AssistantMessage, Message, Part, SystemMessage, TextPart, ToolCall, ToolMessage, UserMessage
from providers.failures import InvalidRequest
from providers.openai_json.fields import items, mapping, text

_MESSAGE = frozenset({"role", "content"})
_ROLES = ("user", "assistant", "system")
_PARAGRAPH_BREAK = "\n\n"


@dataclass(slots=True)
class _Turn:
    """A turn, with its blocks and their paths. `sizes`: the number of blocks of each merged message."""

    role: str
    position: int
    blocks: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def read_messages(entries: Sequence[object], reader: BlockReader) -> Iterator[Message]:
    """Yield the messages. Raises InvalidRequest or UnsupportedFeature."""
    calls: tuple[ToolCall, ...] = ()
    asked_at = 0
    for turn in _merged(entries, reader):
        if calls and turn.role != "user":
            raise _unanswered(asked_at, calls)
        match turn.role:
            case "assistant":
                message = _assistant(turn, reader)
                calls, asked_at = message.tool_calls, turn.position
                yield message
            case "user":
                yield from _user(turn, calls, asked_at, reader)
                calls = ()
            case _:
                texts = tuple(reader.text_part(block, path) for path, block in turn.blocks)
                yield SystemMessage(texts)
    if calls:
        raise _unanswered(asked_at, calls)


def _merged(entries: Sequence[object], reader: BlockReader) -> list[_Turn]:
    """Return the turns. A text in place of blocks becomes a block."""
    turns: list[_Turn] = []
    for position, entry in enumerate(entries):
        path = f"messages.{position}"
        message = mapping(entry, path)
        reader.note_unknown(message, _MESSAGE, "messages")
        role = text(message, "role", f"{path}.role")
        if role not in _ROLES:
            raise InvalidRequest(f"{path}.role: Input should be 'user' or 'assistant'", f"{path}.role")
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role, position))
        blocks = _blocks(message.get("content"), f"{path}.content")
        turns[-1].blocks += blocks
        turns[-1].sizes.append(len(blocks))
    return turns


def _blocks(content: object, path: str) -> list[tuple[str, Mapping[str, object]]]:
    if content is None:
        raise InvalidRequest(f"{path}: Field required", path)
    if isinstance(content, str):
        return [(path, {"type": "text", "text": content})]
    return [(f"{path}.{i}", mapping(entry, f"{path}.{i}")) for i, entry in enumerate(items(content, path))]


def _user(turn: _Turn, calls: tuple[ToolCall, ...], asked_at: int, reader: BlockReader) -> Iterator[Message]:
    """Yield the results of the calls, and then a message for each of the merged messages with other content."""
    results: dict[str, ToolMessage] = {}
    others: list[list[Part]] = []
    blocks = iter(turn.blocks)
    for size in turn.sizes:
        others.append([])
        for _ in range(size):
            path, block = next(blocks)
            if block.get("type") != "tool_result":
                others[-1] += reader.parts(block, path)
                continue
            result = reader.result(block, path)
            if result.tool_call_id in results or all(call.id != result.tool_call_id for call in calls):
                raise _uncalled(path, result.tool_call_id)
            results[result.tool_call_id] = result
    if missing := tuple(call for call in calls if call.id not in results):
        raise _unanswered(asked_at, missing)
    yield from results.values()
    said = [parts for parts in others if parts]
    if not said and not results:
        yield UserMessage("")
    for parts in said:
        yield UserMessage(plain_content(parts))


def _assistant(turn: _Turn, reader: BlockReader) -> AssistantMessage:
    texts: list[TextPart] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    state: str | None = None
    for path, block in turn.blocks:
        match block.get("type"):
            case "text":
                texts.append(reader.text_part(block, path))
            case "thinking":
                reader.note_thinking(block, "thinking")
                if thought := text(block, "thinking", f"{path}.thinking"):
                    thoughts.append(thought)
                signature = text(block, "signature", f"{path}.signature")
                state = signature if signature and signature != NO_STATE else state
            case "redacted_thinking":
                reader.note_thinking(block, "redacted_thinking")
                state = text(block, "data", f"{path}.data") or state
            case "tool_use":
                calls.append(reader.call(block, path, state))
                state = None
            case _:
                refuse_block(block, path)
    if state is not None:
        # Only a call carries state to its model.
        reader.unread.add("messages.content.signature")
    if is_too_many(calls):
        path = f"messages.{turn.position}.content"
        raise InvalidRequest(f"{path}: too many `tool_use` blocks in one turn", path)
    if len({call.id for call in calls}) < len(calls):
        path = f"messages.{turn.position}.content"
        raise InvalidRequest(f"{path}: `tool_use` ids must be unique", path)
    content = plain_content([*texts])
    said = content if isinstance(content, str) else tuple(texts)
    return AssistantMessage(
        said or None if calls else said, None, _PARAGRAPH_BREAK.join(thoughts) or None, tuple(calls)
    )


def _unanswered(position: int, calls: tuple[ToolCall, ...]) -> InvalidRequest:
    """Return the error for calls without results, in Anthropic's words."""
    path = f"messages.{position}"
    problem = f"{path}: `tool_use` ids were found without `tool_result` blocks immediately after"
    ids = ", ".join(call.id for call in calls)[:200]
    rule = "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    return InvalidRequest(f"{problem}: {ids}. {rule}", path, log_message=problem)


def _uncalled(path: str, call_id: str) -> InvalidRequest:
    problem = f"{path}: unexpected `tool_use_id` found in `tool_result` blocks"
    rule = "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
    return InvalidRequest(f"{problem}: {call_id[:100]}. {rule}", f"{path}.tool_use_id", log_message=problem)
