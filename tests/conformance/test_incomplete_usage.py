"""The kit expects only the usage counts that a vendor reports."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from providers.compatible.simulator import CompatibleSimulator
from providers.conformance.cases import answer_cases
from providers.conformance.subject import Subject, subjects_of
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators, uncounted_by

DEEPSEEK = load_simulators().simulators["deepseek"]
assert isinstance(DEEPSEEK, CompatibleSimulator)


@dataclass(frozen=True, slots=True)
class IncompleteUsageSimulator(CompatibleSimulator):
    uncounted: frozenset[str] = frozenset()


def subject(*uncounted: str) -> Subject:
    simulator = IncompleteUsageSimulator(DEEPSEEK.adapter, DEEPSEEK.format, frozenset(uncounted))  # type: ignore[attr-defined]
    return subjects_of(load_registry().adapters["deepseek"], simulator)[0]


@pytest.mark.parametrize("uncounted", [(), ("cached_tokens",), ("cached_tokens", "reasoning_tokens")])
def test_kit_expects_no_counts_that_the_vendor_does_not_report(uncounted: tuple[str, ...]) -> None:
    usages = {case.name: case.completion.usage for case in answer_cases(subject(*uncounted))}
    cached, thinking = usages["cached"], usages["reasoning"]
    assert cached is not None
    assert thinking is not None
    assert cached.cached_tokens == (0 if "cached_tokens" in uncounted else 16)
    assert thinking.reasoning_tokens == (0 if "reasoning_tokens" in uncounted else 28)
    assert (cached.prompt_tokens, cached.completion_tokens) == (31, 12)


def test_simulator_without_a_declaration_reports_all_counts() -> None:
    assert uncounted_by(DEEPSEEK) == frozenset()
