"""A deployment that has ended in a running gateway: a barrier, a weighted step, a judge, a crisis, other uses, a shadow."""

from datetime import date
from typing import Any

import httpx
import pytest

from gateway.model.record import Record
from gateway.telemetry.recent_requests import describe_request
from providers.catalogue.prices import Offers, Retirement
from tests.kit.barriers import FREE, KEY, PICTURE, Providers, barrier, broken_off, failing, served_by
from tests.kit.chat_http import CHAT
from tests.kit.crisis_gateway import SAD, US, CrisisWorld
from tests.kit.crisis_gateway import served as crisis_gateway
from tests.kit.input_gateway import CONFIG, EMBEDDINGS, MODERATIONS, InputGateway, vectors_of
from tests.kit.judged_chats import World, ask
from tests.kit.judged_chats import gateway as judged_gateway

HELLO = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}]}
ROUTES = {"assistants": {"assistant": {"choices": {"o": {"title": {"en": "O"}, "deployments": ["other"]}}}}}


@pytest.fixture(autouse=True)
def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the vendors have ended the API version of the path `/gone`."""
    row = Retirement(("*",), date(2026, 1, 1), date(2026, 1, 1), "https://x.example", quote="gone", paths=("/gone",))
    monkeypatch.setattr(Offers, "retirements_at", lambda _, __, ___="", path="": (row,) if path == "/gone" else ())


def ended(*names: str) -> dict[str, Any]:
    hosts = {"model": "chat"}
    return {"deployments": {name: {"endpoint": f"https://{hosts.get(name, name)}.example/gone"} for name in names}}


def routed(*steps: Any) -> dict[str, Any]:
    return {"assistants": {"assistant": {"routes": {"default": [*steps]}}}}


def asked(gateway: InputGateway, body: dict[str, Any] | None = None, **headers: str) -> str:
    """Return the deployment that answers, or the code of the error."""
    answer = gateway.post(CHAT, body or HELLO, {**KEY, **headers})
    return answer.headers["x-gateway-deployment"] if answer.status_code == 200 else answer.json()["error"]["code"]


@pytest.mark.parametrize("body", [HELLO, {**HELLO, **PICTURE}])
@pytest.mark.parametrize("before", [("house",), ("house", "small")])
def test_ended_private_model_opens_no_barrier(before: Any, body: dict[str, Any]) -> None:
    """Neither alone, nor with the failure of the other private model, nor for what it could not have done."""
    providers = Providers({"small": failing(500)})
    gateway = served_by(providers, ended("house"), FREE, barrier("failure", "capability", before=before))
    assert asked(gateway, body) in ("no_healthy_deployment", "provider_error", "unsupported_capability")
    assert "cloud" not in providers.names


def test_ended_model_after_the_barrier_is_passed_over() -> None:
    providers = Providers({"house": failing(500)})
    gateway = served_by(providers, ended("cloud"), FREE, barrier("failure", behind=("cloud", "other")))
    assert (asked(gateway), providers.names) == ("other", ["house", "other"])


def test_user_is_not_asked_to_consent_to_a_recipient_that_has_ended() -> None:
    providers = Providers()
    rule = {"deployments": {"cloud": {"consent": {"on_missing": "refuse"}}}}
    assert asked(served_by(providers, ended("cloud"), rule, routed("cloud", "house"))) == "house"


def test_users_of_an_ended_member_have_the_other_one() -> None:
    gateway = served_by(Providers(), ended("small"), routed({"house": 1, "small": 9}))
    assert {asked(gateway, {**HELLO, "user": f"user {number}"}) for number in range(9)} == {"house"}


def test_choice_that_has_ended_is_not_taken_for_its_health() -> None:
    gateway = served_by(Providers(), ended("other"), routed("house", "other"), ROUTES)
    answer = gateway.post(CHAT, HELLO, {**KEY, "x-gateway-prefer": "o"})
    assert answer.headers["x-gateway-deployment"] == "house"
    assert answer.headers["x-gateway-preference"] == "not_used; reason=health"


def test_broken_answer_is_not_continued_by_an_ended_step_which_is_named() -> None:
    providers = Providers({"house": lambda _: broken_off("One ")})
    resumed = {"assistants": {"assistant": {"resume": True}}}
    gateway = served_by(providers, ended("small"), routed("house", "small", "other"), resumed)
    records: list[Record] = []
    gateway.gateway._chat._observe = records.append
    assert '"resumed":{"from":"house","by":"other"}' in gateway.post(CHAT, {**HELLO, "stream": True}, KEY).text
    assert providers.names == ["house", "other"]
    assert records[0].passed_over == {"small": "the API version of its endpoint ended on 2026-01-01"}
    assert describe_request(records[0], 0.0)["passed_over_codes"] == {"small": "ended"}


@pytest.mark.parametrize(
    ("judges", "on_failure", "status", "judged"),
    [(["judge", "spare"], "closed", 200, 2), (["judge"], "closed", 503, 0), (["judge"], "open", 200, 0)],
)
def test_ended_judge_is_not_asked(judges: list[str], on_failure: str, status: int, judged: int) -> None:
    world = World()
    rule = {"regions": {"default": {"moderation": {"input": judges, "output": judges, "on_failure": on_failure}}}}
    gateway = judged_gateway(world, rule, ended("judge"))
    assert ask(gateway, "chat").status_code == status
    assert len(world.judged) == judged
    assert not [request for request in gateway.requests if request.url.host == "judge.example"]


def test_crisis_is_answered_although_the_first_judge_and_the_model_have_ended() -> None:
    world = CrisisWorld()
    gateway = crisis_gateway(world, ended("judge", "model"), judges=["judge", "spare"])
    answer = ask(gateway, "chat", SAD)
    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, US)
    assert world.asked_judges == ["spare.example"]


def test_embeddings_go_to_the_next_deployment_and_moderations_to_none() -> None:
    config = CONFIG.merge(ended("house", "judge"))
    gateway = InputGateway(lambda request: httpx.Response(200, json=vectors_of(request)), config)
    answer = gateway.post(EMBEDDINGS, {"model": "assistant", "input": ["Hello"]})
    assert answer.headers["x-gateway-deployment"] == "spare"
    assert gateway.post(MODERATIONS, {"model": "assistant", "input": "Hello"}).json()["error"]["code"] == (
        "no_healthy_deployment"
    )
    assert [request.url.host for request in gateway.requests] == ["spare.example"]
