"""Compile the options for folding, for resuming, and for the first-token timeout of a deployment."""

import pytest

from gateway.config.compile import Compiled
from gateway.config.problems import ConfigRejected
from tests.kit import config_cases

CONFIG = """
version: 1
assistants: {{a: {{resume: {resume}, routes: {{default: [{route}]}}}}}}
regions: {{default: {{territories: ["*"], boundary: ["*"]}}}}
deployments:
  one: {{provider: openai-compatible, model: m, endpoint: "https://one.example/v1", stores: any, processes: any, api_key: "${{K}}"{more}}}
  two: {{provider: openai-compatible, model: m, endpoint: "https://two.example/v1", stores: any, processes: any, api_key: "${{K}}"}}
location: {{unknown: default}}
"""


def compiled(more: str = "", resume: str = "true", route: str = "one, two") -> Compiled:
    return config_cases.compiled(CONFIG.format(more=more, resume=resume, route=route), {"K": "sk-k"})


@pytest.mark.parametrize(("word", "fold"), [("", None), (", fold: true", True), (", fold: false", False)])
def test_fold_is_decided_or_left_to_the_route(word: str, fold: bool | None) -> None:
    table = compiled(word).config
    assert table.deployments["one"].fold is fold
    assert table.deployments["two"].fold is None


def test_first_token_timeout_of_a_deployment() -> None:
    table = compiled(", first_token: 90s").config
    assert table.deployments["one"].first_token_s == 90
    assert table.deployments["two"].first_token_s is None


def test_resume_without_a_second_step_is_a_warning() -> None:
    assert compiled().config.assistants["a"].resume
    assert not compiled(resume="false").config.assistants["a"].resume
    assert not [warning for warning in compiled().warnings if "resume" in warning.path]
    (message,) = [str(warning) for warning in compiled(route="one").warnings if "resume" in warning.path]
    words = "no route of this assistant has a second step that could continue an answer; add one, or remove it"
    assert f"assistants.a.resume: {words}" in message


@pytest.mark.parametrize("more", [", fold: maybe", ", first_token: 0s", ", first_token: soon"])
def test_invalid_resume_option_is_an_error(more: str) -> None:
    with pytest.raises(ConfigRejected):
        compiled(more)
