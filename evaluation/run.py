"""Run an evaluation: choose the candidates, estimate the cost, measure, report and propose a new route."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from evaluation.asking import CandidateClient, NotPermitted
from evaluation.decision import (
    Recommendation,
    RouteEvidence,
    compare_candidates,
    compared_names,
    length_bias,
    recommend,
    score_of,
)
from evaluation.figures import Results, notices_of, read_results, requirements_of
from evaluation.judge import vendor_of
from evaluation.measuring import Evaluation, budget_of
from evaluation.questions import Item, Suite, load_suite, suite_path
from evaluation.report import build_report, write_report
from evaluation.sheets import SheetError, add_marks, write_sheet
from evaluation.simulation import Sites, simulators
from evaluation.store import RunStore
from evaluation.suite import CandidatePriceSection, PricesSection
from evaluation.texts import visible_line, words_of
from evaluation.verdicts import ask_judges, missed_bounds, texts_for, verdict_figures, verdict_lines
from evaluation.work import SpendReached
from gateway.config.check_report import what_deployments_can
from gateway.config.loading import parse_document, read_config
from gateway.config.problems import ConfigRejected, choice_hint
from gateway.config.route_edit import with_route, without_schedule
from gateway.features.configuration import compile_config
from gateway.model.approval import days_at, why_unapproved
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.route import deployments_of
from gateway.policy.fence import evaluation_permit
from gateway.policy.routing import config_exclusion
from gateway.usage.accounting import Accounting
from providers.adapter import answers_chats
from providers.catalogue.prices import MICROS, NO_CURRENCY
from providers.registry import load_registry
from providers.value import Value, replace

_ANSWER_TOKENS, _ANSWER_S, _TOKENS_PER_WORD, _JUDGED_TOKENS = 120, 3.0, 1.4, 400
_TENTHS = 10
Compile = Callable[[Sites | None], ConfigVersion]
"""Compiles the config, given the origins of simulated sites."""
OpenAccounting = Callable[[ConfigVersion], contextlib.AbstractAsyncContextManager[Accounting | None]]
"""Opens the accounting of the calls of a command, or None if no state directory records usage."""


class OptionsError(Exception):
    """The command's options can't be used. The message states the reason and the fix."""


class RunOptions(Value, frozen=True, kw_only=True):
    """The options that every run has. `usage` opens the accounting of its calls."""

    region: str
    assistant: str | None
    out: Path
    dry_run: bool = False
    fresh: bool = False
    usage: OpenAccounting = lambda _: contextlib.nullcontext()  # records nothing


class Options(RunOptions, frozen=True, kw_only=True):
    """The options of one evaluation. `seed` replaces the suite's."""

    config: Path
    suite: str
    candidates: tuple[str, ...]
    seed: int | None = None
    sheet: Path | None = None
    sheet_items: int = 50
    marks: Path | None = None


class MeasuredRun(Protocol):
    """The parts in which runs differ. `measured`: the judges whose verdicts are measured."""

    @property
    def measured(self) -> Sequence[Deployment]: ...

    async def ask(self, evaluation: Evaluation) -> None:
        """Get the answers and the verdicts that the store does not have yet. Raises SpendReached."""

    def report(self, evaluation: Evaluation, stopped: str | None) -> int:
        """Write the report, and return the exit status. `stopped` states the limit of spending that ended the run."""


class TerminalProgress:
    """Shows progress on standard error, with bars on a terminal and else a line for each tenth."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bars = Bars(*columns, console=self._console, disable=not self._console.is_terminal)
        self._done: dict[str, tuple[TaskID, int, int]] = {}

    def begin(self, part: str, total: int, done: int) -> None:
        if part not in self._done:
            self._done[part] = self.bars.add_task(part, total=total), 0, total
        self.advance(part, done - self._done[part][1])

    def advance(self, part: str, by: int = 1) -> None:
        task, before, total = self._done[part]
        after = min(total, before + by)
        self._done[part] = task, after, total
        self.bars.update(task, completed=after)
        if not self._console.is_terminal and total and after * _TENTHS // total > before * _TENTHS // total:
            print(f"{part}: {after} of {total}", file=sys.stderr, flush=True)


def run_evaluation(options: Options, compile_with: Compile) -> int:
    """Run an evaluation. Return the exit status: 0 if a route is recommended, else 1.

    Answers are stored as they arrive, so an interrupted run can be resumed. Raises OptionsError, StoreError,
    ConfigRejected or SimulationFailed if the evaluation can't run.
    """
    path, suite = choose_suite(options.suite, options.seed)
    config = compile_with(None)
    if not options.candidates and (suite.file.verdicts is None or any(suite.file.of_candidates)):
        raise OptionsError("--candidates is missing (`gateway evaluate --help` has an example)")
    candidates, judge = _named(config, suite, options)
    measured = _measured(config, suite, options)
    assistant = assistant_of(config, options.assistant)
    if options.sheet is not None and (options.sheet.exists() or not options.sheet.absolute().parent.is_dir()):
        raise SheetError(f"{options.sheet} exists and may contain marks, or has no directory: name another --sheet")
    if options.marks is not None and not options.marks.is_file():
        raise SheetError(f"{options.marks} can't be read: there is no such file")
    if suite.file.simulated and not config.demo:
        raise OptionsError(f"{path} describes simulated candidates, but {options.config} is not a demo config")
    asked = (*candidates, *([judge] if judge is not None else ()))
    if not config.demo:  # simulators cost nothing
        suite = with_known_prices(suite, [*asked, *measured])
    client = CandidateClient(config, config.assistants[assistant], config.regions[options.region])
    permits = {one.name: _permit(client, one) for one in asked}
    print(estimate(suite, [one for one in candidates if permits[one.name][0] is None], judge, measured))
    for one in candidates:
        refused, waived = permits[one.name]
        if refused is not None:
            print(f"{one.name}: not asked: {refused}")
        elif waived is not None:
            print(f"{one.name}: asked with an evaluation permit, which waives: {waived}")
    if options.dry_run:
        return 0
    if judge is not None and permits[judge.name][0] is not None:
        raise OptionsError(f"the judge {judge.name} is not permitted: {permits[judge.name][0]}")
    # The candidates come first, because a site simulates its first deployment. The others are needed to compile.
    everyone = (*asked, *config.deployments.values())
    sites = {one.name: (one.provider, one.simulates) for one in everyone if one.simulates is not None}
    with simulators(path, options.seed, sites) as origins:
        if origins:
            config = compile_with(origins)
            candidates, judge = _named(config, suite, options)
        region, measured = config.regions[options.region], _measured(config, suite, options)
        run = _Candidates(options, config.assistants[assistant], region, candidates, permits, measured)
        client = CandidateClient(config, run.assistant, region)
        return asyncio.run(measure(options, suite, client, run.asked, judge, run.key(suite, judge), run))


def choose_suite(name: str, seed: int | None) -> tuple[Path, Suite]:
    """Load the suite of a path or name. Return it with its path. Raises OptionsError or ConfigRejected."""
    try:
        path = suite_path(name)
    except FileNotFoundError:
        raise OptionsError(f"there is no suite {name!r}; use a file, or the name of a built-in suite: cn") from None
    return path, load_suite(path, seed)


def assistant_of(config: ConfigVersion, name: str | None) -> str:
    """Return the assistant's name, given by name or alias, or the only assistant. Raises OptionsError."""
    names = sorted({one.name for one in config.assistants.values()})
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in config.assistants:
        raise OptionsError(f"--assistant must be one of: {', '.join(names)}")
    return config.assistants[name].name


def _named(config: ConfigVersion, suite: Suite, options: Options) -> tuple[list[Deployment], Deployment | None]:
    if options.region not in config.regions:
        raise OptionsError(f"there is no region {options.region!r}; {choice_hint(options.region, config.regions)}")
    judge = suite.file.judge.deployment if suite.file.judge is not None else None
    names = [*options.candidates, *([judge] if judge is not None else [])]
    for name in names:
        if name not in config.deployments:
            raise OptionsError(
                f"there is no deployment {name!r} in the config; {choice_hint(name, config.deployments)}"
            )
    if len(set(names)) != len(names):
        raise OptionsError("a candidate is named twice or is also the judge; name another deployment")
    simulated: dict[tuple[str, str], str] = {}
    can = what_deployments_can(config)
    for one in (config.deployments[name] for name in names):
        if one.simulates is not None:
            other = simulated.setdefault((one.provider, one.simulates), one.name)
            if other != one.name:
                same = f"{other} and {one.name} are simulated at the same site, so they can't be compared"
                raise OptionsError(f"{same}; use different sites")
        elif (reason := config_exclusion(one, time.time())) is not None:
            raise OptionsError(f"{one.name} can't be evaluated: {reason[1]}")
        if "text" not in can[one.name] or not answers_chats(one.adapter):
            uses = f": this config asks it for {', '.join(can[one.name])} only" if "text" not in can[one.name] else ""
            raise OptionsError(f"{one.name} can't be evaluated, because it answers no chats{uses}")
    return [config.deployments[name] for name in options.candidates], config.deployments[judge] if judge else None


def _measured(config: ConfigVersion, suite: Suite, options: Options) -> tuple[Deployment, ...]:
    """Return the judges whose verdicts are measured, then the truth. Raises OptionsError if one cannot judge there."""
    section = suite.file.verdicts
    if section is None:
        return ()
    names = dict.fromkeys([*section.judges, *([section.truth] if section.truth is not None else [])])
    found: list[Deployment] = []
    for name in names:
        if (one := config.deployments.get(name)) is None:
            hint = choice_hint(name, config.deployments)
            raise OptionsError(f"there is no deployment {name!r} in the config; {hint}")
        if moderations_of(one) is None:
            raise OptionsError(f"the verdicts of {name} can't be measured: it classifies no content")
        if one.simulates is None and (reason := config_exclusion(one, time.time())) is not None:
            raise OptionsError(f"the verdicts of {name} can't be measured: {reason[1]}")
        if evaluation_permit(config, config.regions[options.region], one, time.time()) is None:
            where = f"it is outside the boundary of region {options.region}"
            raise OptionsError(f"the verdicts of {name} can't be measured: {where}")
        found.append(one)
    return tuple(found)


def _permit(client: CandidateClient, deployment: Deployment) -> tuple[str | None, str | None]:
    """Return why the gateway's decision refuses a candidate, and which missing approval the permit waives."""
    try:
        return None, client.step_for(deployment).permit.waives
    except NotPermitted as error:
        return str(error), None


def with_known_prices(suite: Suite, asked: Sequence[Deployment]) -> Suite:
    """Return the suite with the catalogue's prices of now. The suite's own prices take precedence.

    All prices must have one currency: the suite's or, if the suite has no prices, that of all deployments. If
    reasoning has a higher rate than the answer, it applies to all generated tokens. Raises OptionsError if a cost limit
    can't be enforced, because a deployment has no price.
    """
    own, now_s = suite.file.prices, time.time()
    known = {one.name: price for one in asked if (price := one.price_at(now_s)) is not None}
    currencies = {own.currency} if own is not None else {price.currency for price in known.values()} - {NO_CURRENCY}
    if len(currencies) == 1:
        [currency] = currencies
        prices = {
            name: CandidatePriceSection(
                input=price.rates.input / MICROS, output=max(price.rates.output, price.rates.per_reasoning) / MICROS
            )
            for name, price in known.items()
            if price.currency in (currency, NO_CURRENCY)
        } | (own.deployments if own is not None else {})
        section = PricesSection(currency=currency, deployments=prices)
        suite = replace(suite, file=suite.file.model_copy(update={"prices": section}))
    lacking = [one.name for one in asked if suite.cost_of(one.name, 0, 0) is None]
    if suite.file.spend.cost is not None and lacking:
        unit = suite.file.prices.currency if suite.file.prices is not None else "any currency"
        raise OptionsError(
            f"spend.cost can't be enforced, because these deployments have no price in {unit}: {', '.join(lacking)}; "
            "add their prices under prices.deployments, or use spend.tokens"
        )
    return suite


def estimate(
    suite: Suite, candidates: Sequence[Deployment], judge: Deployment | None, measured: Sequence[Deployment] = ()
) -> str:
    """Return the questions, tokens and cost of each deployment, and the total time, as a table for a terminal."""
    items, section, limits = (
        (*suite.performance, *suite.compliance, *suite.streamed),
        suite.file.scalability,
        suite.file.limits,
    )
    rows: list[tuple[str, int, int, int]] = []
    requests = (
        round(sum(section.rates) * section.step + section.rates[0] * section.recovery) if section is not None else 0
    )
    for one in candidates:
        prompt = sum(map(_tokens, items)) + (
            requests * _tokens(Item("", "", "", section.prompt)) if section is not None else 0
        )
        answers = _ANSWER_TOKENS * len(items) + requests * (section.max_tokens if section is not None else 0)
        rows.append((one.name, len(items) + requests, prompt, answers))
    if judge is not None and suite.file.judge is not None:
        judged = sum(
            one.expects is None and one.check is not None and one.check.right is None for one in suite.performance
        )
        count = (judged + len(suite.compliance) * suite.file.judge.compliance) * len(candidates)
        rows.append((judge.name, count, count * _JUDGED_TOKENS, count * _ANSWER_TOKENS))
    for one in measured:
        texts = texts_for(suite, one.name)
        rows.append((one.name, len(texts), sum(map(_tokens, texts)), 0))
    width = max([len(name) for name, *_ in rows] + [10])
    currency = suite.file.prices.currency if suite.file.prices is not None else ""
    lines = [f"{'deployment':<{width}}  questions  tokens in  tokens out  cost"]
    for name, questions, prompt, answers in rows:
        cost = suite.cost_of(name, prompt, answers)
        shown = "no price is set" if cost is None else f"{cost:.2f} {currency}"
        lines.append(f"{name:<{width}}  {questions:>9,}  {prompt:>9,}  {answers:>10,}  {shown}")
    load_s = (len(section.rates) * section.step + section.recovery) * len(candidates) if section is not None else 0.0
    most = max([questions for _, questions, *_ in rows] + [0])
    total_s = load_s + max(most / limits.concurrent * _ANSWER_S, most * 60 / limits.rpm if limits.rpm else 0.0)
    return "\n".join(
        [*lines, f"It takes about {total_s / 60:.0f} min." if total_s >= 60 else f"It takes about {total_s:.0f} s."]
    )


def _tokens(item: Item) -> int:
    return round(len(words_of(f"{item.prompt} {item.system or ''} {item.tools or ''}")) * _TOKENS_PER_WORD) + 12


async def measure(
    options: RunOptions,
    suite: Suite,
    client: CandidateClient,
    asked: tuple[Deployment, ...],
    judge: Deployment | None,
    key: Mapping[str, object],
    run: MeasuredRun,
) -> int:
    """Begin or resume a run in its store, up to the limit of spending. Return what `run.report` returns."""
    judges = (*([judge] if judge is not None else ()), *run.measured)
    async with options.usage(client.config) as accounting, aclosing(client):
        client.accounting = accounting
        with closing(RunStore(options.out, key, fresh=options.fresh)) as store:
            budget = budget_of(suite, store, {it.name: it for it in (*asked, *judges)}.values())
            progress, stopped = TerminalProgress(), None
            evaluation = Evaluation(suite, client, asked, judge, store, budget, progress)
            try:
                with progress.bars:
                    await run.ask(evaluation)
            except* SpendReached as group:
                stopped = str(first_exception(group))
            return run.report(evaluation, stopped)


class _Candidates(Value, frozen=True):
    """The run that asks candidates. See `MeasuredRun`."""

    options: Options
    assistant: Assistant
    region: Region
    candidates: Sequence[Deployment]
    permits: Mapping[str, tuple[str | None, str | None]]
    measured: Sequence[Deployment] = ()

    @property
    def asked(self) -> tuple[Deployment, ...]:
        """The candidates that may be asked."""
        return tuple(one for one in self.candidates if self.permits[one.name][0] is None)

    def key(self, suite: Suite, judge: Deployment | None) -> dict[str, object]:
        """Return what has to be the same in a run that is resumed."""
        sites = [
            f"{one.name} {one.provider} {one.model} {one.site if not one.simulates else ''}" for one in self.candidates
        ]
        verdicts = {"verdicts": [f"{it.name} {it.provider} {it.model} {it.verdicts!r}" for it in self.measured]}
        return {
            "suite": suite.digest,
            "region": self.region.name,
            "assistant": self.assistant.name,
            "candidates": sorted(sites),
            "judge": judge.name if judge is not None else None,
            "layout": 2,
            **(verdicts if self.measured else {}),
        }

    async def ask(self, evaluation: Evaluation) -> None:
        await evaluation.run()
        await ask_judges(evaluation, self.measured)

    def report(self, evaluation: Evaluation, stopped: str | None) -> int:
        options, assistant, region, candidates = self.options, self.assistant, self.region, self.candidates
        suite, store, judge, config = evaluation.suite, evaluation.store, evaluation.judge, evaluation.client.config
        judge_name = judge.name if judge is not None else None
        results = {one.name: _results(one, evaluation, self.permits[one.name]) for one in candidates}
        if options.sheet is not None:
            shown = [one.name for one in self.asked]
            count = write_sheet(options.sheet, store, shown, suite.performance, options.sheet_items, suite.file.seed)
            print(f"wrote {options.sheet}: {count:,} answers for people to mark")
        if options.marks is not None:
            shown_results = {one.name: results[one.name] for one in self.asked}
            add_marks(options.marks, store, shown_results, suite.performance, suite.file.seed)
        route = [one.name for one in deployments_of(assistant.routes.get(region.name, ()))]
        now_s = time.time()
        for one in candidates:
            results[one.name].lacking = why_unapproved(one.approvals, region.name, days_at(now_s))
        costs = {name: suite.cost_of(name, *one.tokens) for name, one in results.items()}
        requirements = {name: requirements_of(one, suite, region) for name, one in results.items()}
        scores = {name: score_of(one, suite) for name, one in results.items()}
        evidence = RouteEvidence(suite, results, requirements, scores, costs, route)
        evidence = replace(evidence, totals=compare_candidates(results, suite, compared_names(evidence)))
        advice = recommend(evidence)
        facts = {
            "kind": "evaluation",
            "assistant": assistant.name,
            "config_version": config.version,
            "simulated": config.demo,
            "stopped": stopped,
            "judge": judge_name,
            "notices": [
                *notices_of(results.values(), suite, judge_name, evaluation.given_up.get(judge_name or "")),
                *_bias_notices(results, suite, candidates, judge),
            ],
        }
        if self.measured:
            rows, given_up = verdict_figures(suite, store, self.measured), evaluation.given_up
            over = [f"{it.name} was given up: {given_up[it.name]}." for it in self.measured if it.name in given_up]
            facts |= {"verdicts": rows, "verdict_notes": [*verdict_lines(suite, rows), *over]}
            facts["verdicts_missed"] = [*missed_bounds(suite, rows)]
        comparisons = compare_candidates(results, suite, list(results), ["performance"])
        deployments = {one.name: one for one in candidates}
        report = build_report(evidence, advice, deployments, region, now_s, comparisons=comparisons, **facts)
        if not candidates:
            report["recommendation"] = None
        return _write(options, report, advice, demo=config.demo)


def _results(candidate: Deployment, evaluation: Evaluation, permit: tuple[str | None, str | None]) -> Results:
    judge = evaluation.judge.name if evaluation.judge is not None else None
    results = read_results(evaluation.store, evaluation.suite, candidate.name, judge)
    results.refused, results.waived = permit
    results.given_up = evaluation.given_up.get(candidate.name)
    return results


def _bias_notices(
    results: Mapping[str, Results], suite: Suite, candidates: Sequence[Deployment], judge: Deployment | None
) -> list[str]:
    """Return what may bias the judge. Judges tend to prefer long answers and answers of their own family."""
    if judge is None:
        return []
    vendor = vendor_of(judge)
    return [
        f"The judge {judge.name} and {one.name} are models of the same vendor ({vendor}). Judges prefer answers of "
        "their own family: name a judge of another vendor, or let people read a sample."
        for one in candidates
        if vendor is not None and vendor_of(one) == vendor
    ] + [
        f"The judge {judge.name} preferred the longer answer of {first} and {second} in {one.value:.1%} of {one.of:,} "
        "scores. A preference for length and better quality look alike here, so these scores establish no difference: "
        "let people read these answers."
        for (first, second), one in length_bias(results, suite).items()
    ]


def first_exception(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first exception of nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def proposed_config(path: Path, assistant: str, region: str, route: Sequence[str], *, demo: bool) -> str:
    """Return the config's text with this route and without a schedule for it. Raises ConfigRejected."""
    changed = with_route(read_config(path).decode("utf-8-sig"), str(path), assistant, region, list(route))
    changed = without_schedule(changed, str(path), assistant, region)
    compile_config(parse_document(changed.encode(), str(path), os.environ), registry=load_registry(), demo=demo)
    return changed


def _write(options: Options, report: dict[str, Any], advice: Recommendation, *, demo: bool) -> int:
    """Write the report and the changed config, print the recommendation, and return the exit status."""
    change, diff = options.out / "gateway.yaml", ""
    change.unlink(missing_ok=True)
    # The report comes first, because its answers were paid for. No failed proposal can prevent it.
    write_report(options.out, report)
    if advice.deployment is not None and list(advice.route) != list(report["recommendation"]["route_now"]):
        try:
            changed = proposed_config(options.config, report["assistant"], report["region"], advice.route, demo=demo)
            change.write_text(changed, "utf-8")
            before = read_config(options.config).decode("utf-8-sig").splitlines(keepends=True)
            names = str(options.config), f"{options.config} (recommended)"
            diff = "".join(difflib.unified_diff(before, changed.splitlines(keepends=True), *names))
        except Exception as error:  # the report with its paid answers is complete without a proposal
            why = str(error) if isinstance(error, (ConfigRejected, OSError)) else type(error).__name__
            by_hand = f"Write the route by hand: {', '.join(advice.route)}."
            report["recommendation"]["reasons"].append(f"The config can't be changed automatically ({why}). {by_hand}")
        write_report(options.out, report, diff)
    print()
    for notice in report["notices"]:
        print(f"! {visible_line(notice)}")
    if report["stopped"]:
        print(
            f"Incomplete: {report['stopped']}. Raise the limit and run the command again; stored answers are reused.\n"
        )
    elif not report["candidates"]:
        pass
    elif advice.deployment is None:
        print("No candidate is recommended.\n")
    else:
        print(f"Recommended for {report['assistant']} in {report['region']}: {', '.join(advice.route)}.\n")
    missed: Sequence[str] = report.get("verdicts_missed", ())
    reasons = report["recommendation"]["reasons"] if report["candidates"] else []
    for line in (*reasons, *report.get("verdict_notes", ()), *missed):
        print(f"- {visible_line(line)}")
    print(f"\nwrote {options.out / 'report.html'}, report.md, report.json" + (", gateway.yaml" if diff else ""))
    is_advised = advice.deployment is not None or not report["candidates"]
    return 0 if is_advised and not missed and not report["stopped"] else 1
