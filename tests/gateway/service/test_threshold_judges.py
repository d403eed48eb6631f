"""Decision models as judges: thresholds, refused questions, two judges, and `closed` and `open`, for chats and crises."""

import json
from typing import Any

import httpx
import pytest

from gateway.config.problems import ConfigRejected
from gateway.execution.judging import names_of
from gateway.model.record import Record
from gateway.telemetry.metrics import Metrics
from tests.kit.case_files import cases
from tests.kit.chat_http import error_of
from tests.kit.config_cases import compiled
from tests.kit.configs import Config, table_of
from tests.kit.input_gateway import InputGateway

CHAT, MODERATIONS = "/v1/chat/completions", "/v1/moderations"
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [model]}, moderations: {default: [first]}}}
regions:
  default:
    territories: ["*"]
    boundary: ["*"]
    moderation: {input: [first, second], on_failure: closed}
deployments:
  model: {provider: openai-compatible, model: c, endpoint: "https://model.example/v1", stores: any, processes: any}
  first: {provider: vllm, model: d, endpoint: "https://first.example/v1", stores: any, processes: any,
          verdicts: {violence: 0.6, self-harm/intent: 0.3, gambling: {at: 0.5, ask: "The text invites to gamble."}}}
  second: {provider: openai-compatible, model: d, endpoint: "https://second.example/v1", stores: any, processes: any,
           verdicts: {violence: 0.6}}
location: {unknown: default}
resilience: {retry_budget: "off"}
""")
OPEN = CONFIG.merge("regions: {default: {moderation: {on_failure: open}}}")
CRISIS = CONFIG.merge("""
regions:
  default:
    moderation: null
    crisis: {judges: [first], categories: [gambling], then: stop, on_failure: closed, text: {en: Please talk to somebody.}}
""")
REFUSED = None
Shares = list[float | None]


class Judges:
    """A model that answers, and judges by the host: the probabilities of their questions, None for a refused one."""

    def __init__(self, first: Shares | httpx.Response, second: Shares | httpx.Response = httpx.Response(500)) -> None:  # noqa: B008
        self.asked: list[tuple[str, Any]] = []
        self._verdicts = {"first": first, "second": second}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name, body = request.url.host.partition(".")[0], json.loads(request.content)
        self.asked.append((name, body))
        if name == "model":
            message = {"role": "assistant", "content": "Hello."}
            return httpx.Response(200, json={"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        shares = self._verdicts[name]
        if isinstance(shares, httpx.Response):
            return httpx.Response(shares.status_code, content=shares.content, headers=shares.headers)
        if name == "first":
            answers = {f"{at}": {"noul": share} for at, share in enumerate(shares, 1) if share is not None}
            return httpx.Response(200, json={"answers": answers, "prompt_feedback": {"block_reason": "SAFETY"}})
        listed = [{"type": "refusal"} if it is None else {"type": "predicate", "probability": it} for it in shares]
        return httpx.Response(200, json={"answers": listed})

    @property
    def names(self) -> list[str]:
        """The hosts that were asked, in order."""
        return [name for name, _ in self.asked]


BLOCKED = httpx.Response(400, json={"error": {"code": "content_filter", "message": "blocked", "type": "x"}})


def is_counted(record: Record, name: str) -> bool:
    metrics = Metrics()
    metrics.observe(record)
    return "default" in json.dumps(json.loads(metrics.snapshot())[name])


def ask(world: Judges, config: Config = CONFIG) -> httpx.Response:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Some text."}]}
    return InputGateway(world, config).post(CHAT, body)


def test_one_call_has_the_text_alone_and_a_statement_for_each_category() -> None:
    world = Judges([0.1, 0.1, 0.1])
    assert ask(world).status_code == 200
    (name, body), *_ = world.asked
    assert (name, body["state"]) == ("first", "Some text.")
    statements = [it["instructions"] for it in body["questions"].values()]
    assert (len(statements), statements[2]) == (3, "The text invites to gamble.")
    assert all("Some text." not in statement for statement in statements)
    assert statements[0] == "The text depicts, threatens or glorifies death, violence or physical injury."


@cases("shares", "categories")
def test_a_category_applies_from_its_threshold_on(shares: Shares, categories: list[str] | None) -> None:
    response = ask(Judges(shares))
    assert response.status_code == (200 if categories is None else 400)
    if categories is not None:
        assert response.json()["error"]["moderation"]["categories"] == categories


def test_the_endpoint_shows_probabilities_and_has_no_verdict_if_a_question_was_refused() -> None:
    asked = {"model": "assistant", "input": "Some text."}
    (result,) = InputGateway(Judges([0.7, 0.2, 0.1]), CONFIG).post(MODERATIONS, asked).json()["results"]
    assert (result["flagged"], result["category_scores"]["violence"]) == (True, 0.7)
    assert (result["categories"]["violence"], result["categories"]["gambling"]) == (True, False)
    assert (result["categories"]["hate"], result["category_scores"]["hate"]) == (False, 0)
    for world in (Judges([0.7, REFUSED, 0.1]), Judges(BLOCKED)):
        gateway = InputGateway(world, CONFIG)
        for _ in range(2):  # no user's text can bench a judge
            assert error_of(gateway.post(MODERATIONS, asked))[:2] == (400, "unsupported_capability")
        assert world.names == ["first", "first"]


FIRST_AND_SECOND = ["first", "second"]


@pytest.mark.parametrize(
    ("first", "second", "asked", "outcome"),
    [
        # One question refused next to one that is found: what is found counts.
        ([0.9, REFUSED, 0.1], [0.1], ["first"], "flagged"),
        # One refused and nothing found: the next judge decides.
        ([0.1, REFUSED, 0.1], [0.1], FIRST_AND_SECOND, "passed"),
        ([0.1, REFUSED, 0.1], [0.9], FIRST_AND_SECOND, "flagged"),
        (BLOCKED, [0.1], FIRST_AND_SECOND, "passed"),
        # All refuse.
        ([REFUSED, REFUSED, REFUSED], [REFUSED], FIRST_AND_SECOND, "refused"),
        (BLOCKED, BLOCKED, FIRST_AND_SECOND, "refused"),
        ([0.1, REFUSED, 0.1], BLOCKED, FIRST_AND_SECOND, "refused"),
        # One refuses and one fails for another reason.
        ([0.1, REFUSED, 0.1], httpx.Response(500), FIRST_AND_SECOND, "unjudged"),
        (httpx.Response(200, json={"answers": {}}), [REFUSED], FIRST_AND_SECOND, "unjudged"),
    ],
)
@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_refusals_are_neither_harmless_nor_flagged(
    first: Any, second: Any, asked: list[str], outcome: str, on_failure: str, records: list[Record]
) -> None:
    world = Judges(first, second)
    response = ask(world, OPEN if on_failure == "open" else CONFIG)
    assert list(dict.fromkeys(name for name in world.names if name != "model")) == asked
    if outcome == "flagged":
        assert error_of(response)[:2] == (400, "content_filter")
    elif outcome == "passed" or on_failure == "open":
        assert response.status_code == 200
    else:
        assert response.status_code == 503
        assert "model" not in world.names
    has_gone_on = on_failure == "open" and outcome in ("refused", "unjudged")
    assert is_counted(records[0], "gateway_unjudged_total") is has_gone_on
    assert is_counted(records[0], "gateway_verdicts_refused_total") is (has_gone_on and outcome == "refused")


@pytest.mark.parametrize(
    ("shares", "status", "crisis"),
    [
        ([0.9, 0.9, 0.1], 200, "passed"),
        ([0.1, 0.1, 0.5], 200, "stop"),
        # Only the categories of a crisis have to be decided.
        ([REFUSED, 0.1, 0.1], 200, "passed"),
        ([0.9, 0.9, REFUSED], 503, "failed"),
        ([REFUSED, REFUSED, 0.5], 200, "stop"),
    ],
)
def test_a_crisis_is_found_by_an_own_category(shares: Shares, status: int, crisis: str, records: list[Record]) -> None:
    response = ask(Judges(shares), CRISIS)
    assert response.status_code == status
    (fields,) = [note.log_fields() for note in records[0].notes]
    assert fields["crisis"] == crisis


def test_a_crisis_that_every_judge_refused_goes_on_and_is_counted(records: list[Record]) -> None:
    config = CRISIS.merge("regions: {default: {crisis: {on_failure: open}}}")
    assert ask(Judges(BLOCKED), config).status_code == 200
    assert is_counted(records[0], "gateway_verdicts_refused_total")


def test_other_thresholds_and_statements_forget_what_passed() -> None:
    changes = ["{violence: 0.7}", '{violence: {at: 0.6, ask: "It is violent."}}']
    configs = [CONFIG, *(CONFIG.merge(f"deployments: {{second: {{verdicts: {it}}}}}") for it in changes)]
    assert len({names_of([table_of(config).deployments["second"]]) for config in configs}) == 3


CLAIMS = """
regions: {default: {claims: {forbidden: [health-licence]}, profile: {locale: en}, moderation: {output: [first]}}}
"""


def test_a_judge_of_claims_has_the_category() -> None:
    own = "deployments: {first: {verdicts: {health-licence: {at: 0.5, ask: The writer holds a licence.}}}}"
    assert any(
        "no category for these claims" in it.message for it in compiled(json.dumps(CONFIG.merge(CLAIMS).data)).warnings
    )
    assert not any("these claims" in it.message for it in compiled(json.dumps(CONFIG.merge(CLAIMS, own).data)).warnings)


@cases("patch", "message")
def test_a_wrong_key_is_refused(patch: str, message: str) -> None:
    with pytest.raises(ConfigRejected, match=message):
        table_of(CONFIG.merge(patch))
