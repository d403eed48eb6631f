"""Decision models as judges: a statement for each category, whose probability is compared with a threshold.

The input is the text alone, never inside of a question, so that nothing in it can be read as one.
"""

from __future__ import annotations

from providers.adapter import Capabilities, Target
from providers.chat import prompt_text
from providers.inputs.decisions.contract import DecisionFormat
from providers.inputs.decisions.values import DecisionQuestion, DecisionRequest
from providers.moderations.values import CATEGORIES, ModerationAnswer, ModerationRequest, ModerationResult, Verdicts
from providers.value import Value
from providers.wire import WireRequest, WireResponse


class DecisionJudge(Value, frozen=True):
    """A decision model that judges. See `ModerationFormat`. An answer of a model is judged by itself."""

    form: DecisionFormat
    verdicts: Verdicts

    @property
    def most_inputs(self) -> int:
        return 1

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(frozenset(), frozenset())

    @property
    def categories(self) -> frozenset[str]:
        """The categories that its verdicts can have."""
        return self.verdicts.names

    def accepts(self, model: str) -> bool:
        return self.form.accepts(model)

    def build_request(self, request: ModerationRequest, target: Target) -> WireRequest:
        return self.form.build_request(self._decisions(request), target)

    def parse_response(self, response: WireResponse, target: Target) -> ModerationAnswer:
        """See `ModerationFormat`. A refused question leaves its category without a verdict, and no other."""
        sent = self.form.parse_response(response, target)
        decided = self._decisions(None).checked(sent, self.form.facts(target.model))
        pairs = [*zip(self.verdicts.thresholds, decided.decisions, strict=True)]
        found = {it.category: one.probability for it, one in pairs if one.probability is not None}
        applies = {it.category: found.get(it.category, 0.0) >= it.at for it, _ in pairs}
        names = (*CATEGORIES, *(name for name in applies if name not in CATEGORIES))
        result = ModerationResult(
            any(applies.values()),
            {name: applies.get(name, False) for name in names},
            {name: found.get(name, 0.0) for name in names},
            {name: ("text",) if applies.get(name) else () for name in names},
            refused=self.verdicts.names - found.keys(),
        )
        return ModerationAnswer((result,), decided.usage)

    def _decisions(self, request: ModerationRequest | None) -> DecisionRequest:
        content = request.inputs[0] if request is not None else ""
        text = content if isinstance(content, str) else prompt_text(content)
        questions = tuple(DecisionQuestion("predicate", it.ask) for it in self.verdicts.thresholds)
        return DecisionRequest("", text, questions)
