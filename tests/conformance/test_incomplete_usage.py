"""A vendor whose usage doesn't tell all: the kit asks for what it tells."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from providers.compatible.simulator import CompatibleSimulator
from providers.conformance.cases import answer_cases
from providers.conformance.subject import Subject, subjects_of
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators, uncounted_by

DEEPSEEK = load_simulators().dialects["deepseek"]
assert isinstance(DEEPSEEK, CompatibleSimulator)


@dataclass(frozen=True, slots=True)
class Quiet(CompatibleSimulator):
    uncounted: frozenset[str] = frozenset()


def subject(*uncounted: str) -> Subject:
    dialect = Quiet(DEEPSEEK.adapter, DEEPSEEK.side, frozenset(uncounted))
    return subjects_of(load_registry().adapters["deepseek"], dialect)[0]


@pytest.mark.parametrize("uncounted", [(), ("cached_tokens",), ("cached_tokens", "reasoning_tokens")])
def test_what_a_vendor_does_not_count_is_not_asked_for(uncounted: tuple[str, ...]) -> None:
    usages = {case.name: case.completion.usage for case in answer_cases(subject(*uncounted))}
    cached, thinking = usages["cached"], usages["reasoning"]
    assert cached is not None
    assert thinking is not None
    assert cached.cached_tokens == (0 if "cached_tokens" in uncounted else 16)
    assert thinking.reasoning_tokens == (0 if "reasoning_tokens" in uncounted else 28)
    assert (cached.prompt_tokens, cached.completion_tokens) == (31, 12)


def test_who_says_nothing_counts_all() -> None:
    assert uncounted_by(DEEPSEEK) == frozenset()
