"""The optional protocol of an adapter whose provider classifies content."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from providers.adapter import Adapter, Capabilities, InputFormat
from providers.moderations.guard_models import GuardKind, GuardModel, guard_kind_of
from providers.moderations.openai_format import OpenAIModerations
from providers.moderations.values import CATEGORIES, ModerationAnswer, ModerationRequest


class ModerationFormat(InputFormat[ModerationRequest, ModerationAnswer], Protocol):
    """A way to ask for verdicts. An answer has one for each input. No clear verdict is a failure."""

    @property
    def most_inputs(self) -> int:
        """The most inputs of one call. A longer request is split."""

    @property
    def capabilities(self) -> Capabilities:
        """The features: `vision` and `image_url` if it classifies images too."""

    def accepts(self, model: str) -> bool:
        """Return whether a model classifies content."""


@runtime_checkable
class Moderates(Protocol):
    """An optional member of an adapter, with the provider's moderations. The adapter itself classifies errors."""

    @property
    def moderations(self) -> ModerationFormat | None:
        """The wire format, or None if the provider classifies no content."""


@runtime_checkable
class KnowsCategories(Protocol):
    """An optional member of a `ModerationFormat` whose categories are known."""

    @property
    def categories(self) -> frozenset[str]:
        """The categories that its verdicts can have."""


def moderation_format(adapter: Adapter, model: str, guard: GuardKind | None) -> ModerationFormat | None:
    """Return how a model is asked for verdicts, or None if it gives none.

    `guard` is how the model answers as a chat, if the operator has stated it.
    """
    kind = guard or guard_kind_of(model)
    if kind is not None:
        return GuardModel(adapter, kind)
    own = adapter.moderations if isinstance(adapter, Moderates) else None
    return own if own is not None and own.accepts(model) else None


def known_categories(moderations: ModerationFormat) -> frozenset[str] | None:
    """Return the categories that a verdict can have, OpenAI's without the part after a slash.

    Return None for a server of the operator's own, which may have any.
    """
    match moderations:
        case KnowsCategories():
            names = moderations.categories
        case OpenAIModerations(is_own=False):
            names = frozenset(CATEGORIES)
        case _:
            return None
    return frozenset(name.partition("/")[0] for name in names)
