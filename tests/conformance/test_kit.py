"""Run the conformance kit over all adapters of this repository, as part of the test suite."""

from __future__ import annotations

from providers.conformance.test_answers import *  # noqa: F403
from providers.conformance.test_errors import *  # noqa: F403
from providers.conformance.test_garbage import *  # noqa: F403
from providers.conformance.test_purity import *  # noqa: F403
from providers.conformance.test_requests import *  # noqa: F403
from providers.conformance.test_streams import *  # noqa: F403
from providers.conformance.test_wire import *  # noqa: F403
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators


def test_every_adapter_is_tested_by_the_kit() -> None:
    """The kit skips adapters that do not load or have no simulator. No adapter of this repository may be skipped."""
    assert not load_registry().broken
    assert not load_simulators().broken
    assert set(load_simulators().simulators) == set(load_registry().adapters) >= {"openai", "gemini", "dashscope"}
