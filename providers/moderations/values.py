"""The canonical moderation request and its verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias

from providers.chat import ImagePart, TextPart, Usage
from providers.value import Value

CATEGORIES = tuple(
    "harassment harassment/threatening hate hate/threatening illicit illicit/violent self-harm "
    "self-harm/instructions self-harm/intent sexual sexual/minors violence violence/graphic".split()
)
"""OpenAI's categories. Every verdict has all of them, and the categories that its model adds."""
ModerationInput: TypeAlias = "str | tuple[TextPart | ImagePart, ...]"
"""A text, or texts and images that get one verdict together."""


class ModerationRequest(Value, frozen=True):
    """A request for one verdict for each input.

    Attributes:
        model: The model that the client asked for, or empty if it named none.
        inputs: The content to classify.
        extra: Unknown top-level fields as parsed JSON.
        prompt: The user's text that the inputs answer; None if they are not answers. Guard models judge both as a pair.
        stream: Always false: the answer is one JSON body.
        takes_contradictions: A verdict that contradicts its categories is an answer. Otherwise it is a failure.
        folded: Always false.
    """

    stream: ClassVar[bool] = False
    folded: ClassVar[bool] = False

    model: str
    inputs: tuple[ModerationInput, ...]
    extra: Mapping[str, object] = {}
    prompt: str | None = None
    takes_contradictions: bool = False


class ModerationResult(Value, frozen=True):
    """The verdict on one input.

    Attributes:
        flagged: Whether the content is harmful.
        categories: Whether each category applies, by name.
        scores: The confidence in each category, from 0 to 1. A model without scores has 0 and 1.
        applied_types: The kinds of input (`text`, `image`) that each category was found in.
        controversial: Whether a guard model flags it by its third verdict, between safe and unsafe.
    """

    flagged: bool
    categories: Mapping[str, bool]
    scores: Mapping[str, float]
    applied_types: Mapping[str, tuple[str, ...]] = {}
    controversial: bool = False

    @property
    def contradicts_itself(self) -> bool:
        """Whether it is not flagged although a category applies."""
        return not self.flagged and any(self.categories.values())


class ModerationAnswer(Value, frozen=True):
    """The verdicts of one request, in the order of its inputs.

    Attributes:
        results: One verdict for each input.
        usage: Token counts, or None if the provider reported none.
    """

    results: tuple[ModerationResult, ...]
    usage: Usage | None = None


def verdict_of(found: frozenset[str], *, flagged: bool, controversial: bool = False) -> ModerationResult:
    """Return the verdict of a model that names categories and has no scores."""
    names = (*CATEGORIES, *sorted(found - {*CATEGORIES}))
    categories = {name: name in found for name in names}
    scores = {name: float(applies) for name, applies in categories.items()}
    kinds = {name: ("text",) if name in found else () for name in names}
    return ModerationResult(flagged, categories, scores, kinds, controversial)
