"""A private tier and a barrier: which requests get to a deployment after it, and with which content."""

import json
from typing import Any

import httpx
import pytest

from gateway.api.admin_deployments import deployments_document
from gateway.model.decision import Step
from gateway.model.record import Record
from gateway.model.status import Status
from gateway.service.explain import PlainRequest, explain_text, reports_from
from gateway.state.receipts import receipt_of
from gateway.telemetry.exposition import render
from gateway.telemetry.request_log import JsonLines
from gateway.usage.refusals import CallRefused
from tests.gateway.admin_calls import LOADED
from tests.kit import barriers
from tests.kit.barriers import FREE, KEY, Providers, barrier, consent_of, failing, served_by
from tests.kit.case_files import cases
from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import APIS, EACH_CHAT, ask


@EACH_CHAT
def test_private_model_answers(dialect: str, stream: bool) -> None:
    providers = Providers()
    response = ask(served_by(providers), dialect, stream=stream, headers=KEY)
    assert (response.status_code, {*providers.names}) == (200, {"house"})
    assert "x-gateway-hand-off" not in response.headers


@EACH_CHAT
def test_user_is_asked_and_agrees(dialect: str, stream: bool, records: list[Record]) -> None:
    """The token lets the same request begin after the barrier."""
    providers = Providers({"house": failing(500)})
    served = served_by(providers)
    refused = ask(served, dialect, stream=stream, headers=KEY)
    assert (refused.status_code, {*providers.names}) == (403, {"house"})
    assert refused.headers["x-gateway-hand-off"] == "failure"
    assert int(refused.headers["x-gateway-attempts"]) == len(providers.names)
    consent = consent_of(refused)
    assert (consent["hand_off"], consent["recipient"], consent["would_send"][0]) == ("failure", "Cloud", "messages")
    providers.asked.clear()
    response = ask(served, dialect, stream=stream, headers={**KEY, "x-gateway-consent": consent["token"]})
    assert (response.status_code, {*providers.names}) == (200, {"cloud"}), response.text
    assert response.headers["x-gateway-hand-off"] == "failure"
    assert "cloud" in response.text
    for record, result in zip(records, ("consent_required", "ok"), strict=True):
        shown = {"cause": "failure", "share": "conversation"}
        assert json.loads(JsonLines().of([(record, 0.0)])[0])["hand_off"] == shown
        receipt: Any = receipt_of(record, 0.0, None)
        tried = ["cloud"] if result == "ok" else [attempt.deployment for attempt in record.attempts]
        assert (receipt["hand_off"], [one["deployment"] for one in receipt["tried"]]) == (shown, tried)
    assert hand_offs_of(served) == {"consent_required", "sent"}


def hand_offs_of(served: InputGateway) -> set[str]:
    """Return the results of the hand-offs that were counted."""

    lines = render(served.counts())[0].decode().splitlines()
    counted = [line for line in lines if line.startswith("gateway_hand_offs_total{")]
    return {line.partition('result="')[2].partition('"')[0] for line in counted}


def test_hand_off_that_a_budget_refuses_is_not_counted_as_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    served = served_by(Providers({"house": failing(500)}), FREE)
    client = served.gateway._executor.client
    send = client.send

    def with_a_budget(step: Step, *more: Any) -> Any:
        if step.deployment.name == "cloud":
            raise CallRefused("insufficient_quota", "the budget is spent")
        return send(step, *more)

    monkeypatch.setattr(client, "send", with_a_budget)
    response = ask(served, "chat", headers=KEY)
    assert response.json()["error"]["code"] == "insufficient_quota"
    assert hand_offs_of(served) == {"refused"}


@APIS
def test_declined_request_stays_private(dialect: str) -> None:
    providers = Providers({"house": failing(500)})
    response = ask(served_by(providers, FREE), dialect, headers=barriers.NEVER)
    assert (response.status_code, {*providers.names}) == (502, {"house"})
    assert "x-gateway-hand-off" not in response.headers
    response = ask(served_by(providers), "chat", headers={**KEY, "x-gateway-hand-off": "sometimes"})
    assert response.json()["error"]["code"] == "invalid_request"


REFUSING = {"deployments": {"house": {"unsupported": "refuse"}, "cloud": {"passthrough": ["frobnicate"]}}}
CAUSES: list[tuple[str, dict[str, Any], Any, dict[str, Any]]] = [
    ("capability", {}, None, barriers.PICTURE),
    ("capability", REFUSING, None, {"frobnicate": 1}),
    ("context", {}, failing(400, barriers.TOO_LONG), {}),
    ("failure", {}, failing(500), {}),
    ("failure", {}, failing(429), {}),
    ("failure", {}, httpx.Response(200, text="<html>"), {}),
]


@pytest.mark.parametrize(("cause", "patch", "answer", "body"), CAUSES)
def test_cause_opens_only_a_barrier_that_lists_it(cause: str, patch: Any, answer: Any, body: dict[str, Any]) -> None:
    for when in ("capability", "context", "failure"):
        providers = Providers({"house": answer} if answer is not None else {})
        served = served_by(providers, FREE, patch, barrier(when))
        response = ask(served, "chat", headers=KEY, **body)
        assert ("cloud" in providers.names, response.status_code == 200) == (when == cause, when == cause)
        assert response.headers.get("x-gateway-hand-off") == (cause if when == cause else None)
        if when == cause:
            assert int(response.headers["x-gateway-attempts"]) == len(providers.asked)
        else:
            assert "cloud" not in response.text


PER_REQUEST = {"consent": {"mode": "per_request", "on_missing": "skip", "recipient": "House"}}
CLOSED: list[tuple[str, dict[str, Any], Any, dict[str, Any]]] = [
    ("disabled", {"deployments": {"house": {"enabled": False}}}, None, {}),
    ("credential", {"deployments": {"house": {"api_key": "${HOUSE_KEY}"}}}, None, {}),
    ("consent", {"deployments": {"house": PER_REQUEST}}, None, {}),
    ("moves_data", {}, None, {"web_search_options": {}}),
    ("credentials", {}, failing(401), {}),
    ("model", {}, failing(404, {"error": {"message": "no such model", "code": "model_not_found"}}), {}),
    ("quota", {}, failing(429, {"error": {"message": "x", "code": "insufficient_quota"}}), {}),
    ("forbidden", {}, failing(403), {}),
    ("invalid", {}, failing(400), {}),
    ("filter", {}, failing(400, {"error": {"message": "x", "code": "content_filter"}}), {}),
]


@pytest.mark.parametrize(("patch", "answer", "body"), [it[1:] for it in CLOSED], ids=[it[0] for it in CLOSED])
@pytest.mark.parametrize("before", [("house",), ("house", "small"), ("small", "house")])
def test_decision_of_the_operator_opens_nothing(before: Any, patch: Any, answer: Any, body: dict[str, Any]) -> None:
    """Also if another private step fails for a cause that is listed, and while a cooldown begins."""
    providers = Providers({"small": failing(500), **({"house": answer} if answer is not None else {})})
    served = served_by(providers, FREE, barrier("capability", "context", "failure", before=before), patch)
    for _ in range(5):
        response = ask(served, "chat", headers=KEY, **body)
        assert response.status_code >= 400
        assert "cloud" not in providers.names


@pytest.mark.parametrize("lacking", [barriers.PICTURE, {"frobnicate": 1}], ids=["feature", "parameter"])
@pytest.mark.parametrize("case", ["disabled", "credential", "credentials", "model", "quota"])
def test_private_model_that_answers_nothing_opens_nothing_by_what_it_lacks(case: str, lacking: dict[str, Any]) -> None:
    """An image to a switched-off private model does not go to another provider."""
    patch, answer = next((patch, answer) for name, patch, answer, _ in CLOSED if name == case)
    providers = Providers({"house": answer} if answer is not None else {})
    served = served_by(providers, FREE, REFUSING, barrier("capability", "context", "failure"), patch)
    ask(served, "chat", headers=KEY)
    assert ask(served, "chat", headers=KEY, **lacking).status_code >= 400
    assert "cloud" not in providers.names


def test_steps_after_the_barrier_are_asked_in_order() -> None:
    providers = Providers({"house": failing(500), "cloud": failing(500)})
    response = ask(served_by(providers, FREE, barrier("failure", behind=("cloud", "other"))), "chat", headers=KEY)
    assert response.json()["choices"][0]["message"]["content"] == "other"
    assert [*dict.fromkeys(providers.names)] == ["house", "cloud", "other"]


def test_on_missing_has_no_effect_after_a_barrier() -> None:
    skip: dict[str, Any] = {"deployments": {"cloud": {"consent": {"on_missing": "skip"}}}}
    providers = Providers({"house": failing(500)})
    response = ask(served_by(providers, skip, barrier("failure", behind=("cloud", "other"))), "chat", headers=KEY)
    assert (response.status_code, {*providers.names}) == (403, {"house"})


def test_standing_consent_replaces_the_question_and_opens_nothing() -> None:
    providers = Providers()
    served = served_by(providers, barriers.STANDING)
    assert ask(served, "chat", headers=barriers.GRANTED).status_code == 200
    assert providers.names == ["house"]
    providers.answers["house"] = failing(500)
    response = ask(served, "chat", headers=barriers.GRANTED)
    assert (response.status_code, response.headers["x-gateway-hand-off"]) == (200, "failure")


LONG: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Secret of the app"},
        {"role": "user", "content": "First secret"},
        {"role": "assistant", "content": "An answer"},
        {"role": "user", "content": "Last words", "name": "bob"},
    ],
    "tools": [{"type": "function", "function": {"name": "find", "description": "secret"}}],
    "user": "secret-user",
    "safety_identifier": "secret-id",
    "metadata": {"a": "secret"},
    "stop": ["secret"],
    "prediction": {"type": "content", "content": "secret"},
    "temperature": 0.5,
}


def test_last_turn_is_all_that_is_shared() -> None:
    pass_all: dict[str, Any] = {"deployments": {"cloud": {"identity": "pass", "passthrough": ["prediction"]}}}
    providers = Providers({"house": failing(500)})
    served = served_by(providers, pass_all, barrier("failure", share="last_turn"))
    refused = ask(served, "chat", headers=KEY, **LONG)
    assert consent_of(refused)["would_send"] == ["messages"]
    response = ask(served, "chat", headers={**KEY, "x-gateway-consent": consent_of(refused)["token"]}, **LONG)
    assert response.status_code == 200
    (sent,) = (body for name, body in providers.asked if name == "cloud")
    assert sent["messages"] == [{"role": "user", "content": "Last words"}]
    assert sent["temperature"] == 0.5
    assert "secret" not in json.dumps(sent).lower()


@cases("body")
def test_last_turn_that_can_not_be_shared_stays(body: dict[str, Any]) -> None:
    providers = Providers({"house": failing(500)})
    patch = {"deployments": {"house": {"capabilities": ["tools", "json_object"]}}}
    served = served_by(providers, FREE, patch, barrier("failure", share="last_turn"))
    response = ask(served, "chat", headers=KEY, **body)
    assert (response.status_code, {*providers.names}) == (502, {"house"})


TWO: dict[str, Any] = {
    "assistants": {
        "second": {"routes": {"default": ["house", {"hand_off": {"when": ["failure"]}}, "cloud"]}},
        "plain": {"routes": {"default": ["cloud"]}},
    }
}


def token_of(served: InputGateway, providers: Providers, **body: Any) -> dict[str, str]:
    """Return the headers of a user who has agreed to a hand-off of this request."""
    providers.answers["house"] = failing(500)
    consent = consent_of(ask(served, "chat", headers=KEY, **body))
    del providers.answers["house"]
    providers.asked.clear()
    return {**KEY, "x-gateway-consent": consent["token"]}


def test_token_is_for_one_content_and_one_assistant() -> None:
    providers = Providers()
    served = served_by(providers, TWO)
    agreed = token_of(served, providers)
    for body in ({"model": "second"}, {"messages": [{"role": "user", "content": "Other"}]}, {"user": "x"}):
        assert ask(served, "chat", headers=agreed, **body).status_code == 200
    assert {*providers.names} == {"house"}
    assert ask(served, "chat", headers=agreed, model="plain").status_code == 403
    assert ask(served, "chat", headers={**agreed, "x-gateway-hand-off": "never"}).status_code == 200
    assert {*providers.names} == {"house"}
    assert ask(served, "chat", headers=agreed, temperature=0.1).status_code == 200
    assert providers.names[-1] == "cloud"


def test_token_of_a_deployment_without_a_barrier_opens_none() -> None:
    providers = Providers()
    served = served_by(providers, TWO)
    consent = consent_of(ask(served, "chat", headers=KEY, model="plain"))
    assert consent["token"].startswith("c1.")
    assert "hand_off" not in consent
    response = ask(served, "chat", headers={**KEY, "x-gateway-consent": consent["token"]})
    assert (response.status_code, {*providers.names}) == (200, {"house"})


def test_token_of_another_share_or_cause_opens_nothing() -> None:
    providers = Providers()
    agreed = token_of(served_by(providers, barrier("failure", "context")), providers)
    for patch in (barrier("failure", share="last_turn"), barrier("capability", "context")):
        ask(served_by(providers, patch), "chat", headers=agreed)
        assert {*providers.names} == {"house"}
    ask(served_by(providers, barrier("failure", "asked")), "chat", headers=agreed)
    assert providers.names[-1] == "cloud"


def choosing(*deployments: str) -> dict[str, Any]:
    mine = {"deployments": [*deployments], "title": {"en": "Mine"}}
    return {"assistants": {"assistant": {"choices": {"mine": mine}}}}


@cases("deployments", "fails", "preference", "by")
def test_preference_crosses_no_barrier(
    deployments: tuple[str, ...], fails: bool, preference: str, by: str, records: list[Record]
) -> None:
    """It orders the steps on each side."""
    providers = Providers({"house": failing(500)} if fails else {})
    served = served_by(providers, FREE, barrier("failure", behind=("cloud", "other")), choosing(*deployments))
    response = ask(served, "chat", headers={**KEY, "x-gateway-prefer": "mine"})
    assert (response.headers["x-gateway-deployment"], response.headers["x-gateway-preference"]) == (by, preference)
    assert providers.names == (["house", by] if fails else ["house"])


CANARY: dict[str, Any] = barrier("capability", "failure", before=({"house": 1, "small": 1},))


@pytest.mark.parametrize(("body", "counts"), [({}, True), (barriers.PICTURE, False)])
def test_hand_off_counts_for_a_variant_only_after_its_failure(
    body: dict[str, Any], counts: bool, records: list[Record]
) -> None:
    providers = Providers({"house": failing(500), "small": failing(500)})
    ask(served_by(providers, FREE, CANARY), "chat", headers=KEY, user="u", **body)
    ask(served_by(providers, CANARY), "chat", headers=KEY, user="u", **body)
    assert [record.decided.variant is not None for record in records] == [counts, False]
    assert len({*providers.names} - {"cloud"}) == (1 if counts else 0)  # only the member that this user has


def test_weighted_step_is_the_member_that_this_user_has() -> None:
    """The other member is disabled, which keeps the barrier closed for its own users only."""
    off: dict[str, Any] = {"deployments": {"small": {"enabled": False}}}
    providers = Providers({"house": failing(500)})
    served = served_by(providers, FREE, CANARY, off)
    assert ask(served, "chat", headers=KEY, user="u").status_code == 200
    providers = Providers()
    served = served_by(providers, FREE, barrier("failure", before=({"house": 1, "small": 0},)), off)
    assert ask(served, "chat", headers=KEY).status_code == 200
    assert providers.names == ["house"]


@pytest.mark.parametrize("share", ["conversation", "last_turn"])
def test_last_turn_has_no_key_of_the_session_that_an_agent_names(share: str) -> None:
    """Neither is it asked for in the question to the user."""
    cloud = {"provider": "openai", "model": "gpt-6-luna", "endpoint": "us", "api_key": "k"}
    unstated = dict.fromkeys(("stores", "processes", "capabilities"))
    asking = barrier("failure", share=share), {"deployments": {"cloud": {**cloud, **unstated}}}
    agent = {**KEY, "x-claude-code-session-id": "s-1"}
    providers = Providers({"house": failing(500)})
    served = served_by(providers, *asking)
    question = consent_of(ask(served, "chat", headers=agent))
    answer = ask(served, "chat", headers={**agent, "x-gateway-consent": question["token"]})
    assert answer.status_code == 200, answer.text
    is_linked = share == "conversation"
    assert ("prompt_cache_key" in providers.asked[-1][1], "prompt_cache_key" in str(question)) == (is_linked, is_linked)


def test_explain_shows_the_barrier() -> None:
    served = served_by(Providers(), FREE)
    explained = served.get("/v1/explain?assistant=assistant", KEY).json()
    assert explained["hand_off"] == {"cause": None, "share": "conversation"}
    assert [step["deployment"] for step in explained["outcome"]["plan"]] == ["house"]
    assert {it["deployment"]: it.get("after_barrier") for it in explained["considered"]} == {
        "house": None,
        "cloud": True,
    }
    config = served.gateway.config
    request = PlainRequest(config, None, reports_from("DE"), config.assistants["assistant"], 0.0)
    assert "hand_off (capability, context, failure; conversation), closed" in explain_text(request)
    plain = served_by(Providers(), {"assistants": {"assistant": {"routes": {"default": ["house"]}}}})
    assert "hand_off" not in plain.get("/v1/explain?assistant=assistant", KEY).json()


def test_explain_shows_the_cause_of_a_failing_private_model() -> None:
    providers = Providers({"house": failing(500)})
    served = served_by(providers, FREE, {"resilience": {"breaker": {"failures": 1}}})
    ask(served, "chat", headers=KEY)
    ask(served, "chat", headers=KEY, user="another")
    providers.asked.clear()
    response = ask(served, "chat", headers=KEY)
    assert (providers.names, response.headers["x-gateway-hand-off"]) == (["cloud"], "failure")
    explained = served.get("/v1/explain?assistant=assistant", KEY).json()
    assert explained["hand_off"]["cause"] in ("failure", None)
    declined = served.get("/v1/explain?assistant=assistant", barriers.NEVER).json()
    assert (declined["hand_off"]["cause"], [*declined["outcome"]]) == (None, ["refusal"])


def test_settings_and_disclosure_have_the_models_after_the_barrier() -> None:
    served = served_by(Providers(), barrier("failure", behind=("cloud", "other")), choosing("cloud"))
    capabilities = served.get("/v1/capabilities?assistant=assistant", KEY).json()
    assert "vision" in capabilities["supported"]
    assert "vision" not in capabilities["by_all"]
    assert [(it["available"], it["recipient"]) for it in capabilities["choices"]] == [(True, "Cloud")]
    assert [it["recipient"] for it in capabilities["consent"]] == ["Cloud"]
    disclosed = served.get("/v1/disclosure?assistant=assistant", KEY).json()
    assert [it["deployment"] for it in disclosed["data"]] == ["house", "cloud", "other"]


def test_private_result_stands_where_nothing_was_sent_after_the_barrier() -> None:
    """The deployments after it are failing, too."""
    rule = {"resilience": {"breaker": {"failures": 1}}}
    providers = Providers({"house": failing(500), "cloud": failing(500)})
    served = served_by(providers, FREE, barrier("failure"), rule)
    for user in ("a", "b"):
        ask(served, "chat", headers=KEY, user=user)
    providers.asked.clear()
    response = ask(served, "chat", headers=KEY)
    assert (response.status_code, providers.names) == (503, [])
    assert "x-gateway-hand-off" not in response.headers


def test_changed_configuration_decides_anew() -> None:
    """A version without the cause becomes active while the private model is asked."""
    served = served_by(Providers(), FREE)
    closed = served_by(Providers(), FREE, barrier("capability")).gateway.config

    def answer(request: httpx.Request) -> httpx.Response:
        served.gateway.activate(closed)
        return failing(500)

    served._provider = answer
    response = ask(served, "chat", headers=KEY)
    assert (response.status_code, {request.url.host for request in served.requests}) == (502, {"house.example"})


@pytest.mark.parametrize(("tries", "sent_to"), [(1, ["house", "cloud"]), (2, ["house", "house"])])
def test_barrier_that_the_former_version_had_not_opened_stays_closed(tries: int, sent_to: list[str]) -> None:
    """The version that becomes active while the private model is asked opens the barrier for the same causes.

    With a second try, the former version had not decided whether it opens.
    """
    rules = FREE, {"resilience": {"attempts": {"per_deployment": tries}}}
    served = served_by(Providers(), *rules)
    later = served_by(Providers(), *rules, {"resilience": {"idle": "31s"}}).gateway.config

    def answer(request: httpx.Request) -> httpx.Response:
        served.gateway.activate(later)
        return failing(500) if request.url.host == "house.example" else barriers.whole("cloud")

    served._provider = answer
    ask(served, "chat", headers=KEY)
    assert [request.url.host.partition(".")[0] for request in served.requests] == sent_to


def test_known_context_counts_before_a_server_shortens_the_prompt() -> None:
    """About 150,000 tokens, for a model with a context of 131,072."""
    qwen = {"provider": "dashscope", "model": "deepseek-v3", "endpoint": "cn-beijing", "api_key": "${CONSENT_KEY}"}
    long: dict[str, Any] = {"messages": [{"role": "user", "content": "word " * 120_000}]}
    for when, asked in (("context", "cloud"), ("failure", "dashscope")):
        providers = Providers()
        served = served_by(providers, FREE, {"deployments": {"qwen": qwen}}, barrier(when, before=("qwen",)))
        response = ask(served, "chat", headers=KEY, **long)
        assert providers.names[0] == asked
        assert (response.headers.get("x-gateway-hand-off") == "context") == (asked == "cloud")
        providers.asked.clear()
        ask(served, "chat", headers=barriers.NEVER, **long)
        assert {*providers.names} == {"dashscope"}


def test_console_shows_the_share_that_stayed_private() -> None:
    providers = Providers()
    served = served_by(providers, barrier("failure"))
    for _ in range(3):
        ask(served, "chat", headers=KEY)
    providers.answers["house"] = failing(500)
    ask(served, "chat", headers=KEY)

    status = Status(served.gateway.config, LOADED, None, {}, False, (), at_s=0.0)
    shown = deployments_document(status, [served.counts()])["barriers"]
    counted = {"requests": 4, "sent": 0, "consent_required": 1, "private": 0.75}
    assert shown == [{"assistant": "assistant", "region": "default", **counted}]
