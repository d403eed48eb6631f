"""Score a stored run and build its report as one JSON value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

from evaluation import compliance, performance
from evaluation.cluster_statistics import clustered_mean, count_groups
from evaluation.compliance import approval_of, fence_of, labelled
from evaluation.human_marks import Marks, People, score_marks
from evaluation.items import JudgeCheck, first_samples
from evaluation.judge import JudgedPair, pairs_of
from evaluation.judge_bias import JudgeBias, bias_notices, measure_bias
from evaluation.load_test import Scalability, score_scalability
from evaluation.measurement import Eligibility
from evaluation.ranking import CandidateFindings, Requirement, Scores, check_requirements, own_languages, scores_of
from evaluation.recommendation import Recommendation, RouteEvidence, compared_names, rank_candidates, recommend
from evaluation.refusals import rule_errors
from evaluation.run_store import RunStore
from evaluation.shadow_scores import Recorded, ShadowScores, describe_pair, describe_shadow
from evaluation.statistics import Comparison, Estimate, share
from evaluation.suite import Suite
from evaluation.tie_groups import compare_totals, item_weights, scores_by_question
from evaluation.verdict_coverage import VerdictCoverage, coverage_notices, coverage_of, read_verdicts
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.model.route import deployments_of
from gateway.model.units import parse_seconds
from gateway.model.version_names import version_fields
from providers.failures import FailureKind


@dataclass(frozen=True, slots=True)
class Setting:
    """The config, assistant and region of an evaluation. `now_s` is Unix time and decides which approvals are valid."""

    config: ConfigVersion
    assistant: Assistant
    region: Region
    now_s: float


@dataclass(frozen=True, slots=True)
class EvaluatedRun:
    """A run that has ended.

    Attributes:
        eligibilities: The candidates, and why one of them was refused.
        judge: The deployment that judged the answers; None if the suite names none.
        store: The stored answers.
        given_up: Why a candidate was not asked to the end, by its name.
        stopped: Why the run stopped early; None if it did not.
    """

    eligibilities: Sequence[Eligibility]
    judge: Deployment | None
    store: RunStore
    given_up: Mapping[str, str]
    stopped: str | None


@dataclass(frozen=True, slots=True)
class RunFindings:
    """The scores of a run. `asked` are the candidates that were not refused. `are_read`: a judge read the answers."""

    asked: Sequence[str]
    by_candidate: Mapping[str, CandidateFindings]
    performances: Mapping[str, performance.Performance]
    comparisons: Sequence[Comparison]
    approvals: Mapping[str, Mapping[str, object]]
    are_read: bool


def score_run(suite: Suite, setting: Setting, run: EvaluatedRun) -> RunFindings:
    """Score everything that the run stored."""
    region, now_s = setting.region, setting.now_s
    eligibilities, judge, store = run.eligibilities, run.judge, run.store
    asked = [eligibility.deployment.name for eligibility in eligibilities if eligibility.refused is None]
    verdicts = read_verdicts(store, judge.name if judge is not None else None, asked)
    performances, comparisons = performance.score_performance(
        store, asked, suite.performance, suite.file.seed, verdicts
    )
    are_read = judge is not None and suite.file.judge is not None and suite.file.judge.compliance
    compliances = compliance.score_compliance(
        store, asked, suite.compliance, unacceptable_words(suite), verdicts, has_judge=are_read
    )
    loads = _loads(suite, store, asked)
    coverages = _coverages(suite, store, judge, asked, are_read=are_read)
    wanted = suite.file.requirements.approval
    approvals = {
        one.deployment.name: approval_of(one.deployment, region, now_s, wanted=wanted) for one in eligibilities
    }
    results = {}
    for one in eligibilities:
        name, lacking = one.deployment.name, approvals[one.deployment.name]["lacking"]
        results[name] = CandidateFindings(
            name,
            one.refused,
            run.given_up.get(name),
            lacking if isinstance(lacking, str) else None,
            labelled(store, name, region) if one.refused is None else None,
            performances.get(name) if suite.performance else None,
            compliances.get(name) if suite.compliance else None,
            loads.get(name),
            _first_attempts(store, name)[0],
            coverages.get(name),
        )
    return RunFindings(asked, results, performances, comparisons, approvals, are_read)


def _first_attempts(store: RunStore, candidate: str) -> tuple[Estimate | None, dict[str, int]]:
    """Return the share of questions whose first attempt failed, and the number of each kind of failure."""
    asked, kinds = 0, Counter[str]()
    for axis in (performance.AXIS, compliance.AXIS, compliance.STREAMED):
        for row in store.rows(candidate, axis):
            if row.first_failure != FailureKind.UNSUPPORTED:
                asked += 1
                kinds.update([row.first_failure] if row.first_failure is not None else [])
    return share(kinds.total(), asked), dict(kinds)


def unacceptable_words(suite: Suite) -> tuple[str, ...]:
    """Return the bank's words that make an answer unacceptable."""
    return suite.bank.unacceptable if suite.bank is not None else ()


def _loads(suite: Suite, store: RunStore, asked: Sequence[str]) -> Mapping[str, Scalability]:
    section = suite.file.scalability
    if section is None:
        return {}
    first_s, total_s = parse_seconds(section.objectives.first_token), parse_seconds(section.objectives.total)
    return score_scalability(store, asked, len(section.rates), first_s, total_s)


def _coverages(
    suite: Suite, store: RunStore, judge: Deployment | None, asked: Sequence[str], *, are_read: bool
) -> Mapping[str, VerdictCoverage]:
    if judge is None:
        return {}
    axes = {performance.AXIS: suite.performance}
    if are_read:
        axes[compliance.AXIS] = suite.compliance
    found = {name: coverage_of(store, judge.name, name, axes) for name in asked}
    return {name: one for name, one in found.items() if one.of}


FORMAT = 1
AXES = ("performance", "compliance", "scalability")
Report = Mapping[str, Any]


def build_report(
    suite: Suite, setting: Setting, run: EvaluatedRun, cost: Mapping[str, float | None], marks: Marks | None = None
) -> tuple[dict[str, Any], Recommendation]:
    """Return the report, and the recommendation that it ends with.

    `cost` is by the name of the candidate, and `marks` are those that people gave, if they gave any.
    """
    judge, store = run.judge, run.store
    findings = score_run(suite, setting, run)
    results, comparisons = findings.by_candidate, findings.comparisons
    scores = _scores(suite, results)
    languages = own_languages(setting.region)
    requirements = {name: check_requirements(one, suite.file.requirements, languages) for name, one in results.items()}
    out = {name for name, ones in requirements.items() if not all(one.met for one in ones)}
    evidence = _evidence(suite, setting, findings, scores, requirements, cost)
    ranking = rank_candidates(evidence)
    items = len(first_samples((*suite.performance, *suite.compliance)))
    advice = recommend(evidence, suite.file.recommendation, items)
    advice = replace(advice, reasons=(*advice.reasons, *_single_groups(suite)))
    pairs = pairs_of(store, judge.name, findings.asked) if judge is not None else []
    bias = _bias(suite, run, marks)
    notices = _notices(suite, run, findings)
    notices += bias_notices(judge.name, bias, pairs) if judge is not None else []
    report = {
        "format": FORMAT,
        "suite": {"name": suite.name, "digest": suite.digest, "seed": suite.file.seed},
        "asked": {
            "performance": len(suite.performance),
            "compliance": len(suite.compliance),
            "streamed": len(suite.consistency),
            "performance_groups": count_groups((item.question_id for item in suite.performance), suite.groups),
            "compliance_groups": count_groups((item.question_id for item in suite.compliance), suite.groups),
            "sets": _sets(suite),
        },
        "groups": suite.groups,
        "region": setting.region.name,
        "assistant": setting.assistant.name,
        **version_fields(setting.config.version),
        "at": _utc_text(setting.now_s),
        "simulated": setting.config.demo,
        "stopped": run.stopped,
        "weights": suite.file.weights.model_dump(),
        "objectives": suite.file.scalability.objectives.model_dump() if suite.file.scalability is not None else None,
        "judge": judge.name if judge is not None else None,
        "notices": notices,
        "refusal_rule": [{**asdict(one), "words": one.describe()} for one in rule_errors()] if suite.compliance else [],
        "currency": suite.file.prices.currency if suite.file.prices is not None else "",
        "risks": suite.bank.risks if suite.bank is not None else {},
        "candidates": {
            one.deployment.name: _candidate(one, setting, findings, scores, requirements, store, cost)
            for one in run.eligibilities
        },
        "comparisons": [{**asdict(one), "words": one.describe() + _scored_by(suite, judge)} for one in comparisons],
        "totals": [{**asdict(one), "words": one.describe()} for one in evidence.totals.comparisons],
        "scored_by": _scored_by(suite, judge),
        "pairs": [asdict(one) for one in pairs],
        "judge_bias": bias,
        "people": _people(marks, findings.performances, suite.file.seed),
        "ranking": ranking,
        "out": sorted(out),
        "recommendation": {**asdict(advice), "route_now": evidence.route_now},
    }
    return _plain(report), advice


def _scores(suite: Suite, results: Mapping[str, CandidateFindings]) -> dict[str, Scores]:
    weights = item_weights(suite)
    return {
        name: scores_of(
            one,
            suite.file,
            clustered_mean(scores_by_question(one), suite.groups, suite.file.seed, weights)
            if weights and one.performance is not None
            else None,
        )
        for name, one in results.items()
    }


def _evidence(
    suite: Suite,
    setting: Setting,
    findings: RunFindings,
    scores: Mapping[str, Scores],
    requirements: Mapping[str, Sequence[Requirement]],
    cost: Mapping[str, float | None],
) -> RouteEvidence:
    results = findings.by_candidate
    route = [deployment.name for deployment in deployments_of(setting.assistant.routes.get(setting.region.name, ()))]
    totals = compare_totals({name: results[name] for name in compared_names(route, requirements, scores)}, suite)
    return RouteEvidence(results, scores, requirements, totals, cost, suite.groups, route)


def _single_groups(suite: Suite) -> list[str]:
    """Return a warning for each axis whose items all come from one template."""
    axes = ((performance.AXIS, first_samples(suite.performance)), (compliance.AXIS, first_samples(suite.compliance)))
    return [
        f"All {len(items):,} items of the axis {axis} are of one group, so its intervals hold for this group only."
        for axis, items in axes
        if len(items) > 1 and count_groups((item.id for item in items), suite.groups) == 1
    ]


def _sets(suite: Suite) -> list[dict[str, object]]:
    """Return the number of items and of groups of each performance set."""
    ids: dict[str, list[str]] = {}
    for item in first_samples(suite.performance):
        ids.setdefault(item.id.split("/")[0], []).append(item.id)
    return [
        {"name": name, "items": len(ones), "groups": count_groups(ones, suite.groups)} for name, ones in ids.items()
    ]


def shadow_report(
    suite: Suite,
    setting: Setting,
    judge: Deployment | None,
    records: Sequence[Recorded],
    scores: Mapping[str, ShadowScores],
    pairs: Sequence[JudgedPair],
    stopped: str | None,
) -> dict[str, Any]:
    """Return the report of what a shadow recorded."""
    config, assistant, region = setting.config, setting.assistant, setting.region
    report = {
        "format": FORMAT,
        "kind": "shadow",
        "suite": {"name": suite.name, "digest": suite.digest},
        "region": region.name,
        "assistant": assistant.name,
        **version_fields(config.version),
        "at": _utc_text(setting.now_s),
        "simulated": config.demo,
        "from": _utc_text(records[0][1].at_s),
        "until": _utc_text(records[-1][1].at_s),
        "keeps_text": assistant.shadows[region.name].keep_text,
        "judge": judge.name if judge is not None else None,
        "stopped": stopped,
        "shadows": dict(scores),
        "pairs": pairs,
        "words": [
            *(line for name, one in scores.items() for line in describe_shadow(name, one)),
            *map(describe_pair, pairs),
        ],
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _notices(suite: Suite, run: EvaluatedRun, findings: RunFindings) -> list[str]:
    """Return what a reader must know before the recommendation: missing judges and missing verdicts."""
    notices = [_missing_judge_notice(suite)] if suite.compliance and not findings.are_read else []
    notices += [
        f"{name}: {found.unsure:,} answers apologize and then continue. Without a judge it is unsure whether they are "
        f"refusals, so each counts against {name}."
        for name, one in findings.by_candidate.items()
        if (found := one.compliance) is not None and found.unsure
    ]
    if run.judge is not None:
        coverages = {name: one.coverage for name, one in findings.by_candidate.items() if one.coverage is not None}
        notices += coverage_notices(run.judge.name, coverages, run.given_up.get(run.judge.name))
    return notices


def _scored_by(suite: Suite, judge: Deployment | None) -> str:
    """Return a phrase that names the judge if its scores are among the compared ones."""
    is_judged = judge is not None and any(isinstance(item.check, JudgeCheck) for item in suite.performance)
    return f", with scores of the judge {judge.name}" if judge is not None and is_judged else ""


def _bias(suite: Suite, run: EvaluatedRun, marks: Marks | None) -> JudgeBias:
    asked = [one.deployment for one in run.eligibilities if one.refused is None]
    judge = run.judge
    verdicts = read_verdicts(run.store, judge.name if judge is not None else None, [one.name for one in asked])
    return measure_bias(run.store, performance.AXIS, suite.performance, asked, judge, verdicts, marks)


def _missing_judge_notice(suite: Suite) -> str:
    words = len(unacceptable_words(suite))
    if words:
        finding = f"acceptable only means that an answer contains none of {words} listed words"
    else:
        finding = "acceptable was not measured, because the bank lists no words"
    return (
        f"No judge read the answers: {finding}, and refusals are only detected by their wording. Name a judge in the "
        "suite, and let people read a sample."
    )


def _utc_text(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds")


def _candidate(
    eligibility: Eligibility,
    setting: Setting,
    findings: RunFindings,
    scores: Mapping[str, Scores],
    requirements: Mapping[str, Sequence[object]],
    store: RunStore,
    cost: Mapping[str, float | None],
) -> dict[str, Any]:
    deployment = eligibility.deployment
    one = findings.by_candidate[deployment.name]
    prompt_tokens, completion_tokens = store.tokens(deployment.name)
    compliance_score = one.compliance.score if one.compliance is not None else None
    return {
        "provider": deployment.provider,
        "model": deployment.model,
        "site": deployment.site,
        "refused": eligibility.refused,
        "waived": eligibility.waived,
        "given_up": one.given_up,
        "approval": findings.approvals[deployment.name],
        "fence": fence_of(setting.config, setting.assistant, deployment, setting.region, setting.now_s),
        "tokens": {"prompt": prompt_tokens, "completion": completion_tokens},
        "load_tokens": sum(store.load_tokens(deployment.name)),
        "cost": cost.get(deployment.name),
        "labelled": one.labelled,
        "first_attempts": one.first_attempts,
        "first_attempt_failures": _first_attempts(store, deployment.name)[1],
        "verdicts": one.coverage,
        "performance": one.performance,
        "compliance": None if one.compliance is None else {**asdict(one.compliance), "score": compliance_score},
        "scalability": one.scalability,
        "score": scores[deployment.name],
        "requirements": requirements[deployment.name],
    }


def _people(marks: Marks | None, results: Mapping[str, performance.Performance], seed: int) -> People | None:
    scores = {name: one.first_scores for name, one in results.items()}
    return score_marks(marks, scores, seed) if marks is not None else None


def _plain(value: Any) -> Any:
    """Convert a value to JSON types. An infinite end of an interval becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
