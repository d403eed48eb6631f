"""Estimate questions, tokens, money and time of a run before it starts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from evaluation.items import Item, JudgeCheck
from evaluation.suite import Suite
from evaluation.suite_schema import CandidatePriceSection, PricesSection
from evaluation.text_rules import words_of
from gateway.model.deployment import Deployment
from gateway.model.units import parse_seconds
from providers.catalogue.prices import MICROS, NO_CURRENCY


def cost_limit_problem(suite: Suite, asked: Iterable[Deployment]) -> str | None:
    """Return why a cost limit can't be enforced (a deployment has no price), or None if it can."""
    if suite.file.spend.cost is None or suite.file.prices is None:
        return None
    names = [one.name for one in asked if suite.cost_of(one.name, 0, 0) is None]
    if not names:
        return None
    return (
        f"spend.cost can't be enforced, because these deployments have no price in {suite.file.prices.currency}: "
        f"{', '.join(names)}; add their prices under prices.deployments, or use spend.tokens"
    )


def add_known_prices(suite: Suite, asked: Iterable[Deployment]) -> Suite:
    """Return the suite with the catalogue's prices of these deployments. The suite's own prices take precedence.

    The prices are those that hold now.
    All prices must have one currency: the suite's or, if the suite has no prices, the one of all deployments. Rates for
    long or cached prompts are ignored, because an evaluation has neither. If reasoning has a higher rate than the
    answer, it applies to all generated tokens.
    """
    now_s = time.time()
    prices_now = ((deployment.name, deployment.price_at(now_s)) for deployment in asked)
    known = {name: price for name, price in prices_now if price is not None}
    own_prices = suite.file.prices
    currencies = {price.currency for price in known.values()} - {NO_CURRENCY}
    if own_prices is not None:
        currencies = {own_prices.currency}
    if len(currencies) != 1:
        return suite
    [currency] = currencies
    prices = {
        name: CandidatePriceSection(
            input=price.rates.input / MICROS, output=max(price.rates.output, price.rates.per_reasoning) / MICROS
        )
        for name, price in known.items()
        if price.currency in (currency, NO_CURRENCY)
    }
    if own_prices is not None:
        prices |= own_prices.deployments
    section = PricesSection(currency=currency, deployments=prices)
    return replace(suite, file=suite.file.model_copy(update={"prices": section}))


_ANSWER_TOKENS = 120
_ANSWER_S = 3.0
_OVERHEAD_TOKENS = 12
_TOKENS_PER_WORD = 1.4
_JUDGED_TOKENS = 400


@dataclass(frozen=True, slots=True)
class Estimated:
    """The estimate for one deployment. `cost` is None if it has no price."""

    name: str
    questions: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    duration_s: float


def estimate(suite: Suite, candidates: Sequence[Deployment], judge: Deployment | None) -> tuple[list[Estimated], float]:
    """Return the estimate of each deployment, and the total time in seconds.

    Candidates are asked concurrently. Their load tests run one after another.
    """
    estimates = [_candidate(suite, candidate) for candidate in candidates]
    questions_s = max((one.duration_s for one in estimates), default=0.0)
    load_s = _load_s(suite) * len(candidates)
    if judge is not None:
        judging = _judge(suite, judge, len(candidates))
        estimates.append(judging)
        questions_s += judging.duration_s
    return estimates, questions_s + load_s


def _candidate(suite: Suite, candidate: Deployment) -> Estimated:
    items = (*suite.performance, *suite.compliance, *suite.consistency)
    prompt = sum(map(_tokens, items))
    completion = _ANSWER_TOKENS * len(items)
    duration_s = _duration_s(suite, len(items))
    section = suite.file.scalability
    questions = len(items)
    if section is not None:
        requests = round(
            sum(section.rates) * parse_seconds(section.step) + section.rates[0] * parse_seconds(section.recovery)
        )
        questions += requests
        prompt += requests * _tokens(Item("load", "load", "", section.prompt))
        completion += requests * section.max_tokens
    cost = suite.cost_of(candidate.name, prompt, completion)
    return Estimated(candidate.name, questions, prompt, completion, cost, duration_s)


def _judge(suite: Suite, judge: Deployment, candidates: int) -> Estimated:
    section = suite.file.judge
    questions = sum(isinstance(item.check, JudgeCheck) for item in suite.performance) * candidates
    if section is not None:
        questions += len(suite.compliance) * candidates if section.compliance else 0
        questions += 2 * section.pairs * len(list(combinations(range(candidates), 2)))
    prompt, completion = questions * _JUDGED_TOKENS, questions * _ANSWER_TOKENS
    cost = suite.cost_of(judge.name, prompt, completion)
    return Estimated(judge.name, questions, prompt, completion, cost, _duration_s(suite, questions))


def _duration_s(suite: Suite, questions: int) -> float:
    limits = suite.file.limits
    by_rate = questions * 60 / limits.rpm if limits.rpm else 0.0
    return max(questions / limits.concurrent * _ANSWER_S, by_rate)


def _load_s(suite: Suite) -> float:
    section = suite.file.scalability
    return (
        0.0 if section is None else len(section.rates) * parse_seconds(section.step) + parse_seconds(section.recovery)
    )


def _tokens(item: Item) -> int:
    text = item.prompt + (item.system or "") + "".join(repr(tool) for tool in item.tools)
    return round(len(words_of(text)) * _TOKENS_PER_WORD) + _OVERHEAD_TOKENS


def estimate_text(estimates: Sequence[Estimated], duration_s: float, currency: str) -> str:
    """Return the estimate as a table for a terminal."""
    width = max([len(one.name) for one in estimates] + [10])
    lines = [f"{'deployment':<{width}}  questions  tokens in  tokens out  cost"]
    for one in estimates:
        cost = "no price is set" if one.cost is None else f"{one.cost:.2f} {currency}"
        lines.append(
            f"{one.name:<{width}}  {one.questions:>9,}  {one.prompt_tokens:>9,}  {one.completion_tokens:>10,}  {cost}"
        )
    minutes = duration_s / 60
    lines.append(f"It takes about {minutes:.0f} min." if minutes >= 1 else f"It takes about {duration_s:.0f} s.")
    return "\n".join(lines)
