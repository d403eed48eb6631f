"""OpenAI's format of moderations for clients.

Source: the official Python SDK 3.51 (`ModerationCreateParams`, `ModerationCreateResponse`), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.chat import ImagePart, TextPart
from providers.failures import InvalidRequest
from providers.json_values import dumps
from providers.moderations.values import ModerationAnswer, ModerationInput, ModerationRequest
from providers.openai_json.decode_messages import decode_image
from providers.openai_json.fields import choice, describe, items, mapping, present, text

_KNOWN = frozenset({"model", "input"})
_MOST_INPUTS = 2048


def decode_moderation_request(value: object) -> ModerationRequest:
    """Read a client's request strictly. Raises InvalidRequest."""
    body = mapping(value, "body")
    return ModerationRequest(
        text(body, "model", "model") or "",
        _inputs(present(body, "input", "input")),
        {name: item for name, item in body.items() if name not in _KNOWN and item is not None},
    )


def _inputs(value: object) -> tuple[ModerationInput, ...]:
    if isinstance(value, str):
        return (value,)
    entries = items(value, "input", at_most=_MOST_INPUTS)
    if not entries:
        raise InvalidRequest("`input` must not be empty", "input")
    if all(isinstance(entry, str) for entry in entries):
        return tuple(entry for entry in entries if isinstance(entry, str))
    if all(isinstance(entry, dict) for entry in entries):
        return (tuple(_part(mapping(entry, "input"), f"input[{place}]") for place, entry in enumerate(entries)),)
    kinds = " and ".join(sorted({describe(entry) for entry in entries}))
    raise InvalidRequest(f"`input` must be a string, an array of strings or an array of parts, not of {kinds}", "input")


def _part(source: Mapping[str, object], path: str) -> TextPart | ImagePart:
    if choice(source.get("type"), f"{path}.type", ("text", "image_url")) == "text":
        written = text(source, "text", f"{path}.text")
        if written is None:
            raise InvalidRequest(f"`{path}.text` is required", f"{path}.text")
        return TextPart(written)
    place = f"{path}.image_url"
    return decode_image(mapping(present(source, "image_url", place), place), place)


def encode_moderations(answer: ModerationAnswer, model: str, answer_id: str) -> bytes:
    """Return the body of an answer for a client."""
    results = [
        {
            "flagged": result.flagged,
            "categories": dict(result.categories),
            "category_scores": dict(result.scores),
            "category_applied_input_types": {name: list(kinds) for name, kinds in result.applied_types.items()},
        }
        for result in answer.results
    ]
    return dumps({"id": answer_id, "model": model, "results": results})
