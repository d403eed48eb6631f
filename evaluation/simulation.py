"""Run simulated candidates and a simulated judge, whose true quality the suite states, in a child process."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evaluation.checks import LETTERS, Call, Letter, Number, RecordedAnswer, Rubric
from evaluation.questions import Item, Suite, draw, load_suite
from evaluation.refusals import refusal_of
from evaluation.suite import SimulatedSection
from gateway.child_process import child_command, child_environment
from providers.chat import ToolCall
from providers.testkit.answer_quality import AnswerQuality, Lesson, Reply
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer
from providers.testkit.simulator import NoSimulator, load_simulators
from providers.value import replace

_QUOTED = re.compile(r"<<([A-Z ]+) ([0-9a-f]{12})>>\n(.*?)\n<<END \2>>", re.DOTALL)
_BEYOND: Mapping[str, Literal["slow", 429, 503]] = {"slow": "slow", "429": 429, "503": 503}
_WORDS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_REFUSALS: Mapping[str, Sequence[str]] = _WORDS["refusals"]
_CONTINUES: Mapping[str, Sequence[str]] = _WORDS["continues"]
Sites = Mapping[tuple[str, str], str]
"""The origins of simulated sites, by provider and site."""


class SimulationFailed(Exception):
    """The simulated candidates can't be started. The message states the reason."""


@contextmanager
def simulators(suite: Path, seed: int | None, sites: Mapping[str, tuple[str, str]]) -> Iterator[Sites]:
    """Run the simulated sites while the block runs. Yield their origins.

    `seed` replaces the suite's. If several of the deployments share a site, it simulates the first one.
    """
    if not sites:
        yield {}
        return
    order = json.dumps({"suite": str(suite), "seed": seed, "sites": {name: list(site) for name, site in sites.items()}})
    child = subprocess.Popen(  # noqa: S603  # this module
        child_command("evaluation.simulation"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=child_environment(),
    )
    try:
        assert child.stdin is not None and child.stdout is not None, "both are pipes"  # noqa: S101, PT018  # for mypy
        child.stdin.write(f"{order}\n")
        child.stdin.flush()
        line = child.stdout.readline()
        if not line:
            raise SimulationFailed(f"the simulated candidates did not start (status {child.wait()})")
        yield {(provider, site): origin for provider, site, origin in json.loads(line)}
    finally:
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        child.wait()


@dataclass(frozen=True, slots=True)
class SimulatedJudge(AnswerQuality):
    """A judge whose verdict is right for the share `quality` of questions. The seed and the question decide which."""

    items: Mapping[str, Item] = field(default_factory=dict)
    unacceptable: tuple[str, ...] = ()
    quality: float = 1.0
    refusals: frozenset[str] = frozenset()

    def reply_to(self, question: str) -> Reply | None:
        """Return the verdict as JSON, or None if the text is not a question to a judge."""
        parts = {name: text for name, _, text in _QUOTED.findall(question)}
        if "QUESTION" not in parts:
            return None
        task, answer = question[: question.index("<<QUESTION ")], parts.get("ANSWER", "")
        errs = draw(self.seed, "judge", question) >= self.quality
        item = self.items.get(parts["QUESTION"])
        if '"score"' in task:
            is_right = item is not None and item.right is not None and answer == item.right.text
            return Reply(json.dumps({"score": 5 if is_right != errs else 1, "reason": "simulated"}))
        if '"acceptable"' in task:
            is_acceptable = not any(word in answer for word in self.unacceptable)
            return Reply(json.dumps({"acceptable": is_acceptable != errs, "reason": "simulated"}))
        is_refusal = answer in self.refusals or refusal_of(RecordedAnswer(answer)) == "refused"
        return Reply(json.dumps({"refusal": is_refusal != errs, "reason": "simulated"}))


def judge_of(suite: Suite, seed: int, quality: float) -> SimulatedJudge:
    """Return the simulated judge of a suite. It knows the refusals of simulated candidates."""
    words = tuple(suite.bank.unacceptable) if suite.bank is not None else ()
    items = {item.prompt: item for item in suite.performance if isinstance(item.check, Rubric)}
    refusals = frozenset([*_REFUSALS["zh"], *_REFUSALS["en"], *([suite.bank.refusal] if suite.bank else [])])
    return SimulatedJudge({}, seed, items=items, unacceptable=words, quality=quality, refusals=refusals)


def scenario_of(suite: Suite, simulated: SimulatedSection) -> Scenario:
    """Return the scenario that gives a simulated candidate the properties of the suite."""
    lessons = {
        item.prompt: Lesson(_reply(item.right), _reply(_wrong(item)), simulated.quality)
        for item in suite.performance
        if item.right is not None
    }
    lessons |= {item.prompt: _lesson_of_bank(suite, simulated, item) for item in suite.compliance}
    capacity, p95_ms = simulated.capacity, simulated.first_token_p95_ms
    return Scenario(
        first_token_s=simulated.first_token_ms / 1000,
        first_token_p95_s=None if p95_ms is None else p95_ms / 1000,
        between_events_s=simulated.between_tokens_ms / 1000,
        seed=simulated.seed,
        aptitude=AnswerQuality(lessons, simulated.seed, simulated.spread),
        capacity=None if capacity is None else Capacity(capacity.concurrent, capacity.rps, _BEYOND[capacity.beyond]),
    )


def _lesson_of_bank(suite: Suite, simulated: SimulatedSection, item: Item) -> Lesson:
    language, bank = "zh" if item.language == "zh" else "en", suite.bank

    def drawn(texts: Sequence[str], purpose: str) -> str:
        return texts[int(draw(simulated.seed, purpose, item.prompt) * len(texts))]

    def given(text: str) -> Reply:
        """Return the answer, after words of a refusal for the simulated share of such answers."""
        if draw(simulated.seed, "apologizes", item.prompt) >= simulated.apologizes:
            return Reply(text)
        return Reply(f"{drawn(_REFUSALS[language][:2], 'opening')}{drawn(_CONTINUES[language], 'continuation')}{text}")

    refusal = Reply(drawn(_REFUSALS[language], "refusal"))
    fine = bank.reply if bank is not None else "Certainly."
    if item.expects == "refuse":
        return Lesson(refusal, given(fine), simulated.refused)
    if item.expects == "answer":
        return Lesson(refusal, Reply(fine), simulated.over_refused)
    words = bank.unacceptable if bank is not None else []
    return Lesson(Reply(fine), given(f"{fine} {words[0]}" if words else fine), simulated.acceptable)


def _reply(answer: RecordedAnswer) -> Reply:
    return Reply(answer.text, answer.calls)


def _wrong(item: Item) -> RecordedAnswer:
    """Return an answer that the item's check rejects."""
    candidates = [RecordedAnswer(text) for text in ("?", "I do not know.", "", "No. " * 400)]
    match item.check:
        case Letter(letter, of):
            candidates.insert(0, RecordedAnswer(LETTERS[(LETTERS.index(letter) + 1) % of]))
        case Number(value, tolerance):
            candidates.insert(0, RecordedAnswer(f"{value + 7 + 2 * tolerance:.10g}"))
        case Call(None, _) if item.tools:
            candidates.insert(0, RecordedAnswer("", (ToolCall("call_wrong", item.tools[0].name, "{}"),)))
        case _:
            pass
    wrong = (one for one in candidates if item.check is not None and item.check.wrong(one) is not None)
    return next(wrong, candidates[0])


async def _serve(order: str) -> None:
    asked = json.loads(order)
    suite, known = load_suite(Path(asked["suite"]), asked["seed"]), load_simulators()
    servers: dict[tuple[str, str], SimulatorServer] = {}
    for name, (provider, site) in asked["sites"].items():
        if (provider, site) in servers:
            continue
        simulated = suite.file.simulated.get(name, SimulatedSection())
        scenario = scenario_of(suite, simulated)
        if suite.file.judge is not None and suite.file.judge.deployment == name:
            scenario = replace(scenario, aptitude=judge_of(suite, simulated.seed, simulated.quality))
        servers[provider, site] = SimulatorServer(known.named(provider), f"{provider} {site}", scenario)
        await servers[provider, site].start()
    print(json.dumps([(*site, server.origin) for site, server in servers.items()]), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server in servers.values():
        await server.close()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(sys.stdin.readline()))
    except NoSimulator as error:
        sys.exit(str(error))
