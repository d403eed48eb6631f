"""Run an evaluation: choose the candidates, estimate the cost, measure, report and propose a new route."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from evaluation.candidate_client import CandidateClient
from evaluation.estimate import add_known_prices, cost_limit_problem, estimate, estimate_text
from evaluation.human_marks import Marks, MarksError, marks_of, new_sheet, read_marks, write_sheet
from evaluation.items import first_samples
from evaluation.measurement import Eligibility, Evaluation, check_eligibility
from evaluation.overhead import Footprint
from evaluation.recommendation import Recommendation
from evaluation.report import markdown_page, write_report
from evaluation.results import EvaluatedRun, Setting, build_report
from evaluation.run_store import RunStore
from evaluation.simulation import BLANK, simulators
from evaluation.suite import Suite, load_suite, suite_path
from evaluation.visible_text import visible_line
from evaluation.work_queue import Budget, SpendReached
from gateway.config.compile import compile_config
from gateway.config.loading import parse_document, read_config
from gateway.config.problems import ConfigRejected, choice_hint
from gateway.config.route_edit import with_route, without_schedule
from gateway.execution.transport import PoolTransport
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.policy.routing import config_exclusion
from gateway.usage.accounting import Accounting
from providers.registry import load_registry


def proposed_config(path: Path, assistant: str, region: str, route: tuple[str, ...], *, demo: bool) -> str:
    """Return the config's text with this route and without a schedule for it.

    Raises:
        ConfigRejected: The changed config has errors.
    """
    text = read_config(path).decode("utf-8-sig")
    changed = with_route(text, str(path), assistant, region, list(route))
    changed = without_schedule(changed, str(path), assistant, region)
    document = parse_document(changed.encode(), str(path), os.environ)
    compile_config(document, registry=load_registry(), demo=demo)
    return changed


def config_diff(path: Path, changed: str) -> str:
    """Return the change in the format of `diff -u`."""
    before = read_config(path).decode("utf-8-sig").splitlines(keepends=True)
    after = changed.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, str(path), f"{path} (recommended)"))


_TENTHS = 10


class TerminalProgress:
    """A context manager that shows progress on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Bars(*columns, console=self._console, disable=not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, part: str, total: int) -> None:
        """See `evaluation.measurement.ProgressReporter`."""
        self._done[part] = (0, total)
        if part not in self._tasks:
            self._tasks[part] = self._bars.add_task(part, total=total)

    def advance(self, part: str, by: int = 1) -> None:
        """See `evaluation.measurement.ProgressReporter`."""
        before, total = self._done[part]
        after = min(total, before + by)
        self._done[part] = (after, total)
        self._bars.update(self._tasks[part], completed=after)
        if not self._console.is_terminal and total and after * _TENTHS // total > before * _TENTHS // total:
            print(f"{part}: {after} of {total}", file=sys.stderr, flush=True)


_RECOMMENDED, _NOT_RECOMMENDED = 0, 1
Sites = Mapping[tuple[str, str], str]
Compile = Callable[[Sites | None], ConfigVersion]
OpenAccounting = Callable[[ConfigVersion], contextlib.AbstractAsyncContextManager[Accounting | None]]
"""Opens the accounting of the calls of a command. None: there is no state directory, so usage is not recorded."""


@contextlib.asynccontextmanager
async def no_accounting(_: ConfigVersion) -> AsyncIterator[None]:
    """Record no usage."""
    yield None


class OptionsError(Exception):
    """The command's options can't be used. The message states the reason and the fix."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The options of one evaluation.

    Attributes:
        seed: Replaces the suite's seed.
        sheet: Where to write a sheet of answers for people to mark.
        sheet_items: The number of items in the sheet.
        marks: A marked sheet.
        usage: Opens the accounting of the questions.
    """

    config: Path
    suite: str
    region: str
    assistant: str | None
    candidates: tuple[str, ...]
    out: Path
    seed: int | None = None
    dry_run: bool = False
    fresh: bool = False
    sheet: Path | None = None
    sheet_items: int = 50
    marks: Path | None = None
    usage: OpenAccounting = no_accounting


def run_evaluation(options: EvaluateOptions, compile_with: Compile) -> int:
    """Run an evaluation. Return the exit status: 0 if a route is recommended, else 1.

    Answers are stored as they arrive, so an interrupted run can be resumed.

    `compile_with` compiles the config, given the origins of the simulated sites.

    Raises:
        OptionsError, StoreError, ConfigRejected, SimulationFailed, MarksError: The evaluation can't run.
    """
    path, suite = choose_suite(options.suite, options.seed)
    config = compile_with(None)
    candidates, judge = _named_deployments(config, suite, options)
    assistant = assistant_of(config, options.assistant)
    _check_sheets(options, suite)
    if suite.file.simulated and not config.demo:
        raise OptionsError(f"{path} describes simulated candidates, but {options.config} is not a demo config")
    asked = (*candidates, *([judge] if judge is not None else []))
    if not config.demo:
        # Simulators cost nothing, so no prices are needed for a demo.
        suite = add_known_prices(suite, asked)
        if (why := cost_limit_problem(suite, asked)) is not None:
            raise OptionsError(why)
    eligibilities = [
        check_eligibility(config, config.assistants[assistant], config.regions[options.region], one) for one in asked
    ]
    refused = {one.deployment.name for one in eligibilities if one.refused is not None}
    estimates, duration_s = estimate(suite, [one for one in candidates if one.name not in refused], judge)
    print(estimate_text(estimates, duration_s, suite.file.prices.currency if suite.file.prices is not None else ""))
    if options.dry_run:
        for eligibility in eligibilities:
            _print_eligibility(eligibility)
        return _RECOMMENDED
    # The candidates come first, because a site simulates its first deployment. The others are needed to compile.
    everyone = (*asked, *config.deployments.values())
    sites = {one.name: (one.provider, one.simulates) for one in everyone if one.simulates is not None}
    with simulated(path, options.seed, sites) as origins:
        if origins:
            config = compile_with(origins)
            candidates, judge = _named_deployments(config, suite, options)
        blank = origins.get(BLANK)
        return asyncio.run(_run(options, suite, config, config.assistants[assistant], (candidates, judge), blank))


def choose_suite(name: str, seed: int | None) -> tuple[Path, Suite]:
    """Load the suite of a path or name. Return it with its path. Raises OptionsError or ConfigRejected."""
    try:
        path = suite_path(name)
    except FileNotFoundError:
        raise OptionsError(f"there is no suite {name!r}; use a file, or the name of a built-in suite: cn") from None
    return path, load_suite(path, seed)


@contextlib.contextmanager
def simulated(path: Path | None, seed: int | None, sites: dict[str, tuple[str, str]]) -> Iterator[Sites]:
    """Start the simulated sites while the block runs. Yield their origins, which are empty if there is no such site."""
    if not sites or path is None:
        yield {}
        return
    with simulators(path, seed, sites) as origins:
        yield origins


def _named_deployments(
    config: ConfigVersion, suite: Suite, options: EvaluateOptions
) -> tuple[list[Deployment], Deployment | None]:
    if options.region not in config.regions:
        raise OptionsError(f"there is no region {options.region!r}; {choice_hint(options.region, config.regions)}")
    names = [*options.candidates, *([suite.file.judge.deployment] if suite.file.judge is not None else [])]
    for name in names:
        if name not in config.deployments:
            raise OptionsError(
                f"there is no deployment {name!r} in the config; {choice_hint(name, config.deployments)}"
            )
    if len(set(names)) != len(names):
        raise OptionsError("a candidate is named twice or is also the judge; name another deployment")
    judge = config.deployments[suite.file.judge.deployment] if suite.file.judge is not None else None
    candidates = [config.deployments[name] for name in options.candidates]
    simulated: dict[tuple[str, str], str] = {}
    for deployment in (*candidates, *([judge] if judge is not None else [])):
        site = (deployment.provider, deployment.simulates or "")
        if deployment.simulates is not None and simulated.setdefault(site, deployment.name) != deployment.name:
            other = simulated[site]
            raise OptionsError(
                f"{other} and {deployment.name} are simulated at the same site, so they can't be compared; "
                "use different sites"
            )
        if (reason := config_exclusion(deployment)) is not None and deployment.simulates is None:
            raise OptionsError(f"{deployment.name} can't be evaluated: {reason[1]}")
    return candidates, judge


def assistant_of(config: ConfigVersion, name: str | None) -> str:
    """Return the assistant's name, given by name or alias, or the only assistant. Raises OptionsError."""
    names = sorted({one.name for one in config.assistants.values()})
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in config.assistants:
        raise OptionsError(f"--assistant must be one of: {', '.join(names)}")
    return config.assistants[name].name


async def _run(
    options: EvaluateOptions,
    suite: Suite,
    config: ConfigVersion,
    assistant: Assistant,
    named: tuple[list[Deployment], Deployment | None],
    blank: str | None,
) -> int:
    """Run the evaluation of candidates, with a judge if there is one."""
    region, (candidates, judge) = config.regions[options.region], named
    eligibilities = [check_eligibility(config, assistant, region, candidate) for candidate in candidates]
    if judge is not None and (refused := check_eligibility(config, assistant, region, judge).refused) is not None:
        raise OptionsError(f"the judge {judge.name} is not permitted: {refused}")
    asked = tuple(one.deployment for one in eligibilities if one.refused is None)
    key = {
        "suite": suite.digest,
        "region": region.name,
        "assistant": assistant.name,
        "candidates": sorted(
            f"{one.name} {one.provider} {one.model} {one.site if not one.simulates else ''}" for one in candidates
        ),
        "judge": judge.name if judge is not None else None,
    }
    async with (
        options.usage(config) as accounting,
        aclosing(CandidateClient(config, assistant, region, PoolTransport(), accounting=accounting)) as client,
    ):
        with closing(RunStore(options.out, key, fresh=options.fresh)) as store:
            for eligibility in eligibilities:
                _print_eligibility(eligibility)
                store.remember(f"waived {eligibility.deployment.name}", eligibility.waived)
            budget = create_budget(suite, store, (*asked, *([judge] if judge is not None else [])))
            given_up: dict[str, str] = {}
            stopped, footprint, spent = None, Footprint(), budget.tokens
            with TerminalProgress() as progress:
                evaluation = Evaluation(suite, client, asked, judge, store, budget, progress, blank)
                try:
                    async with footprint.sampling():
                        given_up = await evaluation.run()
                except* SpendReached as group:
                    stopped = str(first_exception(group))
            setting = Setting(config, assistant, region, time.time())
            run = EvaluatedRun(eligibilities, judge, store, given_up, stopped)
            costs = {one.name: suite.cost_of(one.name, *store.tokens(one.name)) for one in candidates}
            marks = _marked(options, suite, store, asked)
            report, advice = build_report(suite, setting, run, costs, marks)
            if budget.tokens != spent:
                # A run that asks nothing only computes the report again. The last samples of a run that asked are kept.
                store.replace("memory_mb", footprint.samples)
            report["memory_mb"] = store.fact("memory_mb") or []
            return _write(options, report, advice, demo=config.demo)


def _check_sheets(options: EvaluateOptions, suite: Suite) -> None:
    """Check the sheets before the first question, so that an unusable sheet costs no answers. Raises MarksError."""
    if (options.sheet or options.marks) is not None and not suite.performance:
        raise OptionsError("--sheet and --marks need performance items, and the suite has none")
    if options.sheet is not None and options.sheet.exists():
        raise MarksError(f"{options.sheet} already exists and may contain marks: name another --sheet")
    folder = options.sheet.parent if options.sheet is not None else options.out
    # The directory of the run is created later.
    if not folder.is_dir() and folder.absolute() != options.out.absolute():
        raise MarksError(f"{options.sheet} can't be written: there is no directory {folder}")
    if options.marks is not None:
        read_marks(options.marks)


def _marked(options: EvaluateOptions, suite: Suite, store: RunStore, asked: Sequence[Deployment]) -> Marks | None:
    """Write the sheet of `--sheet` and read the marks of `--marks`, if given."""
    names, items, seed = [one.name for one in asked], first_samples(suite.performance), suite.file.seed
    if options.sheet is not None:
        answers = new_sheet(store, names, items, options.sheet_items, seed)
        write_sheet(options.sheet, answers)
        print(f"wrote {options.sheet}: {len(answers):,} answers for people to mark")
    return marks_of(options.marks, store, names, items, seed) if options.marks is not None else None


def first_exception(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first exception of nested groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _print_eligibility(eligibility: Eligibility) -> None:
    name = eligibility.deployment.name
    if eligibility.refused is not None:
        print(f"{name}: not asked: {eligibility.refused}")
    elif eligibility.waived is not None:
        print(f"{name}: asked with an evaluation permit, which waives: {eligibility.waived}")


def create_budget(suite: Suite, store: RunStore, asked: tuple[Deployment, ...]) -> Budget:
    """Return the spending limit, with the tokens counted that earlier parts of this run have spent."""
    budget = Budget(suite.file.spend.tokens, suite.file.spend.cost, cost_of=suite.cost_of)
    for deployment in asked:
        budget.add(deployment, *store.tokens(deployment.name))
        budget.add(deployment, *store.load_tokens(deployment.name))
    return budget


def _write(options: EvaluateOptions, report: dict[str, Any], advice: Recommendation, *, demo: bool) -> int:
    """Write the report and the changed config, print the recommendation, and return the exit status."""
    # Imports matplotlib, which an estimate or a refusal does not need.
    from evaluation.report_page import drawings_of, html_page

    change = options.out / "gateway.yaml"
    change.unlink(missing_ok=True)
    # The report comes first, because its answers were paid for. No failed proposal can prevent it.
    drawings = drawings_of(report)
    write_report(options.out, report, html_page(report, "", drawings), markdown_page(report, ""))
    diff = ""
    if advice.deployment is not None and list(advice.route) != list(report["recommendation"]["route_now"]):
        diff, problem = _propose(options, report, advice, change, demo=demo)
        if problem is not None:
            report["recommendation"]["reasons"].append(problem)
        write_report(options.out, report, html_page(report, diff, drawings), markdown_page(report, diff))
    print()
    for notice in report["notices"]:
        print(f"! {visible_line(notice)}")
    print(f"{visible_line(_verdict(report, advice))}\n")
    for reason in report["recommendation"]["reasons"]:
        print(f"- {visible_line(reason)}")
    for one in report["refusal_rule"]:
        print(f"- {one['words']}")
    print(f"\nwrote {options.out / 'report.html'}, report.md, report.json" + (", gateway.yaml" if diff else ""))
    return _RECOMMENDED if advice.deployment is not None and not report["stopped"] else _NOT_RECOMMENDED


def _propose(
    options: EvaluateOptions, report: Mapping[str, Any], advice: Recommendation, change: Path, *, demo: bool
) -> tuple[str, str | None]:
    """Write the config with the recommended route. Return its difference, and why there is none."""
    reason = "The config can't be changed automatically"
    try:
        changed = proposed_config(options.config, report["assistant"], report["region"], advice.route, demo=demo)
        change.write_text(changed, "utf-8")
        return config_diff(options.config, changed), None
    except ConfigRejected as error:
        return "", f"{reason}: {error}"
    except OSError as error:
        return "", f"{reason}: {change} can't be written: {error.strerror}"
    except Exception as error:  # the report with its paid answers is complete without a proposal
        return "", f"{reason} ({type(error).__name__}). Write the route by hand: {', '.join(advice.route)}."


def _verdict(report: Mapping[str, Any], advice: Recommendation) -> str:
    if report["stopped"]:
        return f"Incomplete: {report['stopped']}. Raise the limit and run the command again; stored answers are reused."
    if advice.deployment is None:
        return "No candidate is recommended."
    return f"Recommended for {report['assistant']} in {report['region']}: {', '.join(advice.route)}."
