"""Compile concurrency limits, and report their errors."""

from __future__ import annotations

import pytest

from gateway.model.deployment import Concurrency
from tests.kit.config_cases import compiled, marked, more, rejected, sections

X = "x: {provider: openai-compatible, model: m, endpoint: 'https://llm.example', stores: DE, processes: DE"


def with_x(keys: str) -> str:
    return sections(deployments=more("deployments", f"{X}, {keys}}}"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("50", Concurrency(50)),
        ("{limit: 50, queue: 0, wait: 500ms}", Concurrency(50, 0, 0.5)),
    ],
)
def test_concurrency_limit_is_compiled(written: str, meant: Concurrency) -> None:
    assert compiled(with_x(f"concurrency: {written}")).config.deployments["x"].concurrency == meant


def test_deployment_without_concurrency_has_no_limit() -> None:
    table = compiled(sections()).config
    assert {section.concurrency for section in table.deployments.values()} == {None}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "concurrency: ▸many",
            "concurrency: must be a number of calls, or a mapping of its keys; write 50, or {limit: 50}",
        ),
        ("concurrency: ▸0", "concurrency: must be at least 1"),
        ("▸concurrency: {}", "concurrency: sets no limit; give it a `limit`"),
        ("▸concurrency: {queue: 5}", "concurrency: sets no limit; give it a `limit`"),
        (
            "concurrency: {▸adaptive: true}",
            "concurrency.adaptive: `adaptive` was removed with the adaptive limit; write `limit`, the number of calls "
            "that may run at the same time, and remove `adaptive`",
        ),
        (
            "concurrency: {limit: 5, ▸min: 2}",
            "concurrency.min: `min` was removed with the adaptive limit; write `limit`, the number of calls that may "
            "run at the same time, and remove `min`",
        ),
        ("concurrency: {limit: 5, wait: ▸2}", "concurrency.wait: a time needs a unit; write 2s, 2ms or 2m"),
        ("concurrency: {limit: 5, ▸que: 2}", "concurrency.que: unknown key 'que'; did you mean 'queue'?"),
    ],
)
def test_invalid_concurrency_is_an_error(written: str, message: str) -> None:
    text, places = marked(with_x(written))
    problem = next(problem for problem in rejected(text) if problem.severity == "error")
    assert str(problem) == f"gateway.yaml:{places[0][0]}:{places[0][1]}: deployments.x.{message}"
