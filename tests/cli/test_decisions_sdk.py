"""The official OpenAI client asks the demo for decisions: each kind, a refusal, a region without one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import Running

openai = pytest.importorskip("openai", reason="make install-sdks installs the official clients")
pytestmark = pytest.mark.slow("imports an SDK")

STARS = [{"label": str(number), "description": f"{number} stars"} for number in range(1, 6)]
QUESTIONS: Any = [
    {"type": "predicate", "name": "angry", "instructions": "The text is angry."},
    {"type": "choice", "instructions": "What is it?", "choices": [{"value": True}, {"value": "true"}, {"value": "no"}]},
    {"type": "score", "name": "stars", "instructions": "How many stars?", "levels": STARS},
    {
        "type": "choice",
        "name": "secret",
        "instructions": "simulated-refusal",
        "choices": [{"value": "a"}, {"value": "b"}],
    },
]


@pytest.fixture
def client(untouched_demo: Running) -> Iterator[Any]:
    url = untouched_demo.wait_for(r"listens on (\S+)\.")[1]
    # It checks each answer against its types.
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.mark.parametrize("territory", ["JP", "CN"])
def test_each_kind_is_answered_in_the_types_of_the_client(client: Any, territory: str) -> None:
    # A vendor's map has no booleans, so it can't have both `true` and `"true"`.
    questions = [QUESTIONS[0], {**QUESTIONS[1], "choices": [{"value": True}, {"value": "no"}]}, *QUESTIONS[2:]]
    answer = client.decisions.create(
        model="assistant", input="simulated-p-0.37", questions=questions, extra_headers={"cf-ipcountry": territory}
    )
    angry, kind, stars, secret = answer.answers
    assert (angry.type, angry.name, angry.probability) == ("predicate", "angry", 0.37)
    assert (kind.type, kind.name, kind.choice in (True, "no")) == ("choice", None, True)
    assert [one.value for one in kind.probabilities] == [True, "no"]
    assert (stars.name, 0 <= stars.score <= 4, len(stars.probabilities)) == ("stars", True, 5)
    assert (secret.type, secret.name) == ("refusal", "secret")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize(("territory", "asked", "param"), [("DE", 1, "model"), ("JP", 4, "questions[1].choices")])
def test_region_without_decisions_and_options_that_no_model_has_are_errors_of_the_client(
    client: Any, territory: str, asked: int, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.decisions.create(
            model="assistant", input="one", questions=QUESTIONS[:asked], extra_headers={"cf-ipcountry": territory}
        )
    assert (refused.value.code, refused.value.param) == ("unsupported_capability", param)
