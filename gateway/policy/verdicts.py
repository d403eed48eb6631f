"""Read the categories of a verdict on a text. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from providers.moderations.values import CATEGORIES, ModerationResult

_STANDARD = frozenset(CATEGORIES)


def applying(result: ModerationResult) -> list[str]:
    """Return the categories that a verdict has as true, whatever else it states."""
    return [name for name, applies in result.categories.items() if applies]


def found_in(result: ModerationResult, categories: Iterable[str]) -> frozenset[str]:
    """Return those of these categories that a verdict has. A name of OpenAI counts without the part after a slash."""
    return covering(applying(result)) & frozenset(categories)


def covering(names: Iterable[str]) -> frozenset[str]:
    """Return these categories, and those of OpenAI without the part after a slash."""
    return frozenset([one for name in names for one in (name, _without_slash(name))])


def _without_slash(name: str) -> str:
    return name.partition("/")[0] if name in _STANDARD else name


def counting(result: ModerationResult, excepted: frozenset[str]) -> frozenset[str] | None:
    """Return the categories of a flagged verdict for moderation. None: all that it has is in the excepted categories.

    A verdict that names no category counts.
    """
    names = applying(result)
    left = frozenset(name for name in names if not {name, _without_slash(name)} & excepted)
    return left if left or not names else None
