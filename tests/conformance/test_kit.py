"""The conformance kit over every adapter of ours, as a part of the ordinary suite."""

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


def test_every_adapter_is_held_to_account() -> None:
    """The kit passes over what doesn't load and what has no dialect; nothing of ours may be among that."""
    assert not load_registry().broken
    assert not load_simulators().broken
    assert set(load_simulators().dialects) == set(load_registry().adapters) >= {"openai", "gemini", "dashscope"}
