"""Each simulated failure means the same to the adapter of the vendor, as an answer and within a stream."""

from __future__ import annotations

import pytest

from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import Failed
from providers.failures import FailureKind
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators

ADAPTERS = load_registry().adapters
SIMULATORS = load_simulators().simulators
VENDORS = sorted(ADAPTERS)
WITHOUT_CODE = {"cohere", "siliconflow"}
"""Vendors whose errors have no code for an invalid request. In a stream there is no HTTP status either."""


@pytest.mark.parametrize("vendor", VENDORS)
def test_simulated_long_prompt_is_read_as_a_long_prompt(vendor: str) -> None:
    response = SIMULATORS[vendor].write_error(FailureKind.CONTEXT_LENGTH, 400)
    assert ADAPTERS[vendor].classify_error(response).kind is FailureKind.CONTEXT_LENGTH


@pytest.mark.parametrize("vendor", sorted(set(VENDORS) - WITHOUT_CODE))
def test_simulated_long_prompt_within_a_stream_is_read_as_a_long_prompt(vendor: str) -> None:
    parser = ADAPTERS[vendor].stream_parser(Target("any-model", "/v1", UNKNOWN_MODEL))
    events = [*parser.feed(SIMULATORS[vendor].write_error_event(FailureKind.CONTEXT_LENGTH)), *parser.close()]
    failures = [event.failure for event in events if isinstance(event, Failed)]
    assert [failure.kind for failure in failures] == [FailureKind.CONTEXT_LENGTH]
