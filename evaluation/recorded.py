"""Run `gateway evaluate --shadow`: score the answers that a shadow recorded, and the answers that clients got.

Both are candidates that have answered already, so their answers have the same marks, judge and report as any other.
Text of users leaves the state directory only if the config keeps texts of this shadow now. It goes into the directory
of the run and to the judge. The judge therefore needs the same approval as a step of the route; nothing is waived.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from evaluation.asking import CandidateClient, NotPermitted, QuestionResult
from evaluation.checks import RecordedAnswer, Rubric
from evaluation.figures import FIGURES, Mark, Results, compliance_mark, performance_mark
from evaluation.judge import NOT_ASKED, JudgeVerdict, questions_about, verdicts_of
from evaluation.measuring import Evaluation
from evaluation.questions import Item, Suite
from evaluation.refusals import refusal_of
from evaluation.report import FORMAT, measured, percentage, plain, utc_text, write_report
from evaluation.run import Compile, OptionsError, RunOptions, assistant_of, choose_suite, measure, with_known_prices
from evaluation.simulation import simulators
from evaluation.statistics import compare, difference, sign_flip_p
from evaluation.store import RunStore
from evaluation.suite import SuiteFile
from evaluation.texts import language_of, visible_line
from gateway.features.shadow.model import Shadow, ShadowRecord
from gateway.features.shadow.state import read_shadow_records
from gateway.model.assistant import Assistant
from gateway.operator_errors import StateError
from providers.chat import ToolCall
from providers.value import Value

_ROLE = re.compile(r"^(?:system|developer|user|assistant|tool): ", re.MULTILINE)
_OTHER, _AXIS = "who answered", "traffic"
_UNASKED = JudgeVerdict(None, NOT_ASKED)
Recorded = tuple[int, ShadowRecord]


class ShadowOptions(RunOptions, frozen=True, kw_only=True):
    """The options of the command. `state` is the state directory; without a suite, there are no checks."""

    state: Path
    suite: str | None


def run_shadow(options: ShadowOptions, compile_with: Compile) -> int:
    """Score the recorded answers and write the report. Return the exit status 0.

    Raises OptionsError, StoreError, ConfigRejected or SimulationFailed if the evaluation can't run.
    """
    path, suite = (Path(), Suite(SuiteFile(version=1, name="shadow")))
    if options.suite is not None:
        path, suite = choose_suite(options.suite, None)
    config = compile_with(None)
    if options.region not in config.regions:
        raise OptionsError(f"there is no region {options.region!r} in the config")
    assistant = config.assistants[assistant_of(config, options.assistant)]
    judge = suite.file.judge.deployment if suite.file.judge is not None else None
    if judge is not None and judge not in config.deployments:
        raise OptionsError(f"the judge {judge!r} is not a deployment of the config")
    records = _read(options, assistant)
    texts = sum(1 for _ in _answers(records))
    print(f"{len(records):,} requests are recorded, {texts:,} of them with text.")
    if options.dry_run:
        return 0
    if judge is not None and not config.demo:
        suite = with_known_prices(suite, [config.deployments[judge]])
    everyone = {one.name: (one.provider, one.simulates) for one in config.deployments.values() if one.simulates}
    sites = {judge: everyone[judge], **everyone} if judge is not None and judge in everyone else {}
    with simulators(path, None, sites) as origins:
        config = compile_with(origins) if origins else config
        region, named = config.regions[options.region], config.deployments[judge] if judge is not None else None
        client = CandidateClient(config, config.assistants[assistant.name], region, of_people=True)
        if named is not None:
            try:
                client.step_for(named)
            except NotPermitted as error:
                raise OptionsError(f"the judge {judge} may not read text of users: {error}") from None
        key = {
            "what": "shadow",
            "suite": suite.digest,
            "region": region.name,
            "assistant": assistant.name,
            "judge": judge,
        }
        return asyncio.run(measure(options, suite, client, (), named, key, _Answered(options, assistant.name, records)))


def _read(options: ShadowOptions, assistant: Assistant) -> list[Recorded]:
    shadow = assistant.parts_in(options.region).of(Shadow)
    if shadow is None:
        raise OptionsError(f"{assistant.name} has no shadow in region {options.region}: add one under assistants")
    try:
        records = list(read_shadow_records(options.state, assistant.name, options.region))
    except StateError as error:
        raise OptionsError(str(error)) from None
    if not records:
        raise OptionsError(f"{options.state} has no records of a shadow of {assistant.name} in region {options.region}")
    # Older records may have text although the config no longer keeps it.
    return records if shadow.keep_text else [(number, record.without_text()) for number, record in records]


def _answers(records: Sequence[Recorded]) -> Iterator[tuple[Item, str, RecordedAnswer]]:
    """Yield the question, the deployment and the answer of each text that is recorded of the shadow or the client."""
    for number, one in records:
        if one.prompt is None or one.outcome != "ok" or not (one.answer or one.calls or not one.tool_calls):
            continue
        language = language_of(last_user_message(one.prompt)) or ""
        item = Item(str(number), "requests", language, one.prompt, expects="accept")
        calls = tuple(ToolCall("", name, arguments) for name, arguments in one.calls)
        finish = one.finish_reason or "stop"
        yield (
            item,
            one.deployment,
            RecordedAnswer(one.answer or "", calls, one.refusal, finish == "content_filter", finish),
        )
        if one.beside_answer is not None:
            yield item, _OTHER, RecordedAnswer(one.beside_answer)


def last_user_message(prompt: str) -> str:
    """Return the last user message of a recorded prompt, which has a line for each message with its role in front."""
    marks = list(_ROLE.finditer(prompt))
    for number in range(len(marks) - 1, -1, -1):
        if marks[number][0] == "user: ":
            end = marks[number + 1].start() if number + 1 < len(marks) else len(prompt)
            return prompt[marks[number].end() : end].strip()
    return prompt.strip()


def _checked(suite: Suite, item: Item) -> Iterator[Item]:
    """Yield an item for each check of a recorded question: the checks of the suite, and of items that ask the same."""
    message = last_user_message(item.prompt)
    for name, when, check in suite.checks:
        if when is None or re.search(when, message):
            yield Item(f"{item.id} {name}", name, item.language, item.prompt, check)
    for one in suite.performance:
        if one.prompt.strip() == message and not one.tools and not one.question:
            yield Item(f"{item.id} {one.subject}", one.subject, item.language, item.prompt, one.check)


class _Answered(Value, frozen=True):
    """The run over answers that are recorded. See `MeasuredRun`."""

    options: ShadowOptions
    assistant: str
    records: Sequence[Recorded]
    measured: tuple[()] = ()

    def _known(self, store: RunStore) -> list[Recorded]:
        """Return the records of this run. One that is resumed ignores newer traffic."""
        store.remember("records", [number for number, _ in self.records])
        known = set(store.fact("records"))
        return [one for one in self.records if one[0] in known]

    async def ask(self, evaluation: Evaluation) -> None:
        """See `MeasuredRun`. The answers are there, so only the judge is asked."""
        suite, store, judge = evaluation.suite, evaluation.store, evaluation.judge
        answers = list(_answers(self._known(store)))
        for item, name, answer in answers:
            for each in (item, *_checked(suite, item)):
                store.add(name, _AXIS, each.id, QuestionResult(answer=answer))
        reads_all = suite.file.judge is not None and suite.file.judge.compliance
        for name in sorted({name for _, name, _ in answers}) if judge is not None else ():
            asked = [item for item, each, _ in answers if each == name]
            rubrics = [one for item in asked for one in _checked(suite, item) if isinstance(one.check, Rubric)]
            await evaluation.ask_judge(questions_about(store, name, _AXIS, [*(asked if reads_all else ()), *rubrics]))

    def report(self, evaluation: Evaluation, stopped: str | None) -> int:
        """See `MeasuredRun`. The exit status is 0."""
        suite, store, config, region = evaluation.suite, evaluation.store, evaluation.client.config, self.options.region
        judge_name = evaluation.judge.name if evaluation.judge is not None else None
        records = self._known(store)
        answers = list(_answers(records))
        names = sorted({one.deployment for _, one in records} | {name for _, name, _ in answers})
        results = {name: _results(name, suite, store, records, answers, judge_name) for name in names}
        notices = [*_times(records), *_apart(results)]
        for name, one in results.items():
            for figure in one.marks:
                if (found := one.figure(figure, {})) is not None:
                    title = FIGURES[figure].title if figure in FIGURES else figure
                    notices.append(f"{name}: {percentage(asdict(found))} of {found.of:,} {title}.")
        report = {
            "format": FORMAT,
            "kind": "shadow",
            "suite": {"name": suite.file.name, "digest": suite.digest, "seed": suite.file.seed},
            "region": region,
            "assistant": self.assistant,
            "config_version": config.version,
            **{
                "at": utc_text(time.time()),
                "simulated": config.demo,
                "stopped": stopped,
                "judge": judge_name,
                "asked": {},
            },
            "notices": notices,
            "recommendation": None,
            "ranking": names,
            "totals": [],
            "comparisons": [],
            "candidates": {
                name: {"cost": None, "requirements": [], **measured(one, suite.items, {})}
                for name, one in results.items()
            },
        }
        write_report(
            self.options.out, plain({**report, "risks": {}, "currency": "", "weights": {}, "objectives": None})
        )
        for line in notices:
            print(f"- {visible_line(line)}")
        print(f"\nwrote {self.options.out / 'report.html'}, report.md, report.json")
        return 0


def _results(
    name: str,
    suite: Suite,
    store: RunStore,
    records: Sequence[Recorded],
    answers: Sequence[tuple[Item, str, RecordedAnswer]],
    judge: str | None,
) -> Results:
    results, verdicts = Results(name), verdicts_of(store, judge, name)
    words = suite.bank.unacceptable if suite.bank is not None else []
    reads_all = judge is not None and suite.file.judge is not None and suite.file.judge.compliance
    for number, one in records:
        if one.deployment == name:
            results.note(Mark("answered", Item(str(number), "", "", ""), float(one.outcome == "ok"), one.outcome))
    for item, each, answer in answers:
        if each != name:
            continue
        state, language = refusal_of(answer), language_of(answer.text)
        results.note(Mark("refusals", item, float(state != "refused"), "its wording is a refusal", answer))
        if item.language and language is not None:
            why = f"the question is in {item.language} and the answer in {language}"
            results.note(Mark("in_language", item, float(language == item.language), why, answer))
        mark = compliance_mark(item, answer, words, verdicts.get(item.id, _UNASKED) if reads_all else None, state)
        for found in (
            mark,
            *(performance_mark(one, answer, "", verdicts.get(one.id)) for one in _checked(suite, item)),
        ):
            if found is not None:
                figure = found.figure if found is mark else f"passed {found.item.subject}"
                results.note(Mark(figure, item, found.value, found.why, answer))
    return results


def _times(records: Sequence[Recorded]) -> Iterator[str]:
    """Compare the shadow's times with the deployment that answered the same requests (sign test)."""
    answered = [one for _, one in records if one.outcome == "ok"]
    for what, pairs in (
        ("first token", [(one.first_s, one.beside_first_s) for one in answered if one.stream]),
        ("whole answer", [(one.total_s, one.beside_total_s) for one in answered]),
    ):
        apart = [own - other for own, other in pairs if other is not None]
        if apart:
            p, later_s = sign_flip_p([1.0 if one > 0 else -1.0 for one in apart if one]), median(apart)
            how = (
                f"{abs(later_s) * 1000:.0f} ms {'later' if later_s > 0 else 'earlier'} than"
                if p < 0.05
                else "not measurably different from"
            )
            other = f"the time of the deployment that answered the same {len(apart):,} requests"
            yield f"Time to the {what}: {how} {other} (p = {p:.2g})."


def _apart(results: dict[str, Results]) -> Iterator[str]:
    """Compare the figures of each shadow with the client's answers to the same requests."""
    other = results.get(_OTHER)
    for name, one in results.items():
        for figure in one.marks if other is not None and name != _OTHER else ():
            found = difference(one.scores(figure), other.scores(figure), {}) if other is not None else None
            for result in compare({(name, _OTHER): found}):
                title = FIGURES[figure].title if figure in FIGURES else figure
                yield f"{title}: {result.describe()}."
