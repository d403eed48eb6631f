"""Run `gateway evaluate --shadow`: read what a shadow recorded, ask the judge if there is one, and write the report.

Text of users leaves the state directory only if the config keeps texts of this shadow now. It goes into the directory
of the run and to the judge. The judge therefore needs the same approval as a step of the route; nothing is waived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.candidate_client import CandidateClient, NotPermitted, QuestionResult, Timing
from evaluation.estimate import add_known_prices, cost_limit_problem
from evaluation.items import Item
from evaluation.judge import questions_about, verdict_axis
from evaluation.measurement import Evaluation
from evaluation.report import shadow_markdown, write_report
from evaluation.results import Setting, shadow_report
from evaluation.run import (
    Compile,
    OpenAccounting,
    OptionsError,
    TerminalProgress,
    assistant_of,
    choose_suite,
    create_budget,
    first_exception,
    no_accounting,
    simulated,
)
from evaluation.run_store import RunStore
from evaluation.shadow_scores import (
    Recorded,
    count_pair_questions,
    judge_items,
    judged_pairs,
    score_shadow,
    store_pair_questions,
    texts_of,
)
from evaluation.suite import Suite
from evaluation.suite_schema import SuiteFile
from evaluation.verdict_coverage import read_verdicts
from evaluation.visible_text import visible_line
from evaluation.work_queue import SpendReached
from gateway.execution.transport import PoolTransport
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.shadow import ShadowRecord
from gateway.operator_errors import StateError
from gateway.state.shadows import read_shadow_records
from providers.chat import ChatRequest, Usage, UserMessage

_AXIS = _RUN = "shadow"
_SUITE = Suite(SuiteFile(version=1, name="shadow"), (), (), (), None, "none")


@dataclass(frozen=True, slots=True)
class ShadowOptions:
    """The options of the command.

    Attributes:
        state: The state directory, with `shadow.db`.
        suite: The suite. Without one, there are no checks.
        usage: Opens the accounting of the judge's questions.
    """

    state: Path
    suite: str | None
    region: str
    assistant: str | None
    out: Path
    dry_run: bool = False
    fresh: bool = False
    usage: OpenAccounting = no_accounting


def run_shadow(options: ShadowOptions, compile_with: Compile) -> int:
    """Score the recorded answers and write the report. Returns the exit status 0.

    Raises:
        OptionsError, StoreError, ConfigRejected, SimulationFailed: The evaluation can't run.
    """
    path, suite = (None, _SUITE) if options.suite is None else choose_suite(options.suite, None)
    config = compile_with(None)
    if options.region not in config.regions:
        raise OptionsError(f"there is no region {options.region!r} in the config")
    assistant = config.assistants[assistant_of(config, options.assistant)]
    shadow = assistant.shadows.get(options.region)
    if shadow is None:
        raise OptionsError(f"{assistant.name} has no shadow in region {options.region}: add one under assistants")
    records = _read(options, assistant, keep_text=shadow.keep_text)
    judge = _judge(config, suite)
    if judge is not None and not config.demo:
        suite = add_known_prices(suite, (judge,))
        if (why := cost_limit_problem(suite, (judge,))) is not None:
            raise OptionsError(why)
    _print_summary(records, suite, keep_text=shadow.keep_text)
    if options.dry_run:
        return 0
    sites = {judge.name: (judge.provider, judge.simulates)} if judge is not None and judge.simulates else {}
    everyone = {one.name: (one.provider, one.simulates) for one in config.deployments.values() if one.simulates}
    with simulated(path, None, {**sites, **everyone} if sites else {}) as origins:
        if origins:
            config = compile_with(origins)
            assistant, judge = config.assistants[assistant.name], _judge(config, suite)
        return asyncio.run(_run(options, suite, config, assistant, judge, records))


def _read(options: ShadowOptions, assistant: Assistant, *, keep_text: bool) -> list[Recorded]:
    try:
        records = list(read_shadow_records(options.state, assistant.name, options.region))
    except StateError as error:
        raise OptionsError(str(error)) from None
    if not records:
        raise OptionsError(f"{options.state} has no records of a shadow of {assistant.name} in region {options.region}")
    return records if keep_text else _without_text(records)


def _without_text(records: Sequence[Recorded]) -> list[Recorded]:
    """Remove all text from the records. Older records may have text although the config no longer keeps it."""
    none: dict[str, Any] = {"prompt": None, "answer": None, "refusal": None, "calls": (), "beside_answer": None}
    return [(number, replace(record, **none)) for number, record in records]


def _judge(config: ConfigVersion, suite: Suite) -> Deployment | None:
    section = suite.file.judge
    if section is None:
        return None
    if section.deployment not in config.deployments:
        raise OptionsError(f"the judge {section.deployment!r} is not a deployment of the config")
    return config.deployments[section.deployment]


def _print_summary(records: Sequence[Recorded], suite: Suite, *, keep_text: bool) -> None:
    texts = sum(1 for _ in texts_of(records))
    print(f"{len(records):,} requests are recorded, {texts:,} of them with text.")
    if not keep_text:
        print("The config keeps no text of this shadow (keep_text), so only outcomes and times are reported.")
    if suite.file.judge is not None:
        questions = len(judge_items(suite, records)) + count_pair_questions(suite, records)
        print(f"The judge {suite.file.judge.deployment} will get {questions:,} questions.")


async def _run(
    options: ShadowOptions,
    suite: Suite,
    config: ConfigVersion,
    assistant: Assistant,
    judge: Deployment | None,
    records: Sequence[Recorded],
) -> int:
    region = config.regions[options.region]
    async with (
        options.usage(config) as accounting,
        aclosing(
            CandidateClient(config, assistant, region, PoolTransport(), accounting=accounting, of_people=True)
        ) as client,
    ):
        if judge is not None:
            _permitted(client, judge)
        key = {
            "what": _RUN,
            "suite": suite.digest,
            "region": region.name,
            "assistant": assistant.name,
            "judge": judge.name if judge is not None else None,
        }
        stopped = None
        with closing(RunStore(options.out, key, fresh=options.fresh)) as store:
            records = _held(store, records)
            records = records if assistant.shadows[region.name].keep_text else _without_text(records)
            if judge is not None:
                stopped = await _ask(judge, suite, client, store, records)
            verdicts = read_verdicts(store, judge.name if judge is not None else None, [_RUN])
            scores = score_shadow(suite, records, verdicts.get(_RUN, {}))
            pairs = judged_pairs(store, judge.name, list(scores)) if judge is not None else []
        setting = Setting(config, assistant, region, time.time())
        return _write(options.out, shadow_report(suite, setting, judge, records, scores, pairs, stopped))


def _permitted(client: CandidateClient, judge: Deployment) -> None:
    try:
        client.step_for(judge, ChatRequest(client.assistant.name, (UserMessage("?"),)))
    except NotPermitted as error:
        raise OptionsError(f"the judge {judge.name} may not read text of users: {error.refusal.message}") from None


def _held(store: RunStore, records: Sequence[Recorded]) -> list[Recorded]:
    """Return the records that existed when the run began, so that a resumed run ignores new traffic."""
    if store.fact("begun") is None:
        store.remember_all([(f"recorded {number}", asdict(record)) for number, record in records])
        store.remember("begun", True)
    return sorted((int(number), _record(value)) for number, value in store.facts("recorded "))


def _record(value: dict[str, Any]) -> ShadowRecord:
    usages = {name: None if value[name] is None else Usage(**value[name]) for name in ("usage", "beside_usage")}
    # A run that an earlier release began has the version under its former name.
    version = value.pop("config_version" if "config_version" in value else "table")
    return ShadowRecord(**{**value, "config_version": version, **usages})


async def _ask(
    judge: Deployment, suite: Suite, client: CandidateClient, store: RunStore, records: Sequence[Recorded]
) -> str | None:
    """Ask the judge the remaining questions. Return the reason if it stopped early."""
    items = judge_items(suite, records)
    answers = {number: answer for number, _, answer in texts_of(records)}
    for item in items:
        store.add(_RUN, _AXIS, item.id, QuestionResult(Timing(0.0), answers[_number(item)]))
    questions = {
        verdict_axis(_RUN): questions_about(store, _RUN, _AXIS, items),
        **store_pair_questions(suite, records, store),
    }
    stopped = None
    try:
        with TerminalProgress() as progress:
            evaluation = Evaluation(suite, client, (), judge, store, create_budget(suite, store, (judge,)), progress)
            for axis, ones in questions.items():
                if given_up := await evaluation.ask_judge(judge, axis, ones):
                    stopped = f"the judge {judge.name} was given up: {given_up[judge.name]}"
                    break
    except* SpendReached as group:
        stopped = str(first_exception(group))
    return stopped


def _number(item: Item) -> int:
    return int(item.id.partition(" ")[0])


def _write(out: Path, report: dict[str, Any]) -> int:
    from evaluation.report_page import shadow_html

    write_report(out, report, shadow_html(report), shadow_markdown(report))
    for line in report["words"]:
        print(f"- {visible_line(line)}")
    print(f"\nwrote {out / 'report.html'}, report.md, report.json")
    return 0
