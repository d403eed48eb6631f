"""OpenAI's format of moderations in both directions: for clients, for OpenAI, and for servers that answer like it.

Source: the official Python SDK 3.51 (`ModerationCreateParams`, `ModerationCreateResponse`), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from providers.adapter import Capabilities, Target
from providers.chat import ImagePart, TextPart
from providers.failures import InvalidRequest
from providers.json_values import as_list, as_map, dumps, read_map
from providers.moderations.values import (
    CATEGORIES,
    ModerationAnswer,
    ModerationInput,
    ModerationRequest,
    ModerationResult,
)
from providers.openai_json.decode_messages import decode_image
from providers.openai_json.fields import choice, describe, items, mapping, present, text
from providers.reading.errors import error_object, malformed
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))
_KNOWN = frozenset({"model", "input"})
_MOST_INPUTS = 2048
_IMAGES = Capabilities(frozenset({"vision", "image_url"}), frozenset())
_TEXT = Capabilities(frozenset(), frozenset())


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


class OpenAIModerations(Value, frozen=True):
    """The format of OpenAI, and of servers that answer like it, for models of these patterns. See `ModerationFormat`.

    A server of the operator's own may have any categories.
    """

    models: tuple[str, ...]
    takes_images: bool
    most_inputs: int = 32
    is_own: bool = False

    @property
    def capabilities(self) -> Capabilities:
        return _IMAGES if self.takes_images else _TEXT

    def accepts(self, model: str) -> bool:
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def build_request(self, request: ModerationRequest, target: Target) -> WireRequest:
        first = request.inputs[0]
        content = [_encode_part(part) for part in first] if not isinstance(first, str) else list(request.inputs)
        body = {"model": target.model, "input": content, **request.extra}
        return WireRequest("POST", f"{target.base_path}/moderations", _HEADERS, dumps(body))

    def parse_response(self, response: WireResponse, target: Target) -> ModerationAnswer:
        results = as_list(error_object(response.body).get("results"))
        if not results:
            raise malformed("the answer has no verdict")
        return ModerationAnswer(tuple(_read_result(as_map(result)) for result in results))


def _encode_part(part: TextPart | ImagePart) -> dict[str, object]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": part.url}}


def _read_result(result: Mapping[str, object]) -> ModerationResult:
    flagged = result.get("flagged")
    named = read_map(result, "categories")
    if not isinstance(flagged, bool) or not all(value is None or isinstance(value, bool) for value in named.values()):
        raise malformed("a verdict is not true or false")
    names = dict.fromkeys([*CATEGORIES, *named])
    categories = {name: named.get(name) is True for name in names}
    scores = read_map(result, "category_scores")
    kinds = read_map(result, "category_applied_input_types")
    return ModerationResult(
        flagged,
        categories,
        {name: _score(scores.get(name), applies=applies) for name, applies in categories.items()},
        {name: tuple(str(kind) for kind in as_list(kinds.get(name))) for name in categories},
    )


def _score(value: object, *, applies: bool) -> float:
    """Return a score. A server may leave scores out."""
    if value is None:
        return float(applies)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise malformed("a score is not between 0 and 1")
    return float(value)
