"""Run the conformance kit over all adapters of this repository, as part of the test suite."""

from __future__ import annotations

from providers.conformance.cases import AnswerCase, RequestCase
from providers.conformance.selection import Selection
from providers.conformance.subject import subjects_of
from providers.conformance.test_answers import *  # noqa: F403
from providers.conformance.test_audio import *  # noqa: F403
from providers.conformance.test_decisions import *  # noqa: F403
from providers.conformance.test_errors import *  # noqa: F403
from providers.conformance.test_garbage import *  # noqa: F403
from providers.conformance.test_inputs import *  # noqa: F403
from providers.conformance.test_purity import *  # noqa: F403
from providers.conformance.test_requests import *  # noqa: F403
from providers.conformance.test_streams import *  # noqa: F403
from providers.conformance.test_wire import *  # noqa: F403
from providers.matching.requirements import PARAMETERS, requirements_of
from providers.registry import load_registry
from providers.testkit.simulator import load_simulators


def test_every_adapter_is_tested_by_the_kit() -> None:
    """The kit skips adapters that do not load or have no simulator. No adapter of this repository may be skipped."""
    assert not load_registry().broken
    assert not load_simulators().broken
    assert set(load_simulators().simulators) == set(load_registry().adapters) >= {"openai", "gemini", "dashscope"}


def test_every_claimed_feature_and_parameter_is_tested() -> None:
    """Operators use models that an adapter does not know, with everything that the adapter claims."""
    simulators = load_simulators().simulators
    for name, adapter in load_registry().adapters.items():
        selection = Selection(subjects_of(adapter, simulators[name]), None)
        values = selection.parameters(frozenset({"request_case", "answer_case"}))
        asked: set[str] = set()
        for case in values["request_case"]:
            assert isinstance(case, RequestCase)
            needs = requirements_of(case.request)
            asked |= needs.features | needs.parameters
        claims = adapter.capabilities.features | (adapter.capabilities.parameters & PARAMETERS)
        assert not claims - asked - {"reasoning"}, name
        answered = {case.feature for case in values["answer_case"] if isinstance(case, AnswerCase)}
        assert not {"n", "logprobs", "tools", "reasoning"} & adapter.capabilities.features - answered, name
