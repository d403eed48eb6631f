"""OpenAI's sealed reasoning items, packed into the signature of the tool call that follows them.

A loop of tools goes on where it was only if the items come back with its calls, unchanged and with their ids (openai
3.51.0, ResponseReasoningItemParam). Nothing is kept at the provider, so that they ride in the id of the call, as
Claude's do (decision 25). What comes back is a client's, and hostile until parsed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from providers.adapters._signatures import marked, own_signature
from providers.json_values import JsonError, as_list, as_map, dumps, loads, mend_surrogates, read_list, read_str

__all__ = ["SealedThought", "pack", "thought_of", "unpack"]

_MOST_THOUGHTS = 64
_MOST_SUMMARIES = 64


@dataclass(frozen=True, slots=True)
class SealedThought:
    """One reasoning item: its id, its sealed content, and the summaries that were shown of it."""

    id: str
    sealed: str
    summaries: tuple[str, ...] = ()

    @property
    def item(self) -> dict[str, object]:
        """It as an item of the API's input."""
        summary = [{"type": "summary_text", "text": text} for text in self.summaries]
        return {"type": "reasoning", "id": self.id, "summary": summary, "encrypted_content": self.sealed}


def thought_of(item: Mapping[str, object]) -> SealedThought | None:
    """The thought of an answer's reasoning item; None where it has no id or no sealed content: it can't come back."""
    id, sealed = read_str(item, "id"), read_str(item, "encrypted_content")
    if not id or not sealed:
        return None
    texts = (read_str(as_map(part), "text") for part in read_list(item, "summary")[:_MOST_SUMMARIES])
    return SealedThought(mend_surrogates(id), mend_surrogates(sealed), tuple(mend_surrogates(t) for t in texts if t))


def pack(thoughts: Sequence[SealedThought], model: str) -> str | None:
    """The thoughts as a call's signature; None where there are none."""
    if not thoughts:
        return None
    rows = [[thought.id, thought.sealed, *thought.summaries] for thought in thoughts]
    return marked(base64.urlsafe_b64encode(dumps(rows)).decode(), model)


def unpack(signature: str | None, model: str) -> tuple[SealedThought, ...]:
    """The thoughts that `model` itself had before a call; none where the signature is another's or no such thing."""
    packed = own_signature(signature, model)
    if packed is None:
        return ()
    try:
        rows = as_list(loads(base64.b64decode(packed.encode("ascii"), altchars=b"-_", validate=True)))
    except (ValueError, JsonError):
        return ()
    thoughts: list[SealedThought] = []
    for row in rows[:_MOST_THOUGHTS]:
        match row:
            case [str(id), str(sealed), *rest] if id and sealed and len(rest) <= _MOST_SUMMARIES:
                thoughts.append(SealedThought(id, sealed, tuple(text for text in rest if isinstance(text, str))))
            case _:
                return ()
    return tuple(thoughts)
