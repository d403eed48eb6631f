"""Opaque reasoning state that goes back with the next turn, marked with the model that it belongs to."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from providers.chat import AssistantMessage, ToolCall, text_of
from providers.failures import Failure, FailureKind
from providers.json_values import JsonError, as_list, dumps, loads, repair_surrogates
from providers.reading.stream_assembler import Assembler

# Base64, in which signatures are written, has no such character.
_SEPARATOR = "."


def marked(signature: str, model: str) -> str:
    """The signature as the canonical chat carries it."""
    return f"{_mark(model)}{_SEPARATOR}{signature}"


def own_signature(carried: str | None, model: str) -> str | None:
    """The signature that `model` itself gave, None where there is none or it is another model's.

    One without a mark came to the client by another way than ours and is taken at its word.
    """
    if not carried:
        return None
    mark, separator, signature = carried.partition(_SEPARATOR)
    if not separator:
        return carried
    return signature if signature and mark == _mark(model) else None


def _mark(model: str) -> str:
    return f"{zlib.crc32(model.encode('utf-8')):08x}"


_Block = dict[str, object]


_MOST_THOUGHTS = 64


_MOST_KEPT_CHARACTERS = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Thought:
    """One block: a text with its signature, or (`redacted`) a sealed one of which nothing is shown."""

    text: str = ""
    signature: str = ""
    redacted: str = ""


class Kept:
    """The thoughts of one answer of `model`, until the call behind them takes them along."""

    def __init__(self, assembler: Assembler, model: str) -> None:
        self._assembler = assembler
        self._model = model
        self._thoughts: list[Thought] = []
        self._characters = 0

    def keep(self, pieces: list[str], piece: str) -> None:
        """Keep a piece of a thought among its others; an endless one ends the answer."""
        self._characters += len(piece)
        if self._characters > _MOST_KEPT_CHARACTERS:
            message = "the provider's thoughts are larger than accepted"
            self._assembler.fail(Failure(FailureKind.TOO_LARGE, message))
        elif piece:
            pieces.append(piece)

    def add(self, thought: Thought) -> None:
        """A thought is whole."""
        self._thoughts.append(thought)

    def take(self) -> str | None:
        """The signature of a call that begins: all thoughts since the call before."""
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
    """What Claude said in a turn, as it wants it back: thoughts, text, and the calls, each later one behind its own
    thoughts. Without a call no thought rides along."""
    texts = [text_block(text) for text in (text_of(message.content), message.refusal or "") if text.strip()]
    blocks: list[_Block] = []
    for position, call in enumerate(message.tool_calls):
        blocks += [thought_block(thought) for thought in unpack(call.signature, model)]
        if position == 0:
            blocks += texts
        blocks.append(call_block(call))
    return blocks or texts


def pack(thoughts: Sequence[Thought], model: str) -> str | None:
    """The thoughts as a call's signature; None where there are none that a model would know again."""
    rows = [
        [repair_surrogates(thought.redacted)]
        if thought.redacted
        else [repair_surrogates(thought.text), repair_surrogates(thought.signature)]
        for thought in thoughts
        if thought.redacted or thought.signature
    ]
    if not rows:
        return None
    return marked(base64.urlsafe_b64encode(dumps(rows)).decode(), model)


def unpack(signature: str | None, model: str) -> tuple[Thought, ...]:
    """The thoughts that `model` itself had before a call; none where the signature is another's or no such thing."""
    packed = own_signature(signature, model)
    if packed is None:
        return ()
    try:
        rows = as_list(loads(base64.b64decode(packed.encode("ascii"), altchars=b"-_", validate=True)))
    except (ValueError, binascii.Error, JsonError):
        return ()
    thoughts: list[Thought] = []
    for row in rows[:_MOST_THOUGHTS]:
        match row:
            case [str(redacted)]:
                thoughts.append(Thought(redacted=redacted))
            case [str(text), str(signed)]:
                thoughts.append(Thought(text, signed))
            case _:
                return ()
    return tuple(thoughts)


_ID_SEPARATOR = "~sig~"


def join_call_id(call_id: str, signature: str | None) -> str:
    """The id that a client sees."""
    return call_id if signature is None else f"{call_id}{_ID_SEPARATOR}{signature}"


def split_call_id(outward: str) -> tuple[str, str | None]:
    """The provider's own id, and the signature that came with it."""
    call_id, separator, signature = outward.partition(_ID_SEPARATOR)
    return (call_id, signature) if separator and call_id and signature else (outward, None)
