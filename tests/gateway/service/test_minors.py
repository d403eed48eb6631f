"""Rules for minors in requests: every member of a band, in every API, as JSON and as streams."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
import yaml

from gateway.config.sentences import known_messages
from gateway.model.record import Record
from gateway.model.refusal_reason import RefusalReason
from gateway.service.explain import PlainRequest, explain, explain_text, reports_from
from gateway.state.receipts import receipt_of
from gateway.telemetry.exposition import render
from gateway.telemetry.request_log import JsonLines
from tests.kit.case_files import cases
from tests.kit.configs import Config, key_hash
from tests.kit.doc_pages import ROOT, blocks_of
from tests.kit.input_gateway import EMBEDDINGS, MODERATIONS, InputGateway, vectors_of
from tests.kit.judged_chats import APIS, EACH_CHAT, TOOLS, World, ask

SECRET = "of-the-issuer-and-long-enough-for-hs256"
NOW = datetime.now(UTC)
LATER = f"{NOW + timedelta(hours=2):%H:%M}-{NOW + timedelta(hours=3):%H:%M}"
CONFIG = Config.beside(__file__).merge(
    {
        "regions": {"default": {"age_bands": {"tired": {"hours": LATER}}}},
        "clients": {"trusted": {"keys": [key_hash("gk-1")], "may_assert": ["territory", "user", "consent", "intent"]}},
    }
)


def provider(world: World) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=vectors_of(request)) if "embeddings" in request.url.path else world(request)

    return answer


def served_by(world: World, *patches: str | Mapping[str, Any]) -> InputGateway:
    return InputGateway(provider(world), CONFIG.merge(*patches), {"CLAIM_SECRET": SECRET})


def headers(band: object = None, *, key: str = SECRET, **more: str) -> dict[str, str]:
    """Return the headers of a user whose claim names this band, or of one without a claim."""
    sent = {"authorization": "Bearer gk-1", **{name.replace("_", "-"): value for name, value in more.items()}}
    if band is not None:
        claim = {"iss": "https://i.example", "aud": "g", "exp": time.time() + 600, "age": band}
        sent["x-gateway-claim"] = jwt.encode(claim, key, "HS256")
    return sent


def code_of(dialect: str, response: httpx.Response) -> tuple[str, str]:
    """Return the code and the reason of an error."""
    error = response.json()["error"]
    if dialect == "gemini":
        (info,) = (it for it in error["details"] if "reason" in it)
        return info["reason"], info["metadata"]["reason"]
    return error["code"], error["reason"]


@pytest.fixture
def world() -> World:
    return World()


@EACH_CHAT
@pytest.mark.parametrize(
    ("band", "missing"), [("refused", "adult"), ("tired", "adult"), (None, "refuse"), (None, "refused")]
)
def test_refused_user_gets_no_answer(world: World, dialect: str, stream: bool, band: str | None, missing: str) -> None:
    served = served_by(world, {"regions": {"default": {"age_missing": missing}}})
    response = ask(served, dialect, stream=stream, headers=headers(band, accept_language="de"))
    assert (response.status_code, world.asked) == (403, []), response.text
    assert code_of(dialect, response) == ("age_restricted", "age")
    assert known_messages()[RefusalReason.AGE]["de"] in response.text
    if band == "tired":
        assert 3600 < int(response.headers["retry-after"]) <= 7200
    else:
        assert "retry-after" not in response.headers


@EACH_CHAT
def test_band_without_tools(world: World, dialect: str, stream: bool) -> None:
    served = served_by(world)
    assert ask(served, dialect, stream=stream, headers=headers("toolless")).status_code == 200
    if dialect in TOOLS:
        response = ask(served, dialect, stream=stream, headers=headers("toolless"), tools=TOOLS[dialect])
        assert response.status_code == 403, response.text
        assert code_of(dialect, response) == ("age_restricted", "age")
        assert ask(served, dialect, headers=headers("adult"), tools=TOOLS[dialect]).status_code == 200
    assert len(world.asked) == (2 if dialect in TOOLS else 1)


@pytest.mark.parametrize(("band", "status"), [("toolless", 403), ("adult", 200)])
def test_count_of_tokens_is_refused_as_its_chat(world: World, band: str, status: int) -> None:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], "tools": TOOLS["messages"]}
    assert served_by(world).post("/v1/messages/count_tokens", body, headers(band)).status_code == status


def test_search_of_a_provider_is_a_tool(world: World) -> None:
    response = ask(served_by(world), "chat", headers=headers("toolless"), web_search_options={})
    assert (response.status_code, response.json()["error"]["param"]) == (403, "web_search_options")


@EACH_CHAT
@pytest.mark.parametrize(
    ("band", "result", "model"),
    [("plain", "not_used; reason=age", "c"), ("adult", "used", "spare"), (None, "used", "spare")],
)
def test_band_without_choices(
    world: World, dialect: str, stream: bool, band: str | None, result: str, model: str
) -> None:
    response = ask(served_by(world), dialect, stream=stream, headers=headers(band, x_gateway_prefer="spare"))
    assert (response.status_code, response.headers["x-gateway-preference"]) == (200, result)
    assert world.asked[0]["model"] == model


@EACH_CHAT
@pytest.mark.parametrize(
    ("band", "hosts"), [("private", {"chat.example"}), ("adult", {"chat.example", "judge.example"})]
)
def test_band_without_hand_offs(dialect: str, stream: bool, band: str, hosts: set[str]) -> None:
    step = {"hand_off": {"when": ["failure"]}}
    patch = {
        "assistants": {"assistant": {"routes": {"default": {"default": ["model", step, "judge"]}}, "choices": {}}},
        "regions": {"default": {"age_bands": {"private": {"hand_off": False}}}},
    }
    served = InputGateway(lambda _: httpx.Response(500), CONFIG.merge(patch), {"CLAIM_SECRET": SECRET})
    response = ask(served, dialect, stream=stream, headers=headers(band))
    assert (response.status_code, {request.url.host for request in served.requests}) == (502, hosts)


@EACH_CHAT
def test_band_decides_the_intent(world: World, dialect: str, stream: bool) -> None:
    served = served_by(world)
    asserting = {"x_gateway_intent": "talk"}
    tools = {"tools": TOOLS[dialect]} if dialect in TOOLS else {}
    response = ask(served, dialect, stream=stream, headers=headers("small", **asserting), **tools)
    assert response.headers["x-gateway-intent"] == "minors"
    assert ask(served, dialect, headers=headers("adult", **asserting)).headers["x-gateway-intent"] == "talk"
    assert [body["model"] for body in world.asked] == ["small", "talk"]


@EACH_CHAT
def test_band_instructs_the_model(world: World, dialect: str, stream: bool) -> None:
    response = ask(served_by(world), dialect, stream=stream, headers=headers("told"))
    assert response.status_code == 200
    first, *rest = world.asked[0]["messages"]
    assert (first["role"], first["content"]) == ("system", "The user is a child.")
    assert [message["role"] for message in rest] == ["user"]


def test_message_of_the_client_keeps_its_place_in_errors() -> None:
    """The system message that the gateway adds does not count."""
    error = {"error": {"message": "bad", "param": "messages[1].content", "code": "x"}}
    served = InputGateway(lambda _: httpx.Response(400, json=error), CONFIG, {"CLAIM_SECRET": SECRET})
    response = ask(served, "chat", headers=headers("told"))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "messages[0].content")


@EACH_CHAT
@pytest.mark.parametrize(
    "sent",
    [
        headers("under_15"),
        headers(""),
        headers(14),
        headers(["adult"]),
        headers("adult", key="of-another-issuer-and-long-enough-too"),
    ],
    ids=["unknown", "empty", "number", "list", "forged"],
)
def test_claim_with_another_band_is_invalid(world: World, dialect: str, stream: bool, sent: dict[str, str]) -> None:
    response = ask(served_by(world), dialect, stream=stream, headers=sent)
    assert (response.status_code, world.asked) == (403, [])
    assert code_of(dialect, response) == ("permission_denied", "access")
    assert response.headers["x-gateway-why"] == "claim"


@APIS
def test_nothing_but_a_claim_names_the_band(world: World, dialect: str) -> None:
    """A trusted client may assert everything else."""
    served = served_by(world, {"regions": {"default": {"age_missing": "refuse"}}})
    asserted = dict.fromkeys(("x_gateway_age_band", "x_gateway_age", "age_band", "x_gateway_user"), "adult")
    response = ask(served, dialect, headers=headers(x_gateway_territory="DE", x_gateway_consent="granted", **asserted))
    assert (response.status_code, world.asked) == (403, [])


@pytest.mark.parametrize("band", ["refused", "tired", "toolless", "adult"])
@pytest.mark.parametrize(("path", "body"), [(EMBEDDINGS, {"model": "assistant"}), (MODERATIONS, {})])
def test_other_uses_are_refused_and_not_limited(path: str, body: dict[str, str], band: str) -> None:
    response = served_by(World()).post(path, {**body, "input": ["text"]}, headers(band))
    assert response.status_code == (403 if band in ("refused", "tired") else 200)
    if response.status_code == 403:
        assert response.json()["error"]["code"] == "age_restricted"


@pytest.mark.parametrize("band", ["refused", "tired", "adult"])
@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1beta/models/assistant:countTokens"])
def test_tokens_are_counted_for_users_who_may_chat(path: str, band: str) -> None:
    user = {"role": "user", "content": "Hi", "parts": [{"text": "Hi"}]}
    body = {"model": "assistant", "messages": [user]} if "messages" in path else {"contents": [user]}
    response = served_by(World()).post(path, body, headers(band))
    assert response.status_code == (200 if band == "adult" else 403)


@pytest.mark.parametrize("fails", [False, True])
def test_hours_of_the_active_version_apply_to_a_further_attempt(world: World, fails: bool) -> None:
    """A version that forbids the hour of arrival becomes active during the answer, which is not cancelled."""
    served = served_by(world, {"regions": {"default": {"age_bands": {"tired": {"hours": None, "timezone": None}}}}})
    asleep = served_by(world).gateway.config

    def answer(request: httpx.Request) -> httpx.Response:
        served.gateway.activate(asleep)
        return httpx.Response(500) if fails else world(request)

    served._provider = answer
    assert ask(served, "chat", headers=headers("tired")).status_code == (403 if fails else 200)


@pytest.mark.parametrize("band", ["refused", "tired", "toolless", "told", "adult", None])
def test_log_line_and_receipt_name_the_band_and_metrics_do_not(records: list[Record], band: str | None) -> None:
    served = served_by(World(), {"regions": {"default": {"age_missing": "refuse"}}})
    ask(served, "chat", headers=headers(band))
    (record,) = records
    line = json.loads(JsonLines().of([(record, 0.0)])[0])
    assert line["age_band"] == band
    assert receipt_of(record, 0.0, None)["age_band"] == band
    for value in ("refused", "tired", "toolless", "told"):
        labels = [text for text in render(served.counts())[0].decode().splitlines() if f'"{value}"' in text]
        assert all('outcome="refused"' in text for text in labels)


def get(served: InputGateway, path: str, band: str | None = None) -> Any:
    return served.get(path, headers(band)).json()


def test_capabilities_reflect_the_band() -> None:
    served = served_by(World())

    def of(band: str | None, more: str = "") -> Any:
        return get(served, f"/v1/capabilities?assistant=assistant{more}", band)

    adult, plain, toolless, small = of("adult"), of("plain"), of("toolless"), of("small")
    assert adult == of(None)
    assert {"tools", "tool_choice_named"} <= {*adult["supported"]}
    assert {*adult["supported"]} - {*toolless["supported"]} == {"tools", "tool_choice_named"}
    assert [(it["available"], it["reason"]) for it in adult["choices"]] == [(True, None)]
    assert [(it["available"], it["reason"]) for it in plain["choices"]] == [(False, "age")]
    assert (adult["intents"], small["intents"]) == (["talk", "minors"], ["minors"])
    assert of("refused")["error"]["code"] == "age_restricted"
    assert of("tired") == adult  # a settings screen may be shown at night
    assert of("plain", "&territory=JP")["choices"][0]["reason"] == "age"  # the age stays in another place
    assert get(served, "/v1/models", "refused")["error"]["code"] == "age_restricted"


def test_band_sees_nothing_that_it_may_not_have(world: World) -> None:
    """Neither the model after a barrier that stays closed, nor audio."""
    step = {"hand_off": {"when": ["capability"]}}
    rules = {"hand_off": False, "transcription": False, "speech": False}
    audio = {use: {"default": ["model"]} for use in ("transcription", "speech")}
    far = {"far": {"deployments": ["judge"], "title": {"en": "Far"}}}
    routes = {"default": {"default": ["model", step, "judge"]}}
    patch = {
        "assistants": {"assistant": {"routes": routes, "choices": far, **audio}},
        "deployments": {"model": {"capabilities": []}, "judge": {"capabilities": ["tools"]}},
        "regions": {"default": {"age_bands": {"private": rules}}},
    }
    served = served_by(world, patch)

    def of(path: str, band: str) -> Any:
        return get(served, f"/v1/{path}assistant=assistant", band)

    for band, may in (("adult", True), ("private", False)):
        chat = ask(served, "chat", headers=headers(band), tools=[{"type": "function", "function": {"name": "f"}}])
        assert chat.status_code == (200 if may else 400)
        shown = of("capabilities?", band)
        assert ("tools" in shown["supported"]) is may
        assert (shown["transcription"] is not None, shown["speech"] is not None) == (may, may)
        assert [it["reason"] for it in shown["choices"] if it["id"] == "far"] == [None if may else "hand_off"]
        disclosed = [it["deployment"] for it in of("disclosure?", band)["data"]]
        assert disclosed == (["model", "judge"] if may else ["model"])
        for use in audio:
            assert ("plan" in of(f"explain?use={use}&", band)["outcome"]) is may
        serves = get(served, "/v1/models/assistant", band)["x_gateway"]["serves"]
        assert ({*audio} <= {*serves}, "chat" in serves) == (may, True)


def test_explain_names_the_band() -> None:
    served = served_by(World())

    def of(band: str | None) -> Any:
        return get(served, "/v1/explain?assistant=assistant&prefer=spare&intent=talk", band)

    assert of(None)["age_band"] == of("adult")["age_band"] == "adult"
    assert (of("small")["age_band"], of("small")["intent"]) == ("small", "minors")
    assert "age band" in of("small")["intent_note"]
    assert of("plain")["preference"] == {"choice": "spare", "used": False, "reason": "age"}
    for band in ("refused", "tired"):
        refusal = of(band)["outcome"]["refusal"]
        assert (refusal["code"], refusal["reason"]) == ("age_restricted", "age")
    assert of("under_15")["outcome"]["refusal"]["code"] == "permission_denied"


def test_unread_member_of_a_claim_has_no_effect(world: World) -> None:
    served = served_by(world, {"location": {"claim": {"age_band": None}}})
    assert ask(served, "chat", headers=headers("refused")).status_code == 200


def test_terminal_explains_the_route_of_the_band() -> None:
    config = served_by(World()).gateway.config
    now_s = time.time()
    for band, model in (("small", "small"), ("adult", "model")):
        reports = reports_from("DE", band)
        request = PlainRequest(config, None, reports, config.assistants["assistant"], now_s)
        explained: Any = explain(request)
        assert [step["deployment"] for step in explained["outcome"]["plan"]] == [model, "spare"]
        assert f"age band     {band}" in explain_text(request)


@EACH_CHAT
def test_gate_judges_hours_and_tools_after_the_name_of_the_assistant(world: World, dialect: str, stream: bool) -> None:
    served = at_gate(served_by(world))
    asked = {"stream": stream, "headers": headers("tired")}
    response = ask(served, dialect, **asked)
    assert (response.status_code, code_of(dialect, response)) == (403, ("age_restricted", "age")), response.text
    assert 3600 < int(response.headers["retry-after"]) <= 7200
    if dialect != "gemini":
        assert ask(served, dialect, **asked, model="unknown").status_code == 404
    if dialect in TOOLS:
        asked = {"stream": stream, "headers": headers("toolless"), "tools": TOOLS[dialect]}
        assert ask(served, dialect, **asked).status_code == 403
    assert world.asked == []
    assert ask(served, dialect, stream=stream, headers=headers("toolless")).status_code == 200


@EACH_CHAT
@pytest.mark.parametrize("is_at_gate", [False, True], ids=["by the headers", "at the gate"])
def test_refusal_outside_of_the_hours_has_the_time(world: World, dialect: str, stream: bool, is_at_gate: bool) -> None:
    served = at_gate(served_by(world)) if is_at_gate else served_by(world)
    response = ask(served, dialect, stream=stream, headers=headers("tired", accept_language="de"))
    begin, error = NOW + timedelta(hours=2), response.json()["error"]
    sentence = f"Die Regeln für Minderjährige erlauben diese Anfrage nicht. Sie können den Assistenten ab {begin:%H:%M} Uhr wieder nutzen."
    age = {"rule": "hours", "limit_s": None, "allowed_at": f"{begin:%Y-%m-%dT%H:%M:00Z}"}
    if dialect == "gemini":
        details = {it["@type"].rpartition(".")[2]: it for it in error["details"]}
        assert (details["LocalizedMessage"]["message"], details["Struct"]["value"]["age"]) == (sentence, age)
    else:
        assert (error["user_message"], error["age"]) == (sentence, age)
    assert age["allowed_at"] in error["message"]
    assert response.headers["x-should-retry"] == "false"


@cases("patch")
def test_operators_sentence_comes_before_that_of_the_hours(world: World, patch: dict[str, Any]) -> None:
    error = ask(served_by(world, patch), "chat", headers=headers("tired")).json()["error"]
    assert (error["user_message"], error["age"]["rule"]) == ("Ours.", "hours")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/moderations", "/v1/messages/count_tokens"])
def test_gate_judges_hours_of_requests_that_are_no_chats(world: World, path: str) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]} if "count" in path else {"input": "hi"}
    served = at_gate(served_by(world))
    assert served.post(path, {"model": "assistant", **chat}, headers("tired")).status_code == 403
    assert world.asked == []


def at_gate(served: InputGateway) -> InputGateway:
    """Return the gateway with a region that judges the rules of its bands at its gate."""
    for region in served.gateway.config.regions.values():
        object.__setattr__(region, "helps_first", True)
    return served


STORES = next(it for it in blocks_of(ROOT / "docs/operate/minors.md") if "under_13" in it.text).text


@cases("answer", "band", "status")
def test_age_that_a_store_reports_is_a_band_of_the_page(
    world: World, answer: str, band: str | None, status: int
) -> None:
    bands = dict.fromkeys(CONFIG.data["regions"]["default"]["age_bands"])
    bands |= yaml.safe_load(STORES)["regions"]["us"]["age_bands"]
    served = served_by(world, {"regions": {"default": {"age_bands": bands, "age_missing": "refuse"}}})
    response = ask(served, "chat", headers=headers(band))
    assert response.status_code == status, answer
    assert response.json().get("error", {}).get("reason") == ("age" if status == 403 else None)
