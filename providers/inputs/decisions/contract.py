"""The optional protocol of an adapter whose provider decides (`decisions`), and the use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar, Protocol, runtime_checkable

from providers.adapter import Adapter, InputFormat
from providers.chat import summed
from providers.failures import Failure, FailureKind
from providers.inputs.decisions.facts import DecisionFacts, load_decision_facts
from providers.inputs.decisions.values import MOST_QUESTIONS, DecisionRequest, DecisionResult, SentDecisions
from providers.matching.requirements import param_of
from providers.reading.errors import MESSAGES
from providers.served import InputUse, ServingDeployment, SizedNeeds
from providers.value import replace

_LACKS = {
    "choices": "has more choices than a deployment of this region takes: at most {}",
    "levels": "has more levels than a deployment of this region takes: at most {}",
    "types": "has a boolean and the same word as a text, which no deployment of this region distinguishes",
    "characters": "is empty, or has white space at an end or control characters, which this region does not take",
    "vision": "has an image, and no deployment of this region decides about images",
    "image_url": "has an image at a URL, which no deployment of this region fetches: send it as a `data:` URL",
}
"""The words for what no deployment of a region can express, by the last word of a feature."""
_NO_PATH = frozenset({404, 405, 501})
_OF_LABELS = ("label", "token", "template", "option", "choice", "level", "question")
"""The words by which a server refuses questions that its model or its template can't answer."""


class DecisionFormat(InputFormat[DecisionRequest, SentDecisions], Protocol):
    """A provider's wire format for decisions. Names of questions are not sent."""

    def accepts(self, model: str) -> bool:
        """Return whether a model decides."""

    def facts(self, model: str) -> DecisionFacts:
        """Return the facts of a model, or those of a usual model of the provider if it is unknown."""


@runtime_checkable
class Decides(Protocol):
    """An optional member of an adapter, with the provider's decisions. The adapter itself classifies errors."""

    @property
    def decisions(self) -> DecisionFormat | None:
        """The wire format, or None if the provider has no decisions."""


class Decisions(InputUse, frozen=True):
    """Probabilities of the closed answers to questions."""

    is_offered: ClassVar[bool] = True

    def format_of(self, adapter: Adapter, model: str = "", guard: Any = None) -> DecisionFormat | None:
        form: DecisionFormat | None = getattr(adapter, self.name, None)
        return form if form is not None and (not model or form.accepts(model)) else None

    def listed(self, provider: str) -> Mapping[str, object]:
        found = load_decision_facts(provider)
        return found.models if found is not None else {}

    def fitting(self, asked: ServingDeployment, needs: SizedNeeds) -> frozenset[str]:
        facts = self.facts_at([asked])
        return frozenset(name for one in facts for name, size in needs.limits if one.fits(name, size))

    def refusal(self, missing: Set[str], every: Sequence[ServingDeployment]) -> tuple[str, str]:
        name = min(missing)
        path, _, word = name.rpartition(".")
        most = max((getattr(facts, f"most_{word}", 0) for facts in self.facts_at(every)), default=0)
        feature = name if path else f"input.{name}"
        return feature, f"`{param_of(feature)}` {_LACKS[word].format(most)}"

    def offer(self, able: Sequence[ServingDeployment]) -> Mapping[str, object] | None:
        if not (facts := self.facts_at(able)):
            return None
        return {
            "questions": MOST_QUESTIONS,
            "choices": max(one.most_choices for one in facts),
            "levels": max(one.most_levels for one in facts),
            "images": any("vision" in one.features for one in facts),
        }

    def doubt(self, form: DecisionFormat, asked: ServingDeployment) -> tuple[str, str] | None:
        return form.facts(asked.model).doubts.get(asked.origin)

    def judged(self, failed: Failure, asked: ServingDeployment) -> Failure:
        """See `InputUse`. A server without the path, or whose model has no such labels, still answers chats."""
        has_no_path = failed.status in _NO_PATH and "model" not in f"{failed.code or ''} {failed.param or ''}"
        is_own, words = not asked.adapter.sites, failed.detail.lower()
        refuses = failed.kind is FailureKind.INVALID_REQUEST and is_own and any(word in words for word in _OF_LABELS)
        if not has_no_path and not refuses:
            return failed
        kind = FailureKind.REFUSED_HERE
        return replace(failed, kind=kind, message=MESSAGES[kind], about=None)

    def calls_of(self, request: DecisionRequest, route: Sequence[ServingDeployment]) -> tuple[DecisionRequest, ...]:
        """See `InputUse`. All calls but the last one have as many questions as every deployment of the route takes."""
        asked, most = request.questions, min((one.most_questions for one in self.facts_at(route)), default=1)
        if len(asked) <= most:
            return (request,)
        starts = [(at, at + most) for at in range(0, len(asked), most)]
        return tuple(
            replace(request, questions=asked[at:end], before=asked[:at], after=asked[end:]) for at, end in starts
        )

    def joined(self, answers: Sequence[DecisionResult]) -> DecisionResult:
        """Return one answer with all decisions in order. The usage is the sum, or None if one answer has no usage."""
        usage = summed([answer.usage for answer in answers])
        return DecisionResult(tuple(it for answer in answers for it in answer.decisions), usage, answers[0].model)
