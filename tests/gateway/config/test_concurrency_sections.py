"""Compile concurrency limits, and report their errors."""

import pytest

from gateway.model.deployment import Concurrency
from tests.kit.config_cases import compiled, more, sections

X = "x: {provider: openai-compatible, model: m, endpoint: 'https://llm.example', stores: DE, processes: DE"


def with_x(keys: str) -> str:
    return sections(deployments=more("deployments", f"{X}, {keys}}}"))


@pytest.mark.parametrize(
    ("written", "meant"), [("50", Concurrency(50)), ("{limit: 50, queue: 0, wait: 500ms}", Concurrency(50, 0, 0.5))]
)
def test_concurrency_limit_is_compiled(written: str, meant: Concurrency) -> None:
    assert compiled(with_x(f"concurrency: {written}")).config.deployments["x"].concurrency == meant


def test_deployment_without_concurrency_has_no_limit() -> None:
    table = compiled(sections()).config
    assert {section.concurrency for section in table.deployments.values()} == {None}
