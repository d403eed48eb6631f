"""Decide the next stage of a canary schedule, or its rollback (Fisher's exact test)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion
from gateway.model.route import WeightedSet
from gateway.model.schedule import Phase, Schedule, ScheduleProgress, Stage, StopRule, Tally
from providers.value import replace

_NEGLIGIBLE = 1e-17
ALPHA = 0.01
"""Upper bound of the probability, for each stage, that a candidate is rolled back although it is not worse."""
_RULES = 2
_GROWTH = 1.25
_TAIL = 0.95


def fisher_exact_p(hits: int, of: int, other_hits: int, of_others: int) -> float:
    """Return the one-sided p-value of Fisher's exact test.

    It is the probability of at least `hits` hits among `of` tries, if both groups have the same rate.
    """
    all_tries, all_hits = of + of_others, hits + other_hits
    if not 0 <= hits <= of or not 0 <= other_hits <= of_others:
        raise ValueError("there can't be more hits than tries")
    max_hits = min(all_hits, of)
    logarithm = _choices(all_hits, hits) + _choices(all_tries - all_hits, of - hits) - _choices(all_tries, of)
    term = total = math.exp(logarithm)
    for count in range(hits, max_hits):
        term *= (all_hits - count) * (of - count)
        term /= (count + 1) * (all_tries - all_hits - of + count + 1)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return min(total, 1.0)


def _choices(of: int, chosen: int) -> float:
    """Return the logarithm of the binomial coefficient."""
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def share_at(schedule: Schedule, progress: ScheduleProgress) -> float:
    """Return the candidate's share (0 to 1)."""
    return 0.0 if progress.phase in (Phase.ROLLED_BACK, Phase.HELD) else schedule.stages[progress.stage].share


def advance(
    schedule: Schedule, progress: ScheduleProgress, by_s: float, candidate: Tally, baseline: Tally
) -> ScheduleProgress:
    """Return the progress after `by_s` more seconds and more requests of each variant."""
    if progress.phase is not Phase.RUNNING:
        return progress
    progress = replace(
        progress,
        elapsed_s=progress.elapsed_s + by_s,
        candidate=progress.candidate + candidate,
        baseline=progress.baseline + baseline,
    )
    stage = schedule.stages[progress.stage]
    is_over = stage.for_s is not None and progress.elapsed_s >= stage.for_s
    enough = _has_enough(schedule.stop, progress)
    if enough and progress.candidate.requests >= (progress.seen if is_over else math.ceil(progress.seen * _GROWTH)):
        progress = _test(schedule.stop, progress)
    if progress.phase is Phase.RUNNING and is_over and enough:
        return begin(schedule, progress.stage + 1)
    return progress


def begin(schedule: Schedule, stage: int = 0) -> ScheduleProgress:
    """Return the progress at the start of a stage. At a share of 100 % the schedule is done: there is no baseline."""
    whole = schedule.stages[stage].share >= 1
    return ScheduleProgress(Phase.DONE if whole else Phase.RUNNING, stage)


def _has_enough(stop: StopRule, progress: ScheduleProgress) -> bool:
    return min(progress.candidate.requests, progress.baseline.requests) >= stop.min_requests


def waits_for(schedule: Schedule, progress: ScheduleProgress) -> str:
    """Return what a stage waits for after its time is over, or an empty text."""
    stage: Stage = schedule.stages[progress.stage]
    is_over = stage.for_s is not None and progress.elapsed_s >= stage.for_s
    if not is_over or _has_enough(schedule.stop, progress):
        return ""
    fewest = min(progress.candidate.requests, progress.baseline.requests)
    return f"{schedule.stop.min_requests - fewest} more requests of the variant with fewer requests"


def _test(stop: StopRule, progress: ScheduleProgress) -> ScheduleProgress:
    looks = progress.looks + 1
    allowed = ALPHA / _RULES * 6 / (math.pi * looks) ** 2
    candidate, baseline = progress.candidate, progress.baseline
    reason = _fails_more(stop, candidate, baseline, allowed) or _is_slower(stop, candidate, baseline, allowed)
    phase = Phase.ROLLED_BACK if reason else Phase.RUNNING
    return replace(progress, phase=phase, looks=looks, seen=candidate.requests, reason=reason)


def _fails_more(stop: StopRule, candidate: Tally, baseline: Tally, allowed: float) -> str:
    if stop.error_rate is None or candidate.error_rate <= stop.error_rate:
        return ""
    if fisher_exact_p(candidate.failed, candidate.requests, baseline.failed, baseline.requests) >= allowed:
        return ""
    return (
        f"{candidate.failed} of {candidate.requests} requests failed ({candidate.error_rate:.1%}), compared with "
        f"{baseline.failed} of {baseline.requests} of the baseline ({baseline.error_rate:.1%})"
    )


def _is_slower(stop: StopRule, candidate: Tally, baseline: Tally, allowed: float) -> str:
    usual_s = baseline.percentile_s(_TAIL)
    if stop.latency_p95 is None or usual_s is None:
        return ""
    limit_s = usual_s * (1 + stop.latency_p95)
    answers, others = sum(candidate.times), sum(baseline.times)
    slow, slow_others = candidate.slower_than(limit_s), baseline.slower_than(limit_s)
    if slow <= (1 - _TAIL) * answers or fisher_exact_p(slow, answers, slow_others, others) >= allowed:
        return ""
    return (
        f"{slow} of {answers} answers took longer than {limit_s:.3g} s, which is {1 + stop.latency_p95:.3g} times the "
        f"baseline's 95th percentile, compared with {slow_others} of {others} of the baseline"
    )


def with_shares(
    config: ConfigVersion, shares: Mapping[tuple[str, str], float], *, is_frozen: bool = False
) -> ConfigVersion:
    """Return the config version with these shares of the candidates, by (assistant, region).

    The other members of each step share the rest. The result has its own version: that of the config, and four digits
    for the shares.
    """
    if not shares:
        return config
    changed = {it.name: _with_shares(it, shares, is_frozen=is_frozen) for it in config.assistants.values()}
    assistants = {name: changed[assistant.name] for name, assistant in config.assistants.items()}
    text = json.dumps(sorted([*key, share] for key, share in shares.items()))
    digits = hashlib.sha256(text.encode()).hexdigest()[:4]
    return replace(config, version=f"{config.version}+{digits}", assistants=assistants)


def _with_shares(assistant: Assistant, shares: Mapping[tuple[str, str], float], *, is_frozen: bool) -> Assistant:
    routes = dict(assistant.routes)
    schedules = {region: replace(schedule, is_frozen=is_frozen) for region, schedule in assistant.schedules.items()}
    for region, schedule in assistant.schedules.items():
        first, *rest = routes[region]
        if (assistant.name, region) in shares and isinstance(first, WeightedSet):
            routes[region] = (_shared(first, schedule.candidate, shares[assistant.name, region]), *rest)
    views = {name: _with_shares(view, shares, is_frozen=is_frozen) for name, view in assistant.by_intent.items()}
    return replace(assistant, routes=routes, schedules=schedules, by_intent=views)


def _shared(step: WeightedSet, candidate: str, share: float) -> WeightedSet:
    others = {member.name: weight for member, weight in step.members if member.name != candidate}
    # If all their weights are 0, they get equal shares.
    total = sum(others.values())
    parts = {name: weight / total if total else 1 / len(others) for name, weight in others.items()}
    return WeightedSet(
        tuple(
            (member, 100 * (share if member.name == candidate else (1 - share) * parts[member.name]))
            for member, _ in step.members
        )
    )
