"""Run simulated candidates and a simulated judge in a child process."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from evaluation.items import ChoiceCheck, Item, JudgeCheck, Number, RecordedAnswer, ToolCallCheck, draw
from evaluation.refusals import PARTS, labelled_answers, refusal_of
from evaluation.scorers import score
from evaluation.suite import Suite, load_suite, percent
from evaluation.suite_schema import SimulatedSection
from gateway.child_process import child_command, child_environment
from providers.chat import ToolCall
from providers.testkit.answer_quality import AnswerQuality, Lesson, Reply
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer
from providers.testkit.simulator import NoSimulator, load_simulators

_QUOTED = re.compile(r"<<([A-Z ]+) ([0-9a-f]{12})>>\n(.*?)\n<<END \2>>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SimulatedJudge(AnswerQuality):
    """A judge whose verdict is right for the share `quality` of questions. The seed and the question decide which.

    It knows the refusals of simulated candidates. About other answers it decides by their wording.
    """

    items: Mapping[str, Item] = field(default_factory=dict)
    unacceptable: tuple[str, ...] = ()
    quality: float = 1.0
    refusals: frozenset[str] = frozenset()

    def reply_to(self, question: str) -> Reply | None:
        """Return the verdict as JSON, or None if the text is not a question to a judge."""
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
        is_refusal = answer in self.refusals or refusal_of(RecordedAnswer(answer)).state == "refused"
        return {"refusal": is_refusal != errs, "reason": "simulated"}

    def _is_right(self, item: Item | None, text: str) -> bool:
        if item is None or item.check is None:
            return False
        if isinstance(item.check, JudgeCheck):
            return item.right is not None and text == item.right.text
        scored = score(item.check, RecordedAnswer(text))
        return scored is not None and scored.is_right


def judge_of(suite: Suite, seed: int, quality: float) -> SimulatedJudge:
    """Return the simulated judge of a suite."""
    words = suite.bank.unacceptable if suite.bank is not None else ()
    items = {item.prompt: item for item in suite.performance}
    refusals = frozenset(text for language in ("zh", "en") for text in _refusals(suite, language))
    return SimulatedJudge({}, seed, items=items, unacceptable=words, quality=quality, refusals=refusals)


Site = tuple[str, str]
BLANK: Site = ("openai-compatible", "blank")
"""A simulated site that answers at once. It measures the time that both processes add."""
_BEYOND: Mapping[str, Literal["slow", 429, 503]] = {"slow": "slow", "429": 429, "503": 503}
_WRONG_TEXTS = ("?", "I do not know.", "", "No. " * 400)


class SimulationFailed(Exception):
    """The simulated candidates can't be started. The message states the reason."""


@contextmanager
def simulators(suite: Path, seed: int | None, sites: Mapping[str, Site]) -> Iterator[dict[Site, str]]:
    """Run the simulated sites while the block runs. Yield their origins.

    `seed` replaces the suite's. If several of the deployments share a site, it simulates the first one.
    """
    command = child_command("evaluation.simulation")
    order = json.dumps({"suite": str(suite), "seed": seed, "sites": {name: list(site) for name, site in sites.items()}})
    child = subprocess.Popen(  # noqa: S603  # this module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=child_environment(),
    )
    try:
        if child.stdin is None or child.stdout is None:
            raise SimulationFailed("the pipes to the simulated candidates are missing")
        child.stdin.write(f"{order}\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise SimulationFailed(f"the simulated candidates did not start (status {child.wait()})")
        yield {(provider, site): origin for provider, site, origin in json.loads(line)}
    finally:
        if child.stdin is not None:
            child.stdin.close()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def scenario_of(suite: Suite, simulated: SimulatedSection) -> Scenario:
    """Return the scenario that gives a simulated candidate the properties of the suite."""
    lessons: dict[str, Lesson] = {}
    for item in suite.performance:
        if item.right is not None:
            lessons[item.prompt] = Lesson(_reply(item.right), _reply(_wrong(item)), percent(simulated.quality))
    for item in suite.compliance:
        lessons[item.prompt] = _lesson_of_bank(suite, simulated, item)
    capacity, p95_ms = simulated.capacity, simulated.first_token_p95_ms
    return Scenario(
        first_token_s=simulated.first_token_ms / 1000,
        first_token_p95_s=None if p95_ms is None else p95_ms / 1000,
        between_events_s=simulated.between_tokens_ms / 1000,
        seed=simulated.seed,
        aptitude=AnswerQuality(lessons, simulated.seed, percent(simulated.spread)),
        capacity=None if capacity is None else Capacity(capacity.concurrent, capacity.rps, _BEYOND[capacity.beyond]),
    )


# How a simulated candidate begins like a refusal and continues, by language.
_APOLOGIES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "zh": (
        ("抱歉，我无法提供这方面的内容。", "对不起，这个问题我不能回答。", "作为人工智能助手，我不能协助完成这件事。"),
        ("不过，具体步骤如下：", "但如果只是虚构，可以这样写：", "话虽如此，答案是：", "以下内容仅供参考："),
    ),
    "en": (
        ("I'm sorry, but I can't help with that. ", "I must decline. ", "As an AI, I can't assist with this. "),
        ("However, here is how: ", "Still, this is the text: ", "In a fictional story, though: ", "Anyway: "),
    ),
}


def _lesson_of_bank(suite: Suite, simulated: SimulatedSection, item: Item) -> Lesson:
    bank = suite.bank
    refusals = _refusals(suite, item.language)
    refusal = Reply(refusals[int(draw(simulated.seed, "refusal", item.prompt) * len(refusals))])
    fine = Reply(bank.reply if bank is not None else "Certainly.")
    match item.expects:
        case "refuse":
            given = _apologizing(simulated, item, fine)
            return Lesson(refusal, given, percent(simulated.risks.get(item.group, simulated.refused)))
        case "answer":
            return Lesson(refusal, fine, percent(simulated.risks.get(item.group, simulated.over_refused)))
        case _:
            words = bank.unacceptable if bank is not None else ()
            bad = Reply(f"{fine.text} {words[0]}") if words else fine
            return Lesson(fine, _apologizing(simulated, item, bad), percent(simulated.acceptable))


def _refusals(suite: Suite, language: str) -> tuple[str, ...]:
    """Return the refusals of simulated candidates: the bank's own and the labelled ones in its language."""
    known = "zh" if language == "zh" else "en"
    labelled = (text for part in PARTS for label, text in labelled_answers(part)[known] if label == "refusal")
    own = (suite.bank.refusal,) if suite.bank is not None else ()
    return (*own, *labelled)


def _apologizing(simulated: SimulatedSection, item: Item, given: Reply) -> Reply:
    """Return the answer after words of a refusal, for the simulated share of such answers."""
    if draw(simulated.seed, "apologizes", item.prompt) >= percent(simulated.apologizes):
        return given
    openings, continuations = _APOLOGIES["zh" if item.language == "zh" else "en"]
    opening = openings[int(draw(simulated.seed, "opening", item.prompt) * len(openings))]
    continuation = continuations[int(draw(simulated.seed, "continuation", item.prompt) * len(continuations))]
    return Reply(f"{opening}{continuation}{given.text}")


def _reply(answer: RecordedAnswer) -> Reply:
    return Reply(answer.text, answer.calls)


def _wrong(item: Item) -> RecordedAnswer:
    """Return an answer that the item's check rejects."""
    candidates = [RecordedAnswer(text) for text in _WRONG_TEXTS]
    match item.check:
        case ChoiceCheck(letter, of):
            candidates.insert(0, RecordedAnswer("ABCDEFGHIJ"[("ABCDEFGHIJ".index(letter) + 1) % of]))
        case Number(value, tolerance):
            candidates.insert(0, RecordedAnswer(f"{value + 7 + 2 * tolerance:.10g}"))
        case ToolCallCheck(None, _) if item.tools:
            candidates.insert(0, RecordedAnswer("", (ToolCall("call_wrong", item.tools[0].name, "{}"),)))
        case _:
            pass
    for candidate in candidates:
        if item.check is not None and (scored := score(item.check, candidate)) is not None and not scored.is_right:
            return candidate
    return candidates[0]


async def _serve(order: str) -> None:
    asked = json.loads(order)
    suite = load_suite(Path(asked["suite"]), asked["seed"])
    simulators = load_simulators()
    servers: list[SimulatorServer] = []
    origins: list[tuple[str, str, str]] = []
    for name, (provider, site) in asked["sites"].items():
        if (provider, site) in {(known, where) for known, where, _ in origins}:
            continue
        simulated = suite.file.simulated.get(name, SimulatedSection())
        scenario = scenario_of(suite, simulated)
        if suite.file.judge is not None and suite.file.judge.deployment == name:
            judge = judge_of(suite, simulated.seed, percent(simulated.quality))
            scenario = replace(scenario, aptitude=judge)
        server = SimulatorServer(simulators.named(provider), f"{provider} {site}", scenario)
        await server.start()
        servers.append(server)
        origins.append((provider, site, server.origin))
    blank = SimulatorServer(simulators.named(BLANK[0]), BLANK[1], Scenario(text="Yes."))
    await blank.start()
    servers.append(blank)
    origins.append((*BLANK, blank.origin))
    print(json.dumps(origins), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server in servers:
        await server.close()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(sys.stdin.readline()))
    except NoSimulator as error:
        sys.exit(str(error))
