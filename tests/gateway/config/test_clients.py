"""Warnings about clients and about web pages that may call. Errors are in `test_broken_configs`."""

from dataclasses import replace

import pytest

from gateway.config.problems import dotted
from gateway.model.config_version import ClientLimitRule
from gateway.policy.location import SIGNALS
from tests.kit.config_cases import compiled, problems_of, sections
from tests.kit.location_signals import NAMES, registered, trial

KEY = "keys: ['sha256:" + "ab" * 32 + "']"


def messages_of(**changes: str) -> list[str]:
    return [dotted(problem.path) for problem in problems_of(sections(**changes))]


@pytest.mark.parametrize("name", NAMES)
def test_right_of_a_signal_that_is_not_listed_has_no_effect(name: str) -> None:
    clients = f"clients: {{a: {{{KEY}, may_assert: [territory]}}}}"
    expected = [] if SIGNALS[name].client_right == "territory" else ["clients.a.may_assert"]
    found = messages_of(clients=clients, location=f"location: {{signals: [{name}]}}")
    assert [path for path in found if path.startswith("clients")] == expected


@pytest.mark.parametrize("listed", ["claim", "api_key"])
def test_right_of_a_trial_signal_has_an_effect_if_the_signal_is_listed(listed: str) -> None:
    clients = f"clients: {{a: {{{KEY}, may_assert: [user]}}}}"
    with registered(replace(trial("claim"), client_right="user")):
        found = messages_of(clients=clients, location=f"location: {{signals: [{listed}]}}")
    assert found == ([] if listed == "claim" else ["clients.a.may_assert"])


@pytest.mark.parametrize(
    ("limits", "meant"),
    [
        ("rpm: 60", ClientLimitRule(60, None)),
        ("concurrent: 3", ClientLimitRule(None, 3)),
        ("body_bytes: 1048576", ClientLimitRule(body_bytes=1_048_576)),
        ("rpm: 60, concurrent: 3", ClientLimitRule(60, 3)),
    ],
)
def test_one_limit_is_enough(limits: str, meant: ClientLimitRule) -> None:
    table = compiled(sections(clients=f"clients: {{a: {{{KEY}, limits: {{{limits}}}}}}}")).config
    assert table.clients["ab" * 32].limits == meant


def test_all_origins_cause_no_warning_in_a_demo() -> None:
    demo = """
version: 1
demo: true
cors: {origins: ['*']}
assistants: {a: {routes: {us: [x]}}}
regions: {us: {territories: [US], boundary: [US]}}
deployments:
  x: {provider: openai, model: gpt-6-luna, endpoint: simulator, simulates: us}
"""
    assert compiled(demo, {}).warnings == ()
