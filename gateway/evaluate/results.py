"""Everything that an evaluation has found, as one value for JSON, from which the pages are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gateway.config.scalars import seconds
from gateway.evaluate import compliance, performance
from gateway.evaluate.evaluation import Standing
from gateway.evaluate.items import Answer, Item
from gateway.evaluate.judge import JudgedPair, pairs_of, score_of, verdict_axis
from gateway.evaluate.labelling import labelled
from gateway.evaluate.people import Marks, People, score_marks
from gateway.evaluate.ranking import Found, Scores, judge_requirements, order, scores_of
from gateway.evaluate.recommendation import Recommendation, recommend
from gateway.evaluate.scalability import score_scalability
from gateway.evaluate.scorers import Score
from gateway.evaluate.shadow_pairs import pair_in_words
from gateway.evaluate.shadow_traffic import Recorded, ShadowScores, shadow_in_words
from gateway.evaluate.standards import approval_of, fence_of
from gateway.evaluate.store import RunStore
from gateway.evaluate.suite import Suite
from gateway.model.deployment import Deployment
from gateway.model.route import deployments_of
from gateway.model.table import Assistant, Region, Table

__all__ = ["FORMAT", "Report", "Setting", "build_report", "shadow_report"]

FORMAT = 1
Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where an evaluation took place. now_s: Unix time, for what ends."""

    table: Table
    assistant: Assistant
    region: Region
    now_s: float


def build_report(
    suite: Suite,
    setting: Setting,
    standings: Sequence[Standing],
    judge: Deployment | None,
    store: RunStore,
    given_up: Mapping[str, str],
    stopped: str | None,
    cost: Mapping[str, float | None],
    marks: Marks | None = None,
) -> tuple[dict[str, Any], Recommendation]:
    """The report, and the recommendation that it ends with. marks: what people gave, where they did."""
    asked = [standing.deployment.name for standing in standings if standing.refused is None]
    verdict = _verdicts(store, judge, asked)
    performances, comparisons = performance.score_performance(store, asked, suite.performance, suite.file.seed, verdict)
    unacceptable = suite.bank.unacceptable if suite.bank is not None else ()
    has_judge = judge is not None and suite.file.judge is not None and suite.file.judge.compliance
    compliances = compliance.score_compliance(
        store, asked, suite.compliance, unacceptable, verdict, has_judge=has_judge
    )
    loads = {}
    section = suite.file.scalability
    if section is not None:
        first_s, total_s = seconds(section.objectives.first_token), seconds(section.objectives.total)
        loads = score_scalability(store, asked, len(section.rates), first_s, total_s)
    approvals = {one.deployment.name: approval_of(one.deployment, setting.region, setting.now_s) for one in standings}
    found = {
        one.deployment.name: Found(
            one.deployment.name,
            one.refused,
            given_up.get(one.deployment.name),
            _text(approvals[one.deployment.name]["lacking"]),
            labelled(store, one.deployment.name, setting.region) if one.refused is None else None,
            performances.get(one.deployment.name) if suite.performance else None,
            compliances.get(one.deployment.name) if suite.compliance else None,
            loads.get(one.deployment.name),
        )
        for one in standings
    }
    scores = {name: scores_of(one, suite.file) for name, one in found.items()}
    requirements = {name: judge_requirements(one, suite.file.requirements) for name, one in found.items()}
    out = {name for name, ones in requirements.items() if not all(one.met for one in ones)}
    ranking = order(scores, out)
    route = [deployment.name for deployment in deployments_of(setting.assistant.routes.get(setting.region.name, ()))]
    advice = recommend(ranking, found, scores, requirements, comparisons, route)
    if suite.file.compliance is not None and not has_judge and suite.file.compliance.accept:
        reason = _nobody_read(len(unacceptable))
        advice = replace(advice, reasons=(*advice.reasons, reason))
    report = {
        "format": FORMAT,
        "suite": {"name": suite.name, "digest": suite.digest, "seed": suite.file.seed},
        "asked": {
            "performance": len(suite.performance),
            "compliance": len(suite.compliance),
            "streamed": len(suite.consistency),
        },
        "region": setting.region.name,
        "assistant": setting.assistant.name,
        "table": setting.table.version,
        "at": _moment(setting.now_s),
        "simulated": setting.table.demo,
        "stopped": stopped,
        "weights": suite.file.weights.model_dump(),
        "objectives": section.objectives.model_dump() if section is not None else None,
        "judge": judge.name if judge is not None else None,
        "currency": suite.file.prices.currency if suite.file.prices is not None else "",
        "risks": suite.bank.risks if suite.bank is not None else {},
        "candidates": {
            one.deployment.name: _candidate(one, setting, approvals, found, scores, requirements, store, cost)
            for one in standings
        },
        "comparisons": [{**asdict(one), "words": one.in_words()} for one in comparisons],
        "pairs": [asdict(one) for one in pairs_of(store, judge.name, asked)] if judge is not None else [],
        "people": _people(marks, performances, suite.file.seed),
        "ranking": ranking,
        "out": sorted(out),
        "recommendation": {**asdict(advice), "route_now": route},
    }
    return _plain(report), advice


def shadow_report(
    suite: Suite,
    table: Table,
    assistant: Assistant,
    region: Region,
    judge: Deployment | None,
    kept: Sequence[Recorded],
    scores: Mapping[str, ShadowScores],
    pairs: Sequence[JudgedPair],
    stopped: str | None,
    now_s: float,
) -> dict[str, Any]:
    """The report of what a shadow recorded."""
    report = {
        "format": FORMAT,
        "kind": "shadow",
        "suite": {"name": suite.name, "digest": suite.digest},
        "region": region.name,
        "assistant": assistant.name,
        "table": table.version,
        "at": _moment(now_s),
        "simulated": table.demo,
        "from": _moment(kept[0][1].at_s),
        "until": _moment(kept[-1][1].at_s),
        "keeps_text": assistant.shadows[region.name].keep_text,
        "judge": judge.name if judge is not None else None,
        "stopped": stopped,
        "shadows": dict(scores),
        "pairs": pairs,
        "words": [
            *(line for name, one in scores.items() for line in shadow_in_words(name, one)),
            *map(pair_in_words, pairs),
        ],
    }
    plain: dict[str, Any] = _plain(report)
    return plain


def _nobody_read(words: int) -> str:
    told = f"what has none of {words} listed words" if words else "told by nobody, as the bank has no words"
    return f"No judge read the answers: acceptable is {told}. Name a judge in the suite, and have people read a sample."


def _moment(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds")


def _candidate(
    standing: Standing,
    setting: Setting,
    approvals: Mapping[str, Mapping[str, object]],
    found: Mapping[str, Found],
    scores: Mapping[str, Scores],
    requirements: Mapping[str, Sequence[object]],
    store: RunStore,
    cost: Mapping[str, float | None],
) -> dict[str, Any]:
    deployment = standing.deployment
    one = found[deployment.name]
    prompt_tokens, completion_tokens = store.tokens(deployment.name)
    compliance_score = one.compliance.score if one.compliance is not None else None
    return {
        "provider": deployment.provider,
        "model": deployment.model,
        "site": deployment.site,
        "refused": standing.refused,
        "waived": standing.waived,
        "given_up": one.given_up,
        "approval": approvals[deployment.name],
        "fence": fence_of(setting.table, setting.assistant, deployment, setting.region, setting.now_s),
        "tokens": {"prompt": prompt_tokens, "completion": completion_tokens},
        "cost": cost.get(deployment.name),
        "labelled": one.labelled,
        "performance": one.performance,
        "compliance": None if one.compliance is None else {**asdict(one.compliance), "score": compliance_score},
        "scalability": one.scalability,
        "score": scores[deployment.name],
        "requirements": requirements[deployment.name],
    }


def _people(marks: Marks | None, found: Mapping[str, performance.Performance], seed: int) -> People | None:
    scores = {name: one.scores for name, one in found.items()}
    return score_marks(marks, scores, seed) if marks is not None else None


def _verdicts(store: RunStore, judge: Deployment | None, candidates: Sequence[str]) -> performance.Rubric:
    """What the judge said of an answer; nothing where there is no judge."""
    if judge is None:
        return lambda name, item, answer: None
    said = {
        name: {
            row.item: found
            for row in store.rows(judge.name, verdict_axis(name))
            if row.answer is not None and (found := score_of(row.answer)) is not None
        }
        for name in candidates
    }

    def verdict(name: str, item: Item, _: Answer) -> Score | None:
        return said[name].get(item.id)

    return verdict


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _plain(value: Any) -> Any:
    """The value in the terms of JSON: an infinite end of an interval is null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
