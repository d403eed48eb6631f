"""The canonical moderation request and its verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import ClassVar, TypeAlias

from providers.catalogue import FactsFile
from providers.chat import ImagePart, TextPart, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.matching.requirements import Requirements, moving_fields
from providers.reading.errors import malformed
from providers.served import CostBound, InputAnswer, InputRequest
from providers.value import Value, replace

CATEGORIES = tuple(
    "harassment harassment/threatening hate hate/threatening illicit illicit/violent self-harm "
    "self-harm/instructions self-harm/intent sexual sexual/minors violence violence/graphic".split()
)
"""OpenAI's categories. Every verdict has all of them, and the categories that its model adds."""
ModerationInput: TypeAlias = "str | tuple[TextPart | ImagePart, ...]"
"""A text, or texts and images that get one verdict together."""
_SENTENCES = FactsFile("providers.moderations", "sentences")
_REFUSED = "the model refused to decide about this text"
_MOST_VERDICT_TOKENS = 256
"""A guard model answers with a word or two, and the names of categories."""


class CategoryStatements(Value, frozen=True):
    """A statement for each category, which decision models are asked about, and the version of their words."""

    version: int
    sentences: Mapping[str, str]


@cache
def load_sentences() -> CategoryStatements:
    """Return our statements for OpenAI's categories, from `sentences.toml`."""
    return _SENTENCES.read_as(CategoryStatements)


class ModerationRequest(InputRequest, frozen=True):
    """A request for one verdict for each input."""

    use: ClassVar[str] = "moderations"

    model: str
    """The model that the client asked for, or empty if it named none."""
    inputs: tuple[ModerationInput, ...]
    """The content to classify."""
    extra: Mapping[str, object] = {}
    """Unknown top-level fields as parsed JSON."""
    prompt: str | None = None
    """The user's text that the inputs answer; None if they are not answers. Guard models judge both as a pair."""
    takes_contradictions: bool = False
    """A verdict that contradicts its categories is an answer. Otherwise it is a failure."""
    takes_refusals: bool = False
    """The same of a verdict without some categories, about which the model refused to decide."""

    def texts(self) -> Iterator[str]:
        """See `InputRequest`. The texts include the URLs of images."""
        if self.prompt is not None:
            yield from [self.prompt] * len(self.inputs)  # each is judged with it
        for content in self.inputs:
            if isinstance(content, str):
                yield content
            else:
                yield from (part.text if isinstance(part, TextPart) else part.url for part in content)

    def needs(self) -> Requirements:
        parts = [part for content in self.inputs if not isinstance(content, str) for part in content]
        urls = [part.url for part in parts if isinstance(part, ImagePart)]
        has = {"vision": bool(urls), "image_url": any(url[:5].lower() != "data:" for url in urls)}
        features = frozenset(name for name, is_needed in has.items() if is_needed)
        return Requirements(features, frozenset(self.extra), moving_fields(self.extra), use=self.use)

    def bound(self) -> CostBound:
        return CostBound([*self.texts()], _MOST_VERDICT_TOKENS * len(self.inputs))

    def checked(self, answer: ModerationAnswer, facts: object) -> ModerationAnswer:
        if len(answer.results) != len(self.inputs):
            raise malformed(f"{len(answer.results)} verdicts for {len(self.inputs)} inputs")
        if not self.takes_contradictions and any(result.contradicts_itself for result in answer.results):
            raise malformed("a verdict contradicts its categories")
        if not self.takes_refusals and any(result.refused for result in answer.results):
            raise ProviderFailed(Failure(FailureKind.REFUSED_HERE, _REFUSED))
        return answer


class ModerationResult(Value, frozen=True):
    """The verdict on one input."""

    flagged: bool
    """Whether the content is harmful."""
    categories: Mapping[str, bool]
    """Whether each category applies, by name."""
    scores: Mapping[str, float]
    """The confidence in each category, from 0 to 1. A model without scores has 0 and 1."""
    applied_types: Mapping[str, tuple[str, ...]] = {}
    """The kinds of input (`text`, `image`) that each category was found in."""
    controversial: bool = False
    """Whether a guard model flags it by its third verdict, between safe and unsafe."""
    refused: frozenset[str] = frozenset()
    """The categories without a verdict, because the model refused to decide about them."""

    @property
    def contradicts_itself(self) -> bool:
        """Whether it is not flagged although a category applies."""
        return not self.flagged and any(self.categories.values())


class ModerationAnswer(InputAnswer, frozen=True):
    """The verdicts of one request, in the order of its inputs."""

    results: tuple[ModerationResult, ...]
    """One verdict for each input."""
    usage: Usage | None = None
    """Token counts, or None if the provider reported none."""


def as_refusal(failed: Failure) -> Failure:
    """Return a failure by which a judge refuses a text. It shows nothing about the judge or the text."""
    return replace(failed, kind=FailureKind.REFUSED_HERE, message=_REFUSED, about=None)


def is_refusal(failed: Failure) -> bool:
    """Return whether a failure is that of `as_refusal`."""
    return failed.message == _REFUSED


def verdict_of(found: frozenset[str], *, flagged: bool, controversial: bool = False) -> ModerationResult:
    """Return the verdict of a model that names categories and has no scores."""
    names = (*CATEGORIES, *sorted(found - {*CATEGORIES}))
    categories = {name: name in found for name in names}
    scores = {name: float(applies) for name, applies in categories.items()}
    kinds = {name: ("text",) if name in found else () for name in names}
    return ModerationResult(flagged, categories, scores, kinds, controversial)


class Threshold(Value, frozen=True):
    """A category of a judge: it applies from this probability on. `ask` is the statement."""

    category: str
    at: float
    ask: str


class Verdicts(Value, frozen=True):
    """The categories of a judge, in the order of its questions, and the version of the statements that are ours."""

    thresholds: tuple[Threshold, ...]
    version: int

    def __str__(self) -> str:
        """Return the thresholds as a plan shows them."""
        shown = ", ".join(f"{it.category} {it.at:g}" for it in self.thresholds)
        return f"{shown}; statements {self.version}"

    @property
    def names(self) -> frozenset[str]:
        return frozenset(it.category for it in self.thresholds)
