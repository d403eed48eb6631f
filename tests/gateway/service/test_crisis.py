"""A user in a crisis, in each of the five chat APIs, whole and as a stream: the verdict, the text, the data, the errors."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.assembly.application import Gateway
from gateway.execution.judging import VERDICT_S
from gateway.model.record import Record
from gateway.state.receipts import receipt_of
from gateway.telemetry.request_log import JsonLines
from tests.kit.configs import key_hash, table_of
from tests.kit.crisis_gateway import CRISIS, SAD, US, CrisisWorld, served
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import CONFIG, DIALECTS, EACH_CHAT, STREAMS, World, ask, events_of, judged_by
from tests.kit.timed_gateway import TimedGateway, headers
from tests.kit.usage_rows import kept_rows

DE = "Was Sie gerade erleben, klingt sehr schwer, und Ihr Leben ist wichtig. Bitte sprechen Sie jetzt mit jemandem, zum Beispiel unter der Nummer 988."
DATA = {"categories": ["self-harm"], "helplines": {"crisis": "988"}}


def content_of(dialect: str, response: httpx.Response, *, stream: bool) -> str:
    """Return the text of the first choice, as an app shows it."""
    pick: dict[str, Callable[[Any], str]] = {
        "chat": lambda it: "".join(
            choice["delta" if stream else "message"].get("content") or ""
            for choice in it["choices"]
            if not choice["index"]
        ),
        "completions": lambda it: "".join(choice["text"] for choice in it["choices"] if not choice["index"]),
        "messages": lambda it: it.get("delta", {}).get("text", "") if stream else it["content"][0]["text"],
        "responses": lambda it: (
            (it["delta"] if it["type"].endswith("text.delta") else "")
            if stream
            else it["output"][0]["content"][0]["text"]
        ),
        "gemini": lambda it: "".join(part["text"] for part in it["candidates"][0]["content"]["parts"]),
    }
    return "".join(map(pick[dialect], events_of(response) if stream else [response.json()]))


def members_of(dialect: str, response: httpx.Response, *, stream: bool) -> list[Any]:
    """Return `x_gateway.crisis` of the answer, or of the first and the last event that have it."""
    found = []
    for document in events_of(response) if stream else [response.json()]:
        holders = [document, document.get("message"), document.get("response")]
        found += [it["x_gateway"]["crisis"] for it in holders if it and "crisis" in it.get("x_gateway", ())][:1]
    return found


ENDS = dict.fromkeys(("chat", "completions"), '"finish_reason":"stop"')
ENDS |= {"messages": '"stop_reason":"end_turn"', "responses": '"status":"completed"', "gemini": '"finishReason":"STOP"'}


@EACH_CHAT
def test_stop_is_an_ordinary_answer_that_no_model_gave(dialect: str, stream: bool, records: list[Record]) -> None:
    world = CrisisWorld()
    response = ask(served(world), dialect, SAD, stream=stream)
    assert (response.status_code, world.asked, world.judged) == (200, [], [SAD])
    assert content_of(dialect, response, stream=stream) == US
    headers = response.headers
    assert (headers["x-gateway-crisis"], headers["x-gateway-attempts"]) == ("stop", "0")
    assert "x-gateway-deployment" not in headers
    members = members_of(dialect, response, stream=stream)
    assert members[0] == members[-1] == {"then": "stop", **DATA}
    assert len(members) > stream
    assert ENDS[dialect] in response.text
    assert dialect != "messages" or '"inference_geo":null' in response.text
    assert '"estimated"' not in response.text
    assert '"assistant"' in response.text
    (record,) = records
    assert (record.outcome, record.answered_by.deployment, record.duties) == ("ok", None, {"crisis"})
    assert record.usage.total_tokens == 0
    assert json.loads(JsonLines().of([(record, 0.0)])[0])["crisis"] == "stop"
    receipt = receipt_of(record, 0.0, None)
    assert (receipt["crisis"], receipt["tried"], receipt["side"]) == ("stop", [], None)
    assert "self-harm" not in json.dumps(receipt)


@EACH_CHAT
def test_answer_has_the_text_before_that_of_the_model(dialect: str, stream: bool, records: list[Record]) -> None:
    world = CrisisWorld()
    response = ask(served(world, then="answer", instructions="Be kind."), dialect, SAD, stream=stream)
    assert content_of(dialect, response, stream=stream) == f"{US}\n\nA model's answer."
    assert response.headers["x-gateway-crisis"] == "answer"
    members = members_of(dialect, response, stream=stream)
    assert members[0] == members[-1] == {"then": "answer", **DATA}
    assert world.asked[0]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert (records[0].duties, records[0].is_successful) == ({"crisis"}, False)


@EACH_CHAT
def test_passed_chat_is_answered_as_ever(dialect: str, stream: bool, records: list[Record]) -> None:
    world = CrisisWorld()
    gateway = served(world)
    for _ in range(2):
        response = ask(gateway, dialect, "Hello.", stream=stream)
        assert content_of(dialect, response, stream=stream) == "A model's answer."
        assert "crisis" not in response.text
        assert "x-gateway-crisis" not in response.headers
    assert world.judged == ["Hello."], "a text that passed is remembered"
    assert json.loads(JsonLines().of([(records[0], 0.0)])[0])["crisis"] == "passed"
    assert records[0].duties == set()


@EACH_CHAT
@pytest.mark.parametrize("on_failure", ["open", "closed"])
def test_judge_that_answers_nonsense(dialect: str, stream: bool, on_failure: str, records: list[Record]) -> None:
    world = CrisisWorld(judge=lambda _: httpx.Response(200, text="nonsense"))
    response = ask(served(world, on_failure=on_failure), dialect, SAD, stream=stream)
    if on_failure == "open":
        assert (response.status_code, response.headers["x-gateway-crisis"]) == (200, "unjudged")
        assert content_of(dialect, response, stream=stream) == "A model's answer."
        assert (records[0].duties, records[0].is_successful) == ({"crisis_unjudged"}, False)
    else:
        assert (response.status_code, world.asked) == (503, [])
        assert "moderation_unavailable" in response.text
        assert "x-gateway-crisis" not in response.headers
    outcome = "unjudged" if on_failure == "open" else "failed"
    assert json.loads(JsonLines().of([(records[0], 0.0)])[0])["crisis"] == outcome


def forms_of(dialect: str) -> list[tuple[str, dict[str, Any]]]:
    """Return what requires content for programs in one API, by the field that does."""
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    function = {"name": "f", "parameters": schema}
    gemini = {"tools": [{"functionDeclarations": [function]}], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}
    match dialect:
        case "chat":
            tools = [{"type": "function", "function": function}]
            named = {"type": "function", "function": {"name": "f"}}
            return [
                ("response_format", {"response_format": {"type": "json_object"}}),
                ("tool_choice", {"tools": tools, "tool_choice": "required"}),
                ("tool_choice", {"tools": tools, "tool_choice": named}),
            ]
        case "messages":
            tools = [{"name": "f", "input_schema": schema}]
            return [("tool_choice", {"tools": tools, "tool_choice": {"type": "any"}})]
        case "responses":
            tools = [{"type": "function", **function}]
            form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
            return [
                ("response_format", {"text": {"format": form}}),
                ("tool_choice", {"tools": tools, "tool_choice": "required"}),
            ]
        case "gemini":
            json_form = {"generationConfig": {"responseMimeType": "application/json"}}
            return [("response_format", json_form), ("tool_choice", gemini)]
    return []


FORMS = [(dialect, name, fields) for dialect in DIALECTS for name, fields in forms_of(dialect)]


@STREAMS
@pytest.mark.parametrize(("dialect", "name", "fields"), FORMS)
def test_stop_cannot_be_content_for_programs(dialect: str, name: str, fields: Any, stream: bool) -> None:
    world = CrisisWorld()
    response = ask(served(world), dialect, SAD, stream=stream, **fields)
    assert (response.status_code, response.headers["x-gateway-crisis"], world.asked) == (400, "stop", [])
    error = response.json()["error"]
    if dialect == "gemini":
        details = {it["@type"].rpartition(".")[2]: it for it in error["details"]}
        assert details["ErrorInfo"]["reason"] == "content_filter"
        assert details["ErrorInfo"]["metadata"]["reason"] == "moderation"
        assert details["LocalizedMessage"]["message"] == US
        assert details["Struct"]["value"]["crisis"] == {"then": "stop", **DATA}
    else:
        own_name = "text.format" if (dialect, name) == ("responses", "response_format") else name
        assert (error["code"], error["reason"], error["param"]) == ("content_filter", "moderation", own_name)
        assert (error["user_message"], error["user_message_language"]) == (US, "en")
        assert error["crisis"] == {"then": "stop", **DATA}


def test_message_of_an_error_is_for_developers_also_in_a_region_with_words_of_its_own() -> None:
    label = {"name": "house", "text": {"en": "I am an AI."}, "show": "first_turn"}
    gateway = served(CrisisWorld(), {"regions": {"default": {"labels": [label]}}})
    error = ask(gateway, "chat", SAD, response_format={"type": "json_object"}).json()["error"]
    message = "the answer would be a text for the user, and `response_format` requires another: show `user_message`"
    assert (error["message"], error["user_message"]) == (message, US)


def test_answer_for_programs_has_the_data_only() -> None:
    world = CrisisWorld(answers=["{}"])
    response = ask(served(world, then="answer"), "chat", SAD, response_format={"type": "json_object"})
    assert response.json()["choices"][0]["message"]["content"] == "{}"
    assert response.json()["x_gateway"]["crisis"] == {"then": "answer", **DATA}


@STREAMS
def test_each_choice_has_the_text_after_the_labels(stream: bool) -> None:
    labels = {"regions": {"default": {"labels": [{"name": "house", "text": {"en": "I am an AI."}}]}}}
    for then, rest in (("stop", ""), ("answer", "\n\nFirst.")):
        world = CrisisWorld(answers=["First.", "Second."])
        response = ask(served(world, labels, then=then), "chat", SAD, stream=stream, n=2)
        assert content_of("chat", response, stream=stream) == f"I am an AI.\n\n{US}{rest}"
        documents = events_of(response) if stream else [response.json()]
        others = [it for one in documents for it in one["choices"] if it["index"] == 1]
        texts = [it["delta" if stream else "message"].get("content") or "" for it in others]
        assert "".join(texts).startswith(f"I am an AI.\n\n{US}")
        assert not stream or [at for at, one in enumerate(documents) if "x_gateway" in one] == [0, len(documents) - 1]
        last = [one["x_gateway"] for one in documents if "x_gateway" in one][-1]
        assert last["labels"][0]["in_content"] is True
        assert last["crisis"]["then"] == then


def test_text_is_in_the_language_of_the_user_or_that_of_the_operator() -> None:
    headers = {"accept-language": "de-AT"}
    assert content_of("chat", ask(served(CrisisWorld()), "chat", SAD, headers=headers), stream=False) == DE
    own = served(CrisisWorld(), text={"en": "Our text: 123.", "de": "Unser Text mit {number}."})
    assert content_of("chat", ask(own, "chat", SAD, headers=headers), stream=False) == "Unser Text mit {number}."


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,ZGll"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"model": "assistant", "messages": [{"role": role, "content": content} for role, content in messages]}


def test_only_what_the_user_wrote_since_the_last_text_is_judged() -> None:
    world = CrisisWorld()
    body = chat(("system", "die"), ("user", "die before"), ("assistant", "die said"), ("user", "Still here."))
    result = {"role": "tool", "tool_call_id": "1", "content": "die found"}
    now = {"role": "user", "content": [{"type": "text", "text": "And now."}, PICTURE]}
    body["messages"] += [{"role": "assistant", "tool_calls": [CALL]}, result, now]
    response = served(world).post("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    assert world.judged == ["Still here.", "And now."]
    begun = served(world, {"deployments": {"model": {"capabilities": ["prefill"]}}})
    response = begun.post("/v1/chat/completions", chat(("user", SAD), ("assistant", "Sure")))
    assert response.headers["x-gateway-crisis"] == "stop", "the client has begun the answer for the model"
    long = "a" * 9000 + "die"
    assert ask(served(CrisisWorld()), "chat", long).headers["x-gateway-crisis"] == "stop"


VERDICTS: list[tuple[str, dict[str, Any], bool]] = [
    ("not flagged", {"flagged": False, "categories": {"self-harm": True}}, True),
    ("flagged without a category", {"flagged": True}, False),
    ("another category", {"flagged": True, "categories": {"violence": True, "self-harm": False}}, False),
    ("a name of its own", {"flagged": True, "categories": {"suicide/plan": True}}, True),
    ("a part of a name of its own", {"flagged": True, "categories": {"suicide": True}}, False),
]


@pytest.mark.parametrize(("_", "verdict", "is_found"), VERDICTS, ids=[it[0] for it in VERDICTS])
def test_categories_of_a_webhook(_: str, verdict: dict[str, Any], is_found: bool) -> None:
    world = CrisisWorld(judge=lambda _: httpx.Response(200, json={"results": [verdict]}))
    response = ask(served(world, categories=["self-harm", "suicide/plan"]), "chat", SAD)
    assert response.headers.get("x-gateway-crisis") == ("stop" if is_found else None)


@pytest.mark.parametrize("verdict", ["Unsafe", "Controversial"])
def test_verdict_of_a_guard_model_counts_if_it_is_controversial(verdict: str) -> None:
    class Guarded(World):
        def _verdict(self, request: httpx.Request, body: Any) -> httpx.Response:
            message = {"role": "assistant", "content": f"Safety: {verdict}\nCategories: Suicide & Self-Harm"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            head = {"id": "v", "object": "chat.completion", "created": 1, "model": "j"}
            return httpx.Response(200, json={**head, "choices": [choice]})

    moderation = {"input": ["judge"], "on_failure": "closed", "controversial": "pass"}
    gateway = served(Guarded(), judged_by("qwen3guard"), {"regions": {"default": {"moderation": moderation}}})
    assert ask(gateway, "chat", SAD).headers["x-gateway-crisis"] == "stop"


MODERATION = {"regions": {"default": {"moderation": {"input": ["judge"], "on_failure": "closed"}}}}


def test_one_judge_is_asked_once_for_both_and_what_was_found_does_not_count_again() -> None:
    world = CrisisWorld()
    gateway = served(world, MODERATION, then="answer")
    response = ask(gateway, "chat", SAD)
    assert (response.status_code, world.judged) == (200, [SAD])
    response = ask(gateway, "chat", "I hit them and die.")
    assert (response.status_code, world.judged[1:]) == (400, ["I hit them and die."])
    error = response.json()["error"]
    assert error["moderation"]["categories"] == ["violence"]
    assert (error["user_message"], error["crisis"]["then"]) == (US, "answer")
    assert response.headers["x-gateway-crisis"] == "answer"


def test_judge_that_fails_is_not_asked_again_for_moderation() -> None:
    world = CrisisWorld(judge=lambda host: httpx.Response(400, json={}) if host == "judge.example" else None)
    both = {"regions": {"default": {"moderation": {"input": ["judge", "spare"], "on_failure": "closed"}}}}
    response = ask(served(world, both), "chat", "Hello.")
    assert (response.status_code, response.headers["x-gateway-crisis"]) == (200, "unjudged")
    assert world.asked_judges == ["judge.example", "spare.example"]


def test_next_judge_is_asked_if_one_fails() -> None:
    world = CrisisWorld(judge=lambda host: httpx.Response(500) if host == "judge.example" else None)
    response = ask(served(world, judges=["judge", "spare"]), "chat", SAD)
    assert response.headers["x-gateway-crisis"] == "stop"
    assert world.asked_judges[-1] == "spare.example"


def test_refused_band_and_missing_deployment_give_the_text() -> None:
    """With `answer`, no deployment may answer: the text is the answer. Without a crisis, each is refused."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    other = f"{(datetime.now(UTC).hour + 12) % 24:02}"
    hours = {"hours": f"{other}:00-{other}:01", "timezone": "UTC"}
    cases: list[tuple[dict[str, Any], dict[str, Any], int]] = [
        ({"age_bands": {"child": {"tools": False}}, "age_missing": "child"}, {"tools": tools}, 403),
        ({"age_bands": {"child": hours}, "age_missing": "child"}, {}, 403),
        ({"approvals": "required"}, {}, 451),
    ]
    for region, fields, status in cases:
        world = CrisisWorld()
        gateway = served(world, {"regions": {"default": region}}, then="answer")
        response = ask(gateway, "chat", SAD, **fields)
        assert (response.status_code, response.headers["x-gateway-crisis"]) == (200, "stop"), region
        assert content_of("chat", response, stream=False) == US
        assert response.json()["x_gateway"]["crisis"]["then"] == "stop"
        assert (ask(gateway, "chat", "Hello.", **fields).status_code, world.asked) == (status, [])


def test_failure_of_every_model_has_the_text_for_the_user(records: list[Record]) -> None:
    class Broken(CrisisWorld):
        def _whole(self) -> httpx.Response:
            return httpx.Response(500)

    response = ask(served(Broken(), then="answer"), "chat", SAD)
    assert (response.status_code, response.headers["x-gateway-crisis"]) == (502, "answer")
    error = response.json()["error"]
    assert (error["code"], error["user_message"]) == ("provider_error", US)
    assert error["crisis"] == {"then": "answer", **DATA}
    assert records[0].duties == {"crisis"}


def test_tokens_are_not_counted_by_a_provider_and_embeddings_are_not_judged() -> None:
    world = CrisisWorld()
    body = {"model": "assistant", "messages": [{"role": "user", "content": SAD}]}
    response = served(world).post("/v1/messages/count_tokens", body)
    assert (response.status_code, response.headers["x-gateway-estimated"]) == (200, "true")
    assert (world.judged, world.asked) == ([], [])


def test_judges_that_hang_have_their_time_together(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are asked, one after the other."""

    class Hanging(InputGateway):
        async def _answer(self, request: httpx.Request) -> httpx.Response:  # type: ignore[override]
            if request.url.host != "chat.example":
                self.requests.append(request)
                await asyncio.Event().wait()
            return self._provider(request)

    assert VERDICT_S == 5.0
    for module in ("gateway.execution.judging", "gateway.features.crisis.gate"):
        monkeypatch.setattr(f"{module}.VERDICT_S", 0.8)
    guards = {name: {"model": "Llama-Guard-3-8B"} for name in ("judge", "spare")}
    region = {"territories": ["US"], "moderation": None, "crisis": {**CRISIS, "judges": ["judge", "spare"]}}
    gateway = Hanging(CrisisWorld(), CONFIG.merge({"regions": {"default": region}, "deployments": guards}))
    response = ask(gateway, "chat", SAD)
    assert (response.status_code, response.headers["x-gateway-crisis"]) == (200, "unjudged")
    assert [request.url.host for request in gateway.requests] == ["judge.example", "spare.example"]
    assert {attempt.deployment for attempt in records[0].failed_judges} == {"judge", "spare"}


class TimedCrisis(TimedGateway):
    """A region that limits the time of children and helps in a crisis."""

    def __init__(self, directory: Path, **crisis: Any) -> None:
        judge = {"deployments": {"judge": CONFIG.data["deployments"]["judge"]}}
        super().__init__(directory, CrisisWorld(), judge, {"regions": {"us-ca": {"crisis": {**CRISIS, **crisis}}}})

    def chat(self, text: str = SAD, **claim: Any) -> httpx.Response:
        return ask(self, "chat", text, headers=headers(**{"band": "child", **claim}))


def test_stop_counts_in_the_time_of_the_user_unless_a_limit_would_refuse(tmp_path: Path, records: list[Record]) -> None:
    gateway = TimedCrisis(tmp_path)
    for minutes in (0, 20, 20):
        gateway.wait(minutes)
        response = gateway.chat()
        assert (response.status_code, response.headers["x-gateway-crisis"]) == (200, "stop")
    assert response.headers["x-gateway-use"].startswith("session=2400;"), "each stop is an answered chat"
    gateway.wait(20)
    response = gateway.chat()
    assert (response.status_code, response.headers["x-gateway-crisis"]) == (200, "stop")
    gateway.wait(5)
    refused = gateway.chat("Hello.")
    assert refused.status_code == 403
    assert refused.json()["error"]["age"]["allowed_at"] == "2027-07-01T20:10:00Z", "the last stop left no trace"
    gateway.gateway.flush()
    assert [record.duties for record in records][3:5] == [{"crisis", "notice"}, {"use_session"}]
    assert json.loads(JsonLines().of([(records[3], 0.0)])[0]).get("use_limit") is None


def test_unknown_user_and_a_store_that_is_gone_give_the_text(tmp_path: Path) -> None:
    gateway = TimedCrisis(tmp_path, then="answer")
    assert gateway.chat("Hello.", sub=None).status_code == 403
    assert gateway.chat(sub=None).headers["x-gateway-crisis"] == "stop"
    gateway.lose_store()
    assert gateway.chat("Hello.").json()["error"]["code"] == "gate_unavailable"
    assert (gateway.chat().status_code, gateway.chat().headers["x-gateway-crisis"]) == (200, "stop")


@STREAMS
def test_stop_in_place_of_a_refusal_shows_the_label_that_is_due(tmp_path: Path, stream: bool) -> None:
    gateway = TimedCrisis(tmp_path)
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    later = {"messages": [*history, {"role": "user", "content": SAD}], "stream": stream}

    def help_of(sub: str | None) -> str:
        return content_of("chat", ask(gateway, "chat", headers=headers("child", sub), **later), stream=stream)

    assert [help_of(None), help_of(None)] == [f"I am an AI.\n\n{US}"] * 2, "a user who is not known sees it always"
    texts = []
    for minutes in (0, 20, 20, 19, 1, 1):
        gateway.wait(minutes)
        texts.append(help_of("anna"))
    # Beyond the limit of an hour nothing is kept, so it stays due.
    assert texts == [f"I am an AI.\n\n{US}", US, US, US, f"Still an AI.\n\n{US}", f"Still an AI.\n\n{US}"]


def test_stop_of_a_chat_that_no_deployment_may_answer_leaves_no_trace(tmp_path: Path) -> None:
    gateway = TimedCrisis(tmp_path)
    body = chat(("user", [{"type": "text", "text": SAD}, PICTURE]))
    for _ in range(2):
        response = gateway.post("/v1/chat/completions", body, headers("child"))
        assert (response.status_code, response.headers["x-gateway-crisis"]) == (200, "stop")
        assert response.headers["x-gateway-use"].startswith("session=0;")
        gateway.wait(10)


@pytest.mark.parametrize(("reveal", "model"), [(True, "j"), (False, None)])
def test_receipt_of_a_crisis_has_the_model_of_a_judge_only_where_models_are_shown(
    records: list[Record], reveal: bool, model: str | None
) -> None:
    ask(served(CrisisWorld(), {"assistants": {"assistant": {"reveal_model": reveal}}}), "chat", SAD)
    receipt: Any = receipt_of(records[0], 0.0, None)
    assert [it["model"] for it in receipt["judges"]] == [model]


def test_explain_names_the_judges(tmp_path: Path) -> None:
    explained = served(CrisisWorld()).get("/v1/explain?model=assistant&territory=US")
    assert explained.json()["crisis"] == {"judges": ["judge"], "then": "stop"}


class Spending(InputGateway):
    """A gateway of one client whose budget pays for these tokens."""

    def __init__(self, directory: Path, tokens: int) -> None:
        client = {"keys": [key_hash("gk-1")], "budgets": [{"tokens": tokens, "per": "total"}]}
        region = {"territories": ["US"], "moderation": None, "crisis": CRISIS}
        self.requests, self._provider = [], CrisisWorld()
        self._transport = HttpxTransport(httpx.MockTransport(self._answer))
        table = table_of(CONFIG.merge({"regions": {"default": region}, "clients": {"app": client}}))
        self.gateway = Gateway(table, self._transport, state_dir=directory)
        self.directory = directory

    def chat(self) -> httpx.Response:
        return ask(self, "chat", SAD, headers={"authorization": "Bearer gk-1"})


def test_budget_refuses_a_verdict_and_a_stop_has_its_row_only(tmp_path: Path) -> None:
    poor = Spending(tmp_path / "poor", 1)
    response = poor.chat()
    assert (response.status_code, response.json()["error"]["reason"], poor.requests) == (429, "budget", [])
    assert "x-gateway-crisis" not in response.headers
    rich = Spending(tmp_path / "rich", 100_000)
    assert rich.chat().headers["x-gateway-crisis"] == "stop"
    rows = kept_rows(rich.directory)
    assert [(row.deployment, row.assistant) for row in rows] == [("judge", "assistant")]


@EACH_CHAT
def test_answer_whose_text_moderation_takes_away_has_the_crisis_text(dialect: str, stream: bool) -> None:
    rule = {"regions": {"default": {"moderation": {"output": ["judge"], "on_failure": "closed"}}}}
    response = ask(served(CrisisWorld(answers=["I hit."]), rule, then="answer"), dialect, SAD, stream=stream)
    assert response.status_code == 200
    assert "I hit" not in response.text
    assert content_of(dialect, response, stream=stream) == US


@STREAMS
def test_call_of_a_tool_alone_has_the_data_only(stream: bool) -> None:
    world = CrisisWorld(answers=[""], message={"tool_calls": [CALL]}, finish="tool_calls")
    tools = [{"type": "function", "function": {"name": "f"}}]
    response = ask(served(world, then="answer"), "chat", SAD, stream=stream, tools=tools)
    assert (response.status_code, US in response.text) == (200, False)
    assert members_of("chat", response, stream=stream)[-1]["then"] == "answer"
