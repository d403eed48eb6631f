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
        """Return all thoughts since the previous call, as the signature of a call that begins. Clears the thoughts."""
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
    """Return the signature that carries the JSON values, or None if there are no values."""
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


class DetailCollector:
    """Collect the entries of `reasoning_details` (OpenRouter's form) until the next tool call, which carries them.

    Only sealed entries return, which have encrypted `data` or a text with its `signature`. Others are reasoning that
    anybody can read. A stream cuts a text into pieces, of which the last one has the signature. "Gemini models require
    OpenRouter reasoning details to be preserved in each request". source: massgen/MassGen#624, earendil-works/pi#260,
    RooCodeInc/Roo-Code#10640; as_of 2026-11-26.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[dict[str, object], list[str]]] = []
        self._characters = 0

    def add(self, entry: Mapping[str, object], *, is_piece: bool) -> None:
        """Add an entry. With `is_piece`, the entry may continue the text of the entry before it."""
        text = entry.get("text")
        pieces = [text] if isinstance(text, str) else []
        self._characters += sum(len(value) for value in entry.values() if isinstance(value, str))
        if self._characters > _MAX_CHARACTERS:
            self._entries.clear()
        elif is_piece and self._entries and _continues(entry, self._entries[-1][0]):
            known, before = self._entries[-1]
            known.update({name: value for name, value in entry.items() if value is not None})
            before += pieces
        elif len(self._entries) < _MAX_THOUGHTS:
            self._entries.append((dict(entry), pieces))

    def take(self) -> list[Mapping[str, object]]:
        """Return the sealed entries since the previous call. Clears all."""
        sealed: list[Mapping[str, object]] = [
            {**entry, "text": "".join(pieces)} if pieces else entry
            for entry, pieces in self._entries
            if any(isinstance(seal := entry.get(name), str) and seal for name in ("data", "signature"))
        ]
        self._entries.clear()
        return sealed


def _continues(entry: Mapping[str, object], last: Mapping[str, object]) -> bool:
    is_text = entry.get("type") == last.get("type") == "reasoning.text"
    return is_text and entry.get("index") == last.get("index") and not last.get("signature")


def pack_call(
    details: Sequence[Mapping[str, object]], members: Mapping[str, object], call_id: str, model: str
) -> str | None:
    """Pack what a call of OpenAI's form carries: the sealed entries before it, and its members next to `function`.

    Google's endpoint in OpenAI's form has the signature of a call there, as `extra_content`. A list marks the members.
    The entry of the call itself names it, and gets the call's id when it is sent back.
    """
    entries = [{**entry, "id": ""} if entry.get("id") == call_id else dict(entry) for entry in details]
    return _pack_state(members, entries, model)


def _pack_state(members: Mapping[str, object], entries: Sequence[Mapping[str, object]], model: str) -> str | None:
    try:
        return pack_rows([*([[dict(members)]] if members else []), *entries][:_MAX_THOUGHTS], model)
    except (TypeError, JsonError):  # half of a surrogate pair, or nested too deeply: no state that a model has made
        return None


def join_states(first: str, second: str, model: str) -> str | None:
    """Return one signature for what two pieces of a call of OpenAI's form carry."""
    members = {**unpack_members(first, model), **unpack_members(second, model)}
    entries = _unpack_entries(first, model)
    known = [{**entry, "id": ""} for entry in entries]
    entries += [entry for entry in _unpack_entries(second, model) if {**entry, "id": ""} not in known]
    return _pack_state(members, entries, model)


def unpack_details(call: ToolCall, model: str) -> list[Mapping[str, object]]:
    """Return the entries of `reasoning_details` in a call's signature, or none if another model gave it."""
    return [
        {**entry, "id": call.id} if entry.get("id") == "" else entry for entry in _unpack_entries(call.signature, model)
    ]


def _unpack_entries(signature: str | None, model: str) -> list[Mapping[str, object]]:
    return [row for row in unpack_rows(signature, model) if isinstance(row, dict)]


def unpack_members(signature: str | None, model: str) -> Mapping[str, object]:
    """Return the members next to `function` in a call's signature, or none if another model gave it."""
    match unpack_rows(signature, model):
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
