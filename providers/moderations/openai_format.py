"""OpenAI's format of moderations, for OpenAI and for servers that answer like it.

Source: the official Python SDK 3.51 (`ModerationCreateParams`, `ModerationCreateResponse`), read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from providers.adapter import Capabilities, Target
from providers.chat import ImagePart, TextPart
from providers.json_values import as_list, as_map, dumps, read_map
from providers.moderations.values import CATEGORIES, ModerationAnswer, ModerationRequest, ModerationResult
from providers.reading.errors import error_object, malformed
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_HEADERS = (("content-type", "application/json"), ("accept", "application/json"))
_IMAGES = Capabilities(frozenset({"vision", "image_url"}), frozenset())
_TEXT = Capabilities(frozenset(), frozenset())


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
