"""Where a mistake is, as OpenAI's Responses API says it, in the words of chat completions: all that a client knows."""

from __future__ import annotations

import re

__all__ = ["place_in_chat"]

_OUTERMOST = re.compile(r"[.\[]")
_FIELDS = {
    "input": "messages",
    "instructions": "messages",
    "max_output_tokens": "max_completion_tokens",
    "reasoning": "reasoning_effort",
    "text": "response_format",
}


def place_in_chat(param: str | None) -> str | None:
    """The field that a client has said it in, without its depth: an item of `input` is less than a message. A field of
    both APIs stays as it is."""
    if not param:
        return None
    return _FIELDS.get(_OUTERMOST.split(param, maxsplit=1)[0], param)
