"""Test that the kit does not demand failures which a vendor does not have."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from providers.compatible import adapter_of, simulator_of
from providers.compatible.dialect import DialectError
from providers.conformance import test_errors as errors
from providers.conformance.cases import answer_cases
from providers.conformance.subject import Subject, subjects_of
from providers.failures import FailureKind
from providers.testkit.simulator import lacked_by
from providers.vendors.openai.adapter import COMPATIBLE
from providers.vendors.openai.simulator import SIMULATOR, OpenAISimulator
from providers.wire import WireResponse
from tests.kit.case_files import cases

_FILTERED = (FailureKind.CONTENT_FILTER, 400)
_VENDOR = 'name = "bare"\n[dialect]\n{lacks}\n[simulator.errors]\nquota = ["insufficient_quota", ""]\n'


@dataclass(frozen=True, slots=True)
class WithoutFilter(OpenAISimulator):
    """A vendor without a content filter: it answers as for a failed server."""

    lacks: frozenset[str] = frozenset({"content_filter"})

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        if kind is FailureKind.CONTENT_FILTER:
            kind, status = FailureKind.UNAVAILABLE, 500
        return super(WithoutFilter, self).write_error(kind, status, retry_after_s)


def subject(simulator: OpenAISimulator) -> Subject:
    (one,) = subjects_of(COMPATIBLE, SIMULATOR)
    return replace(one, simulator=simulator)


def test_vendor_without_a_content_filter_is_not_asked_for_one() -> None:
    without, with_filter = subject(WithoutFilter("x")), subject(WithoutFilter("x", lacks=frozenset()))
    errors.test_provider_errors_are_classified(without, *_FILTERED)
    errors.test_error_with_status_200_fails(without, *_FILTERED)
    assert "content_filter" not in {case.name for case in answer_cases(without)}
    with pytest.raises(AssertionError, match="content_filter"):
        errors.test_provider_errors_are_classified(with_filter, *_FILTERED)
    assert "content_filter" in {case.name for case in answer_cases(with_filter)}


def test_dialect_states_what_the_vendor_lacks() -> None:
    lacking = simulator_of(_VENDOR.format(lacks='lacks = ["content_filter"]'))
    assert lacked_by(lacking) == {"content_filter"}
    assert lacked_by(simulator_of(_VENDOR.format(lacks=""))) == frozenset()


@cases("lacks", "complaint")
def test_wrong_lack_is_refused(lacks: str, complaint: str) -> None:
    with pytest.raises(DialectError, match=complaint):
        adapter_of(_VENDOR.format(lacks=lacks))


def test_wrong_lack_of_a_simulator_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a set of content_filter"):
        lacked_by(WithoutFilter("x", lacks=frozenset({"manners"})))
