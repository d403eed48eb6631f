"""One pass of `gateway check` shows the mistakes that stand next to a misspelt provider or site."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.compile import compile_config
from gateway.config.loading import parse_document
from gateway.config.problems import ConfigRejected, dotted
from providers.registry import load_registry
from tests.kit.configs import Config

_BASE = Config.parse("""
version: 1
cell: {territory: DE}
assistants: {helper: {routes: {de: [house, spare], us: [spare]}}}
regions:
  de: {territories: [DE], boundary: ["@EEA", CH, US]}
  us: {territories: [US], boundary: [US], transit: [DE]}
deployments:
  house: {provider: openai, model: gpt-6-luna, endpoint: eu, api_key: "${KEY}", attests: [zdr]}
  spare: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${KEY}"}
""")
_FIRST: dict[str, dict[str, Any]] = {"provider": {"provider": "opnai"}, "endpoint": {"endpoint": "euu"}}
_SECOND: dict[str, dict[str, Any]] = {
    "provider": {"provider": "opnai"},
    "endpoint": {"endpoint": "euu"},
    "attests[0]": {"attests": ["zdrr"]},
    "capabilities[0]": {"capabilities": ["txt"]},
    "available[0]": {"available": ["QQ"]},
    "api_key": {"api_key": "${KEY"},
    "headers.x-no": {"headers": {"x-no": "1"}},
    "passthrough[0]": {"passthrough": ["store"]},
    "enabld": {"enabld": True},
}


def errors(*mistakes: dict[str, Any]) -> list[str]:
    config = _BASE
    for mistake in mistakes:
        config = config.merge({"deployments": {"house": mistake}})
    with pytest.raises(ConfigRejected) as rejected:
        compile_config(parse_document(config.text.encode(), "gateway.yaml", {"KEY": "sk"}), registry=load_registry())
    return [dotted(problem.path) for problem in rejected.value.problems if problem.severity == "error"]


@pytest.mark.parametrize("first", _FIRST)
@pytest.mark.parametrize("second", _SECOND)
def test_mistake_next_to_a_misspelt_name_is_reported_in_the_same_pass(first: str, second: str) -> None:
    shown = errors(_FIRST[first], _SECOND[second])
    assert f"deployments.house.{first}" in shown
    assert f"deployments.house.{second}" in shown


@pytest.mark.parametrize("first", _FIRST)
def test_misspelt_name_is_reported_once(first: str) -> None:
    assert errors(_FIRST[first]) == [f"deployments.house.{first}"]
