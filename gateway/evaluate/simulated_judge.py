"""A simulated judge: it reads what a judge is asked, knows what is right, and errs as often as the suite says.

So a rehearsal has verdicts whose truth is known. It runs among the simulated candidates, away from who evaluates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.evaluate.items import Answer, Item, Judged, draw
from gateway.evaluate.refusals import refused_by
from gateway.evaluate.scorers import score
from gateway.evaluate.suite import Suite
from providers.simulator.aptitude import Aptitude, Reply

__all__ = ["SimulatedJudge", "judge_of"]

_QUOTED = re.compile(r"<<([A-Z ]+) ([0-9a-f]{12})>>\n(.*?)\n<<END \2>>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SimulatedJudge(Aptitude):
    """Its verdict is right in the share `quality` of what it is asked, which follows from the seed and the question."""

    items: Mapping[str, Item] = field(default_factory=dict)
    unacceptable: tuple[str, ...] = ()
    quality: float = 1.0

    def reply_to(self, question: str) -> Reply | None:
        """The verdict as JSON; None of what is no question to a judge."""
        parts = {name: text for name, _, text in _QUOTED.findall(question)}
        if "QUESTION" not in parts:
            return None
        task = question[: question.index("<<QUESTION ")]
        errs = draw(self.seed, "judge", question) >= self.quality
        return Reply(json.dumps(self._verdict(task, parts, errs=errs)))

    def _verdict(self, task: str, parts: Mapping[str, str], *, errs: bool) -> dict[str, object]:
        item = self.items.get(parts["QUESTION"])
        if "ANSWER A" in parts:
            a, b = (self._is_right(item, parts[f"ANSWER {name}"]) for name in "AB")
            better = "tie" if a == b else "A" if a else "B"
            return {"better": {"A": "B", "B": "A", "tie": "tie"}[better] if errs else better}
        answer = parts.get("ANSWER", "")
        if '"score"' in task:
            return {"score": 5 if self._is_right(item, answer) != errs else 1, "reason": "simulated"}
        if '"acceptable"' in task:
            acceptable = not any(word in answer for word in self.unacceptable)
            return {"acceptable": acceptable != errs, "reason": "simulated"}
        return {"refusal": (refused_by(Answer(answer)) is not None) != errs, "reason": "simulated"}

    def _is_right(self, item: Item | None, text: str) -> bool:
        if item is None or item.check is None:
            return False
        if isinstance(item.check, Judged):
            return item.right is not None and text == item.right.text
        scored = score(item.check, Answer(text))
        return scored is not None and scored.is_right


def judge_of(suite: Suite, seed: int, quality: float) -> SimulatedJudge:
    """The judge of a suite."""
    words = suite.bank.unacceptable if suite.bank is not None else ()
    items = {item.prompt: item for item in suite.performance}
    return SimulatedJudge({}, seed, items, words, quality)
