"""OpenAI's fields that have no canonical word and go to `ChatRequest.extra`: their types, and which say nothing.

Source: the official Python SDK 3.51 (`CompletionCreateParams`), read 2026-11-20. Values beyond the types are the
provider's to judge: they change more often than this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from providers.codec.fields import boolean, choice, items, mapping, text
from providers.failures import UnsupportedFeature

__all__ = ["CHECKS", "MOST_WITHIN", "holds_too_much"]

MOST_WITHIN = 10_000
"""Objects and lists in all fields without a word of ours: each is looked into for what moves data."""

_HOLDERS = (dict, list)
_Source = Mapping[str, object]
_Check = Callable[[_Source, str], bool]


def _text(source: _Source, name: str) -> bool:
    text(source, name, name)
    return True


def _object(source: _Source, name: str) -> bool:
    mapping(source[name], name)
    return True


def _verbosity(source: _Source, name: str) -> bool:
    choice(source[name], name, ("low", "medium", "high"))
    return True


def _modalities(source: _Source, name: str) -> bool:
    for position, entry in enumerate(items(source[name], name)):
        place = f"{name}[{position}]"
        if choice(entry, place, ("text", "audio")) == "audio":
            raise UnsupportedFeature("audio_output", f"`{place}`: answers are text here; ask for ['text']", place)
    return False


CHECKS: dict[str, _Check] = {
    # Not to be stored is what happens anyway: sites pin it, and it is the default elsewhere.
    "store": lambda source, name: bool(boolean(source, name, name)),
    "modalities": _modalities,
    "verbosity": _verbosity,
    "service_tier": _text,
    "prompt_cache_key": _text,
    "prompt_cache_retention": _text,
    "safety_identifier": _text,
    "metadata": _object,
    "prediction": _object,
    "audio": _object,
    "moderation": _object,
    "prompt_cache_options": _object,
    "web_search_options": _object,
}
"""By name; raises for a wrong type, and says whether the field is kept: null and absent never come here."""


def holds_too_much(fields: _Source) -> bool:
    """Whether there are more objects and lists in these fields than are looked into."""
    waiting: list[object] = [fields]
    seen = 0
    while waiting and seen <= MOST_WITHIN:
        one = waiting.pop()
        seen += 1
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        waiting += [inner for inner in inside if isinstance(inner, _HOLDERS)]
    return seen > MOST_WITHIN
