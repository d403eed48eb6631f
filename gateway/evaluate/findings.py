"""What an evaluation found of each candidate, from what its run has stored, before anything is weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.config.scalars import seconds
from gateway.evaluate import compliance, performance
from gateway.evaluate.evaluation import Standing
from gateway.evaluate.items import Answer, Item
from gateway.evaluate.judge import score_of, verdict_axis
from gateway.evaluate.labelling import labelled
from gateway.evaluate.ranking import Found
from gateway.evaluate.scalability import Scalability, score_scalability
from gateway.evaluate.scorers import Score
from gateway.evaluate.standards import approval_of
from gateway.evaluate.statistics import Comparison
from gateway.evaluate.store import RunStore
from gateway.evaluate.suite import Suite
from gateway.model.deployment import Deployment
from gateway.model.table import Region

__all__ = ["Findings", "find", "unacceptable_words"]


@dataclass(frozen=True, slots=True)
class Findings:
    """asked: the candidates that were not refused. are_read: whether a judge read the answers for compliance."""

    asked: Sequence[str]
    by_candidate: Mapping[str, Found]
    performances: Mapping[str, performance.Performance]
    comparisons: Sequence[Comparison]
    approvals: Mapping[str, Mapping[str, object]]
    are_read: bool


def find(
    suite: Suite,
    region: Region,
    now_s: float,
    standings: Sequence[Standing],
    judge: Deployment | None,
    store: RunStore,
    given_up: Mapping[str, str],
) -> Findings:
    """Score all that is stored. given_up: why one was not asked to the end; now_s: Unix time, for what ends."""
    asked = [standing.deployment.name for standing in standings if standing.refused is None]
    verdict = _verdicts(store, judge, asked)
    performances, comparisons = performance.score_performance(store, asked, suite.performance, suite.file.seed, verdict)
    are_read = judge is not None and suite.file.judge is not None and suite.file.judge.compliance
    compliances = compliance.score_compliance(
        store, asked, suite.compliance, unacceptable_words(suite), verdict, has_judge=are_read
    )
    loads = _loads(suite, store, asked)
    wanted = suite.file.requirements.approval
    approvals = {one.deployment.name: approval_of(one.deployment, region, now_s, wanted=wanted) for one in standings}
    found = {}
    for one in standings:
        name, lacking = one.deployment.name, approvals[one.deployment.name]["lacking"]
        found[name] = Found(
            name,
            one.refused,
            given_up.get(name),
            lacking if isinstance(lacking, str) else None,
            labelled(store, name, region) if one.refused is None else None,
            performances.get(name) if suite.performance else None,
            compliances.get(name) if suite.compliance else None,
            loads.get(name),
        )
    return Findings(asked, found, performances, comparisons, approvals, are_read)


def unacceptable_words(suite: Suite) -> tuple[str, ...]:
    """Those of the suite's bank, by which an answer is told that nobody reads."""
    return suite.bank.unacceptable if suite.bank is not None else ()


def _loads(suite: Suite, store: RunStore, asked: Sequence[str]) -> Mapping[str, Scalability]:
    section = suite.file.scalability
    if section is None:
        return {}
    first_s, total_s = seconds(section.objectives.first_token), seconds(section.objectives.total)
    return score_scalability(store, asked, len(section.rates), first_s, total_s)


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
