"""`claims` of a region: the profile instructs the model, and a judge's category flags an answer, but no user."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.config.problems import Problem
from gateway.execution.judging import policy_of
from gateway.model.record import Record
from tests.kit.config_cases import compiled
from tests.kit.crisis_gateway import CRISIS
from tests.kit.judged_chats import CONFIG, EACH_CHAT, ENDS, GOOD, World, ask, ending_of, gateway, text_of

CLAIM = "As a licensed therapist, I can tell you."
ANSWER = f"{GOOD}{CLAIM} {GOOD}"
RULE = {"regions": {"default": {"claims": {"forbidden": ["health-licence"]}}}}
PROFILE = {"regions": {"default": {"profile": {"locale": "en"}}}}


@dataclass
class Claiming(World):
    """A world whose judge names a claim without calling it harmful, as a webhook of an operator may."""

    other: str = ""

    def _verdict(self, request: httpx.Request, body: Any) -> httpx.Response:
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        self.judged += texts
        found = [
            {"health-licence": CLAIM in text, "violence": bool(self.other) and self.other in text} for text in texts
        ]
        return httpx.Response(200, json={"results": [{"flagged": False, "categories": it} for it in found]})


@EACH_CHAT
def test_answer_with_a_claim_ends_before_it(dialect: str, stream: bool, records: list[Record]) -> None:
    response = ask(gateway(Claiming([ANSWER]), RULE), dialect, stream=stream)
    assert response.status_code == 200, response.text
    assert "licensed" not in response.text
    assert GOOD.strip() in text_of(response, stream=stream)
    end, member = ending_of(dialect, response, stream=stream)
    assert (end, member["moderation"]) == (ENDS[dialect], {"direction": "output", "categories": ["health-licence"]})
    assert [it.moderation.output for it in records if it.moderation is not None] == ["flagged"]


def test_user_may_speak_of_a_licence() -> None:
    world = Claiming()
    assert ask(gateway(world, RULE), "chat", CLAIM).status_code == 200
    assert CLAIM in world.judged


@pytest.mark.parametrize(("asked", "status"), [("Hello.", 200), ("Hello, fight.", 400)])
def test_other_contradiction_of_a_verdict_is_against_the_text(asked: str, status: int) -> None:
    response = ask(gateway(Claiming(other="fight"), RULE), "chat", asked)
    assert response.status_code == status
    if status == 400:
        assert response.json()["error"]["moderation"]["categories"] == ["violence"]


def test_crisis_is_judged_as_without_the_rule() -> None:
    """The categories of a crisis count in what a user writes, and the claim does not."""
    crisis = {**CRISIS, "categories": ["violence"], "text": {"en": "Call."}}
    served = gateway(Claiming(other="fight"), RULE, {"regions": {"default": {"crisis": crisis}}})
    found, passed = (ask(served, "chat", text) for text in ("Hello, fight.", CLAIM))
    assert found.json()["choices"][0]["message"]["content"] == "Call."
    assert passed.json()["choices"][0]["message"]["content"] == GOOD


def test_label_stands_before_an_answer_that_ends_at_a_claim() -> None:
    label = {"regions": {"default": {"labels": [{"name": "own", "text": {"en": "By AI."}, "show": "always"}]}}}
    shown = text_of(ask(gateway(Claiming([ANSWER]), RULE, label), "chat"), stream=False)
    assert shown.startswith(f"By AI.\n\n{GOOD}".rstrip())
    assert "licensed" not in shown


def test_without_the_rule_such_a_verdict_is_none() -> None:
    assert ask(gateway(Claiming([ANSWER])), "chat").status_code == 503


def test_text_that_passed_without_the_rule_has_not_passed_with_it() -> None:
    plain, ruled = (compiled(CONFIG.merge(*it).text).config.moderation["default"] for it in ((), (RULE,)))
    assert policy_of(plain, plain.output) != policy_of(ruled, ruled.output)


@pytest.mark.parametrize("with_rule", [False, True])
def test_profile_instructs_the_model(with_rule: bool) -> None:
    world = World()
    response = ask(gateway(world, PROFILE, RULE if with_rule else {}), "chat")
    assert response.status_code == 200
    system = world.asked[0]["messages"][0]
    assert system["role"] == "system"
    assert ("hold a licence or certificate of a health profession" in system["content"]) is with_rule


def warnings(*patches: dict[str, Any]) -> list[Problem]:
    return [it for it in compiled(CONFIG.merge(*patches).text).warnings if "claims" in it.path]


def test_check_names_judges_that_cannot_find_a_claim() -> None:
    guard = {"deployments": {"judge": {"model": "Llama-Guard-3-8B"}}}
    assert [str(it.message) for it in warnings(RULE, PROFILE, guard)] == [
        "'judge' judges answers, and has no category for these claims"
    ]
    assert not warnings(RULE, PROFILE)
    assert not warnings(RULE)
