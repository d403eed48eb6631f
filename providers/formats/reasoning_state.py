"""Carry a model's opaque reasoning state (thoughts and signatures) to the next turn, marked with its model.

Clients send tool calls back unchanged. So the state is packed into a signature, and the signature into the call's id.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping, Sequence

from providers.chat import AssistantMessage, ToolCall, text_of
from providers.failures import Failure, FailureKind
from providers.json_values import JsonError, as_list, dumps, loads, repair_surrogates
from providers.reading.assembler import Assembler
from providers.value import Value

# Signatures are written in Base64, which does not use this character.
_SEPARATOR = "."
_MAX_THOUGHTS = 64
_MAX_CHARACTERS = 8 * 1024 * 1024
_ID_SEPARATOR = "~sig~"


def mark_signature(signature: str, model: str) -> str:
    """Return the signature with the mark of the model that gave it."""
    return f"{_mark(model)}{_SEPARATOR}{signature}"


def own_signature(carried: str | None, model: str) -> str | None:
    """Return the signature without its mark, or None if there is none or another model gave it.

    A signature without a mark did not come from an adapter, so it belongs to no known model.
    """
    if not carried:
        return None
    mark, _, signature = carried.partition(_SEPARATOR)
    return signature if signature and mark == _mark(model) else None


def _mark(model: str) -> str:
    return f"{zlib.crc32(model.encode('utf-8')):08x}"


_Block = dict[str, object]


class Thought(Value, frozen=True):
    """One thinking block: a text with its signature, or an encrypted block (`redacted`) without text."""

    text: str = ""
    signature: str = ""
    redacted: str = ""


class ThoughtCollector:
    """Collect the thoughts of one answer until the next tool call, whose signature carries them."""

    def __init__(self, assembler: Assembler, model: str) -> None:
        self._assembler = assembler
        self._model = model
        self._thoughts: list[Thought] = []
        self._characters = 0

    def append(self, pieces: list[str], piece: str) -> None:
        """Append a piece of a thought to its pieces. If all thoughts exceed the limit, the answer fails."""
        self._characters += len(piece)
        if self._characters > _MAX_CHARACTERS:
            message = f"the reasoning of the provider's answer is longer than {_MAX_CHARACTERS} characters"
            self._assembler.fail(Failure(FailureKind.TOO_LARGE, message))
        elif piece:
            pieces.append(piece)

    def add(self, thought: Thought) -> None:
        """Add a complete thought."""
        self._thoughts.append(thought)

    def take(self) -> str | None:
        """Return the signature for a tool call that begins: all thoughts since the previous call. Clears them."""
        signature = pack(self._thoughts, self._model)
        self._thoughts.clear()
        return signature


def blocks_of(
    message: AssistantMessage,
    model: str,
    text_block: Callable[[str], _Block],
    thought_block: Callable[[Thought], _Block],
    call_block: Callable[[ToolCall], _Block],
) -> list[_Block]:
    """Return an assistant message as Claude's content blocks, in the order that Claude expects.

    The first call's thoughts come first, then the text, then the calls. Each later call follows its own thoughts. A
    message without calls has no thoughts, because only calls carry them.
    """
    texts = [text_block(text) for text in (text_of(message.content), message.refusal or "") if text.strip()]
    blocks: list[_Block] = []
    for position, call in enumerate(message.tool_calls):
        blocks += [thought_block(thought) for thought in unpack(call.signature, model)]
        if position == 0:
            blocks += texts
        blocks.append(call_block(call))
    return blocks or texts


def pack_rows(rows: Sequence[object], model: str) -> str | None:
    """Return the signature that carries these JSON values, or None if there are none."""
    return mark_signature(base64.urlsafe_b64encode(dumps(rows)).decode(), model) if rows else None


def unpack_rows(signature: str | None, model: str) -> Sequence[object]:
    """Return the JSON values in a signature, at most 64. None if it is invalid or belongs to another model."""
    packed = own_signature(signature, model) or ""
    try:
        return as_list(loads(base64.b64decode(packed.encode("ascii"), altchars=b"-_", validate=True)))[:_MAX_THOUGHTS]
    except (ValueError, binascii.Error, JsonError):
        return ()


def pack(thoughts: Sequence[Thought], model: str) -> str | None:
    """Pack the thoughts into a call's signature. Return None if none has a signature that the model would accept."""
    rows = [
        [repair_surrogates(thought.redacted)]
        if thought.redacted
        else [repair_surrogates(thought.text), repair_surrogates(thought.signature)]
        for thought in thoughts
        if thought.redacted or thought.signature
    ]
    return pack_rows(rows, model)


def unpack(signature: str | None, model: str) -> tuple[Thought, ...]:
    """Return the thoughts in a call's signature, or none if it is invalid or belongs to another model."""
    thoughts: list[Thought] = []
    for row in unpack_rows(signature, model):
        match row:
            case [str(redacted)]:
                thoughts.append(Thought(redacted=redacted))
            case [str(text), str(signed)]:
                thoughts.append(Thought(text, signed))
            case _:
                return ()
    return tuple(thoughts)


def _sealed_rows(details: Sequence[Mapping[str, object]], call_id: str) -> list[object]:
    """Return the sealed entries of OpenRouter's `reasoning_details`.

    Only encrypted entries come in one piece, and they are what a model needs: Gemini refuses a call without its own.
    The entry of the call itself names it, and gets the call's id when it is sent back.
    """
    return [
        {**entry, "id": ""} if entry.get("id") == call_id else dict(entry)
        for entry in details
        if entry.get("type") == "reasoning.encrypted" and isinstance(entry.get("data"), str)
    ]


def unpack_details(call: ToolCall, model: str) -> list[Mapping[str, object]]:
    """Return the entries of `reasoning_details` in a call's signature, or none if another model gave it."""
    entries = [row for row in unpack_rows(call.signature, model) if isinstance(row, dict)]
    return [{**entry, "id": call.id} if entry.get("id") == "" else entry for entry in entries]


def pack_call(
    details: Sequence[Mapping[str, object]], members: Mapping[str, object], call_id: str, model: str
) -> str | None:
    """Pack what a call of OpenAI's form carries: the sealed entries before it, and its members next to `function`.

    Google's endpoint in OpenAI's form has the signature of a call there, as `extra_content`. A list marks the members.
    """
    try:
        own = [[dict(members)]] if members else []
        return pack_rows([*own, *_sealed_rows(details, call_id)][:_MAX_THOUGHTS], model)
    except (TypeError, JsonError):  # half of a surrogate pair, or nested too deeply: no state that a model has made
        return None


def unpack_members(call: ToolCall, model: str) -> Mapping[str, object]:
    """Return the members next to `function` in a call's signature, or none if another model gave it."""
    match unpack_rows(call.signature, model):
        case [[dict(members)], *_]:
            return members
    return {}


def join_call_id(call_id: str, signature: str | None) -> str:
    """Return the call id for the client, which contains the signature."""
    return call_id if signature is None else f"{call_id}{_ID_SEPARATOR}{signature}"


def split_call_id(client_id: str) -> tuple[str, str | None]:
    """Return the provider's call id and its signature, if the client's id contains one."""
    call_id, separator, signature = client_id.partition(_ID_SEPARATOR)
    return (call_id, signature) if separator and call_id and signature else (client_id, None)
