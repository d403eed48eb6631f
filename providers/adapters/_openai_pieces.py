"""Pieces of an answer in OpenAI's dialect beside its texts and calls: by which setup, and from where it was said."""

from __future__ import annotations

from collections.abc import Mapping

from providers.assembly import Assembler
from providers.chat import Annotation
from providers.choice_state import Content
from providers.json_values import read_list

__all__ = ["new_in_message", "read_annotations", "read_setup"]

_CONTENTS: dict[str, Content] = {
    "content": "text",
    "reasoning_content": "reasoning",
    "reasoning": "reasoning",
    "reasoning_details": "reasoning",
    "thinking": "reasoning",
    "refusal": "refusal",
    "annotations": "annotations",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


def read_setup(assembler: Assembler, chunk: Mapping[str, object]) -> None:
    """How the answer is processed and by which setup, where a chunk says so."""
    tier, fingerprint = chunk.get("service_tier"), chunk.get("system_fingerprint")
    if tier or fingerprint:
        assembler.describe(
            service_tier=tier if type(tier) is str else None,
            system_fingerprint=fingerprint if type(fingerprint) is str else None,
        )


def read_annotations(delta: Mapping[str, object]) -> tuple[Annotation, ...]:
    """The annotations of a piece, such as the citations of a web search."""
    return tuple(one for one in read_list(delta, "annotations") if isinstance(one, dict) and one)


def new_in_message(assembler: Assembler, message: Mapping[str, object], choice: int) -> Mapping[str, object]:
    """What a whole message adds to the pieces before it: some vendors end a stream by repeating all that they said."""
    return {name: value for name, value in message.items() if not assembler.has(_CONTENTS.get(name, "text"), choice)}
