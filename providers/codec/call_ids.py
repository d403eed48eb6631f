"""Carry a provider's signature through clients that only know OpenAI's fields: inside the id of a tool call.

Gemini 3 wants the `thoughtSignature` of a call back in the next turn, and OpenAI-shaped clients keep nothing of a
call but its id, name and arguments. The id is ours to choose, so the signature rides in it.
"""

from __future__ import annotations

__all__ = ["join_call_id", "split_call_id"]

_SEPARATOR = "~sig~"


def join_call_id(call_id: str, signature: str | None) -> str:
    """The id that a client sees."""
    return call_id if signature is None else f"{call_id}{_SEPARATOR}{signature}"


def split_call_id(outward: str) -> tuple[str, str | None]:
    """The provider's own id, and the signature that came with it."""
    call_id, separator, signature = outward.partition(_SEPARATOR)
    return (call_id, signature) if separator and call_id and signature else (outward, None)
