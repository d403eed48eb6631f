"""Chats in a region with moderation, in every API, as JSON and as streams, with each kind of judge."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from gateway.assembly.application import Gateway
from gateway.model.record import Record
from gateway.state.receipts import receipt_of
from gateway.telemetry.request_log import JsonLines
from tests.kit import judged_chats
from tests.kit.case_files import tables_of
from tests.kit.configs import key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import CONFIG, EACH_CHAT, GOOD, HARM, HARMFUL, STREAMS, World, ask, ending_of, gateway
from tests.kit.waiting import eventually


@pytest.mark.parametrize("kind", judged_chats.JUDGES)
@EACH_CHAT
def test_flagged_answer_ends_with_what_was_released(dialect: str, stream: bool, kind: str) -> None:
    world = World([HARMFUL])
    response = ask(gateway(world, judged_chats.judged_by(kind)), dialect, stream=stream)
    assert response.status_code == 200, response.text
    assert HARM not in response.text
    assert "never shown" not in response.text
    assert "long enough to be judged by itself" in judged_chats.text_of(response, stream=stream)
    end, member = ending_of(dialect, response, stream=stream)
    assert end == judged_chats.ENDS[dialect]
    assert member["moderation"]["direction"] == "output"
    assert "violence" in member["moderation"]["categories"]
    if kind != "webhook":
        assert set(world.prompts) == {"Hello."}


@pytest.mark.parametrize("kind", judged_chats.JUDGES)
@EACH_CHAT
def test_flagged_request_reaches_no_model(dialect: str, stream: bool, kind: str) -> None:
    world = World()
    response = ask(gateway(world, judged_chats.judged_by(kind)), dialect, f"Some {HARM}.", stream=stream)
    assert (response.status_code, world.asked) == (400, [])
    assert response.headers["content-type"].startswith("application/json")
    document = response.json()
    error = document["error"]
    if dialect == "gemini":
        found = [it["value"]["moderation"] for it in error["details"] if "moderation" in it.get("value", ())]
        assert found[0]["direction"] == "input"
    else:
        assert error["moderation"]["direction"] == "input"
        assert "violence" in error["moderation"]["categories"]
    assert HARM not in response.text


@EACH_CHAT
def test_passed_answer_is_complete(dialect: str, stream: bool) -> None:
    world = World([judged_chats.BEGINNING * 4])
    response = ask(gateway(world), dialect, stream=stream)
    _, member = ending_of(dialect, response, stream=stream)
    assert member is None or "moderation" not in member
    assert world.judged[0] == "Hello."
    assert "And another. " in response.text or stream
    assert response.headers.get("x-gateway-moderation") is None


@EACH_CHAT
def test_without_a_verdict_there_is_no_answer(dialect: str, stream: bool, records: list[Record]) -> None:
    world = World(judge=lambda _: httpx.Response(200, text="nonsense"))
    response = ask(gateway(world), dialect, stream=stream)
    assert (response.status_code, world.asked) == (503, [])
    assert "moderation" in response.text
    if dialect == "chat":
        error = response.json()["error"]
        assert (error["code"], error["reason"]) == ("moderation_unavailable", "outage")
    failed = json.loads(JsonLines().of([(records[0], 0.0)])[0])["failed_judges"]
    assert {(call["deployment"], call["kind"]) for call in failed} == {("judge", "malformed")}


@EACH_CHAT
def test_open_policy_goes_on_and_shows_it(dialect: str, stream: bool, records: list[Record]) -> None:
    world = World(judge=lambda _: httpx.Response(500))
    served = gateway(world, {"regions": {"default": {"moderation": {"on_failure": "open"}}}})
    response = ask(served, dialect, stream=stream)
    assert response.status_code == 200
    assert response.headers["x-gateway-moderation"] == "skipped"
    _, member = ending_of(dialect, response, stream=stream)
    assert member is None or member["moderation"] == {"skipped": True}
    assert not records[0].is_successful, "a sample would leave out its log line and its receipt"


@judged_chats.APIS
@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_judge_that_dies_after_the_input(dialect: str, on_failure: str) -> None:
    calls: list[str] = []

    def judge(host: str) -> httpx.Response | None:
        calls.append(host)
        return None if len(calls) < 3 else httpx.Response(503)

    world = World([GOOD * 3], judge=judge)
    served = gateway(world, {"regions": {"default": {"moderation": {"on_failure": on_failure}}}})
    response = ask(served, dialect, stream=True)
    assert response.status_code == 200
    if on_failure == "open":
        _, member = ending_of(dialect, response, stream=True)
        assert member["moderation"] == {"skipped": True}
    else:
        assert "moderation" in response.text or "judged" in response.text
        assert response.text.count("error") >= 1


FAILURES = {
    "is down": httpx.Response(500),
    "refuses the text": httpx.Response(400, json={"error": {"message": "no", "code": "content_filter"}}),
    "has no room": httpx.Response(400, json={"error": {"message": "too long", "code": "context_length_exceeded"}}),
    "knows another form": httpx.Response(400, json={"error": {"message": "input: Field required"}}),
    "has a wrong key": httpx.Response(401, json={"error": {"message": "no"}}),
    "talks nonsense": httpx.Response(200, json={"results": "none"}),
}


@STREAMS
@pytest.mark.parametrize("failure", FAILURES)
def test_next_judge_is_asked_if_one_fails(stream: bool, failure: str) -> None:
    world = World([HARMFUL], judge=lambda host: FAILURES[failure] if host == "judge.example" else None)
    both = {"regions": {"default": {"moderation": {"input": ["judge", "spare"], "output": ["judge", "spare"]}}}}
    response = ask(gateway(world, both), "chat", stream=stream)
    assert HARM not in response.text
    end, member = ending_of("chat", response, stream=stream)
    assert (end, member["moderation"]["direction"]) == ("content_filter", "output")


@STREAMS
def test_each_choice_is_judged(stream: bool) -> None:
    world = World([GOOD, HARMFUL, judged_chats.BEGINNING])
    response = ask(gateway(world), "chat", stream=stream, n=3)
    assert HARM not in response.text
    documents = judged_chats.events_of(response) if stream else [response.json()]
    ends = {it["index"]: it["finish_reason"] for one in documents for it in one["choices"] if it["finish_reason"]}
    assert ends == {0: "stop", 1: "content_filter", 2: "stop"}
    if not stream:
        assert [it["message"]["content"] for it in documents[0]["choices"]] == [GOOD, GOOD, judged_chats.BEGINNING]


@STREAMS
@pytest.mark.parametrize("dialect", ["chat", "gemini"])
def test_choice_that_went_out_unjudged_stays_known_next_to_a_flagged_one(
    records: list[Record], dialect: str, stream: bool
) -> None:
    silent = True

    def judge(_: str) -> httpx.Response | None:
        nonlocal silent
        silent, was = False, silent
        return httpx.Response(400, json={"error": {"message": "no"}}) if was else None

    patch = {"regions": {"default": {"moderation": {"on_failure": "open", "input": []}}}}
    more: dict[str, Any] = {"generationConfig": {"candidateCount": 2}} if dialect == "gemini" else {"n": 2}
    response = ask(gateway(World([GOOD, HARMFUL], judge=judge), patch), dialect, stream=stream, **more)
    assert response.headers["x-gateway-moderation"] == "skipped"
    documents = judged_chats.events_of(response) if stream else [response.json()]
    member = [document["x_gateway"]["moderation"] for document in documents if "x_gateway" in document][-1]
    assert member == {"direction": "output", "categories": ["violence"], "skipped": True}
    (record,) = records
    line = json.loads(JsonLines().of([(record, 0.0)])[0])
    assert line["moderation"] == {"input": None, "output": "flagged", "by": ["judge"], "skipped": True}


@STREAMS
def test_empty_answer_has_passed(records: list[Record], stream: bool) -> None:
    """Null in the record means that a direction is not configured."""
    assert ask(gateway(World([""])), "chat", stream=stream).status_code == 200
    assert records[0].moderation.output == "passed"


def test_each_end_of_a_choice_has_the_verdict_that_it_changed() -> None:
    def judge(_: str) -> httpx.Response | None:
        flagged = [{"flagged": True, "categories": {f"c{len(world.judged)}": True}}]
        return httpx.Response(200, json={"results": flagged})

    world = World([GOOD, GOOD], judge=judge)
    response = ask(gateway(world, {"regions": {"default": {"moderation": {"input": []}}}}), "chat", stream=True, n=2)
    members = [event["x_gateway"]["moderation"] for event in judged_chats.events_of(response) if "x_gateway" in event]
    assert [member["categories"] for member in members] == [["c1"], ["c1", "c2"]]


def test_receipt_names_each_deployment_that_was_sent_a_text(records: list[Record]) -> None:
    world = World(judge=lambda host: httpx.Response(400, json={}) if host == "judge.example" else None)
    both = {"regions": {"default": {"moderation": {"input": ["judge", "spare"], "output": ["spare"]}}}}
    ask(gateway(world, both), "chat")
    (record,) = records
    receipt: Any = receipt_of(record, 0.0, None)
    asked = [(it["deployment"], it["outcome"], it["stores"], it["processes"]) for it in receipt["judges"]]
    assert asked == [("judge", "invalid_request", "any", "any"), ("spare", "ok", "any", "any")]
    assert receipt["moderation"]["by"] == ["spare"]
    assert [it["deployment"] for it in receipt["tried"]] == ["model"]


@STREAMS
@pytest.mark.parametrize("dialect", ["chat", "messages", "responses", "gemini"])
@pytest.mark.parametrize("word", ["Rome", HARM, "simulated-\\u0068arm"])
def test_tool_call_is_judged_and_removed(dialect: str, stream: bool, word: str) -> None:
    arguments = f'{{"city": "{word}"}}'  # a model may write JSON with escapes
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": arguments}}
    world = World(["I look."], message={"tool_calls": [call]}, finish="tool_calls")
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools: dict[str, Any] = {
        "chat": [{"type": "function", "function": {"name": "find", "parameters": schema}}],
        "messages": [{"name": "find", "input_schema": schema}],
        "responses": [{"type": "function", "name": "find", "parameters": schema}],
        "gemini": [{"functionDeclarations": [{"name": "find", "parametersJsonSchema": schema}]}],
    }
    response = ask(gateway(world), dialect, stream=stream, tools=tools[dialect])
    assert response.status_code == 200, response.text
    assert HARM not in response.text
    assert ("Rome" in response.text) is (word == "Rome")
    if word != "Rome":
        assert ending_of(dialect, response, stream=stream)[0] == judged_chats.ENDS[dialect]


def test_results_of_tools_are_judged() -> None:
    world = World()
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Find it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": f"found {HARM}"},
    ]
    response = gateway(world).post("/v1/chat/completions", {"model": "assistant", "messages": messages})
    assert (response.status_code, world.asked) == (400, [])


def test_judge_obeys_the_redaction_of_a_version_that_becomes_active_during_the_answer() -> None:
    redacted = {"redactions": {"own": {"kinds": ["email"]}}, "deployments": {"judge": {"redact": "own"}}}
    world = World([f"{GOOD}Write to jane@example.com. {GOOD}"])
    served = gateway(world)

    def activate(_: str) -> None:
        if len(world.asked) == 1:  # the model has begun
            world.judge = lambda _: None
            served.gateway.activate(table_of(CONFIG.merge(redacted)))

    world.judge = activate
    response = ask(served, "chat", stream=True)
    assert "jane@example.com" in judged_chats.text_of(response, stream=True)
    assert any("QEMAIL1Z" in text for text in world.judged)
    assert not any("jane@" in text for text in world.judged)


def test_long_chat_costs_one_verdict_a_turn() -> None:
    world = World([GOOD])
    served = gateway(world)
    messages: list[dict[str, str]] = [{"role": "system", "content": "Be kind."}]
    for turn in range(100):
        messages.append({"role": "user", "content": f"Question {turn}?"})
        before = len(world.judged)
        response = served.post("/v1/chat/completions", {"model": "assistant", "messages": messages})
        messages.append({"role": "assistant", "content": response.json()["choices"][0]["message"]["content"]})
        new = world.judged[before:]
        assert new == [*(["Be kind."] if turn == 0 else []), f"Question {turn}?", GOOD]
    other = World([GOOD])
    gateway(other).post("/v1/chat/completions", {"model": "assistant", "messages": messages[:-1]})
    assert len(other.judged) == 1 + 100 + 1 + 1  # each different text once, and the answer


def test_answer_has_passed_the_judges_of_answers_only() -> None:
    world = World([GOOD])
    served = gateway(world, {"regions": {"default": {"moderation": {"output": ["spare"]}}}})

    def judged(*messages: tuple[str, str]) -> list[str]:
        before = len(world.judged)
        body = {"model": "assistant", "messages": [{"role": role, "content": text} for role, text in messages]}
        assert served.post("/v1/chat/completions", body).status_code == 200
        return world.judged[before:]

    assert judged(("user", "Hello.")) == ["Hello.", GOOD]
    assert judged(("user", "Hello."), ("assistant", GOOD), ("user", "And?")) == ["And?", GOOD]
    assert judged(("system", GOOD), ("user", "Hello.")) == [GOOD, "Hello.", GOOD]


def test_history_that_a_client_invents_is_judged() -> None:
    world = World()
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": f"I said {HARM}"},
        {"role": "user", "content": "Repeat it."},
    ]
    assert gateway(world).post("/v1/chat/completions", {"model": "assistant", "messages": messages}).status_code == 400


@pytest.mark.parametrize("policy", ["refuse", "pass"])
def test_images_without_a_judge(policy: str) -> None:
    world = World()
    served = gateway(world, {"regions": {"default": {"moderation": {"media": policy}}}})
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    messages = [{"role": "user", "content": parts}]
    response = served.post("/v1/chat/completions", {"model": "assistant", "messages": messages})
    if policy == "pass":
        assert response.status_code == 200
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_capability")
        assert world.asked == []


@STREAMS
def test_required_format_is_held_until_the_whole_is_judged(stream: bool) -> None:
    text = json.dumps({"a": "One. Two.\n" * 20, "b": HARM})
    world = World([text])
    response = ask(gateway(world), "chat", stream=stream, response_format={"type": "json_object"})
    assert "One." not in response.text
    assert ending_of("chat", response, stream=stream)[0] == "content_filter"
    assert world.judged == ["Hello.", text]


def test_controversial_verdict_follows_the_policy() -> None:
    def answered(_: str) -> httpx.Response:
        verdict = "Safety: Controversial\nCategories: Politically Sensitive Topics"
        choice = {"index": 0, "message": {"role": "assistant", "content": verdict}, "finish_reason": "stop"}
        return httpx.Response(200, json={"id": "v", "created": 1, "model": "j", "choices": [choice]})

    blocks = ask(gateway(World(judge=answered), judged_chats.judged_by("qwen3guard")), "chat")
    assert blocks.status_code == 400
    assert blocks.json()["error"]["moderation"]["categories"] == ["politically-sensitive"]
    passing = {"regions": {"default": {"moderation": {"controversial": "pass"}}}}
    assert ask(gateway(World(judge=answered), judged_chats.judged_by("qwen3guard"), passing), "chat").status_code == 200


OUTPUT_ONLY = {"regions": {"default": {"moderation": {"input": None}}}}


@EACH_CHAT
def test_error_before_the_first_text_has_a_status(dialect: str, stream: bool) -> None:
    world = World(judge=lambda _: httpx.Response(500))
    response = ask(gateway(world, OUTPUT_ONLY), dialect, stream=stream)
    assert (response.status_code, len(world.asked)) == (503, 1)
    assert GOOD not in response.text


@STREAMS
def test_skipped_verdict_on_the_first_text_is_in_the_header(stream: bool) -> None:
    opened = {"regions": {"default": {"moderation": {"on_failure": "open"}}}}
    response = ask(gateway(World(judge=lambda _: httpx.Response(500)), OUTPUT_ONLY, opened), "chat", stream=stream)
    assert (response.status_code, response.headers["x-gateway-moderation"]) == (200, "skipped")
    assert ending_of("chat", response, stream=stream)[1]["moderation"] == {"skipped": True}


PICTURES = {"good": "Z29vZA==", "bad": "aGFybQ=="}


def with_picture(dialect: str, data: str) -> dict[str, Any]:
    """Return the fields of a request with a text and a picture in one API."""
    url = f"data:image/png;base64,{data}"
    source = {"type": "base64", "media_type": "image/png", "data": data}
    parts: dict[str, list[dict[str, Any]]] = {
        "chat": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}],
        "messages": [{"type": "text", "text": "What?"}, {"type": "image", "source": source}],
        "responses": [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": url}],
        "gemini": [{"text": "What?"}, {"inlineData": {"mimeType": "image/png", "data": data}}],
    }
    if dialect == "gemini":
        return {"contents": [{"role": "user", "parts": parts[dialect]}]}
    return {"input" if dialect == "responses" else "messages": [{"role": "user", "content": parts[dialect]}]}


@STREAMS
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("dialect", ["chat", "messages", "responses", "gemini"])
def test_openai_judges_pictures(dialect: str, picture: str, stream: bool) -> None:
    world, judged = World([GOOD]), list[Any]()

    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.host != "judge.example":
            return world(request)
        given = json.loads(request.content)["input"]
        judged.append(given)
        flagged = PICTURES["bad"] in request.content.decode()
        number = len(given) if isinstance(given, list) and isinstance(given[0], str) else 1
        return httpx.Response(
            200, json={"results": [{"flagged": flagged, "categories": {"violence": flagged}}] * number}
        )

    judge = {"provider": "openai", "model": "omni-moderation-latest", "api_key": "${JUDGE_KEY}"}
    served = InputGateway(provider, CONFIG.merge({"deployments": {"judge": judge}}), {"JUDGE_KEY": "sk-judge"})
    response = ask(served, dialect, stream=stream, **with_picture(dialect, PICTURES[picture]))
    pictures = [part["image_url"]["url"] for given in judged if isinstance(given[0], dict) for part in given]
    assert pictures == [f"data:image/png;base64,{PICTURES[picture]}"]
    assert ["What?"] in judged or "What?" in judged
    if picture == "bad":
        assert (response.status_code, world.asked) == (400, [])
        assert response.headers["content-type"].startswith("application/json")
    else:
        assert response.status_code == 200, response.text
        assert "first sentence" in judged_chats.text_of(response, stream=stream)


KEEPING: dict[str, Any] = {
    "assistants": {"assistant": {"shadow": {"default": {"deployment": "copy", "share": "100%", "keep_text": True}}}},
    "deployments": {"copy": {**CONFIG.data["deployments"]["model"], "endpoint": "https://copy.example/v1"}},
    "exporters": {"traces": {"endpoint": "https://otel.example/v1/traces", "stores": "any", "processes": "any"}},
    "regions": {"default": {"log_prompts": True}},
    "cell": {"territory": "DE"},
}


@pytest.mark.slow
@STREAMS
@pytest.mark.parametrize("question", ["Hello.", f"Tell me about {HARM}."])
async def test_nothing_that_is_held_or_flagged_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], question: str, stream: bool
) -> None:
    """Not in the log, receipts, the ledger, traces, metrics, or the texts of the shadow."""
    world, elsewhere = World([HARMFUL]), list[bytes]()

    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.host == "otel.example":
            elsewhere.append(request.content)
            return httpx.Response(200)
        if request.url.host == "copy.example":
            elsewhere.append(request.content)
            return World([judged_chats.BEGINNING])(
                httpx.Request("POST", "https://chat.example/v1", content=request.content)
            )
        return world(request)

    transport = HttpxTransport(httpx.MockTransport(provider))
    config = table_of(CONFIG.merge(KEEPING), {})
    served = Gateway.with_receipts(tmp_path, config=config, transport=transport)
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    done: asyncio.Queue[Any] = asyncio.Queue()
    serving = asyncio.ensure_future(served({"type": "lifespan"}, messages.get, done.put))
    messages.put_nowait({"type": "lifespan.startup"})
    await done.get()
    body = {"model": "assistant", "stream": stream, "messages": [{"role": "user", "content": question}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=served), base_url="http://gateway") as client:
        response = await client.post("/v1/chat/completions", json=body)
    if HARM not in question:  # the shadow gets the prompt, and its text is kept
        await asyncio.to_thread(eventually, lambda: b"And another." in _files_of(tmp_path))
    snapshot = served.metrics.snapshot()
    messages.put_nowait({"type": "lifespan.shutdown"})
    await serving
    assert response.status_code == (400 if HARM in question else 200)
    kept = b"".join([_files_of(tmp_path), *elsewhere, snapshot, capfd.readouterr().out.encode()])
    for text in (HARM, "never shown"):
        assert text.encode() not in kept
    assert b"default" in kept
    assert (b"Hello." in kept) is (HARM not in question)  # what has passed is logged, and goes to the shadow
    assert any(b"/v1/chat/completions" in content or b"gateway" in content for content in elsewhere)


def _files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


_TABLES = tables_of(__file__)
PLACES = msgspec.convert(_TABLES["places"], list[tuple[str, dict[str, Any], bool]])


@pytest.mark.parametrize("on_failure", ["closed", "open"])
@pytest.mark.parametrize(("_", "fields", "is_always"), PLACES, ids=[it[0] for it in PLACES])
def test_texts_beyond_the_messages_are_judged(_: str, fields: dict[str, Any], is_always: bool, on_failure: str) -> None:
    world = World(["{}"])
    served = gateway(world, {"regions": {"default": {"moderation": {"output": [], "on_failure": on_failure}}}})
    tools = [{"type": "function", "function": tool} for tool in fields.get("tools", ())]
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hi."}], **fields}
    response = served.post("/v1/chat/completions", body | ({"tools": tools} if tools else {}))
    if is_always or on_failure == "closed":
        assert (response.status_code, world.asked) == (400, []), response.text
        assert response.json()["error"]["moderation"]["direction"] == "input"
    else:
        assert response.status_code == 200, response.text


def schema_of(text: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "string", "description": text}}}


NATIVE: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"stop_sequences": [HARM]}),
    ("messages", {"tools": [{"name": "f", "input_schema": schema_of(HARM)}]}),
    ("responses", {"tools": [{"type": "function", "name": "f", "parameters": schema_of(HARM)}]}),
    ("responses", {"text": {"format": {"type": "json_schema", "name": "n", "schema": schema_of(HARM)}}}),
    ("gemini", {"generationConfig": {"stopSequences": [HARM]}}),
    ("gemini", {"tools": [{"functionDeclarations": [{"name": "f", "description": HARM}]}]}),
    ("completions", {"stop": HARM}),
]


@STREAMS
@pytest.mark.parametrize(("dialect", "fields"), NATIVE)
def test_texts_beyond_the_messages_are_judged_in_each_api(dialect: str, fields: dict[str, Any], stream: bool) -> None:
    world = World()
    response = ask(gateway(world), dialect, stream=stream, **fields)
    assert (response.status_code, world.asked) == (400, []), response.text


def test_tools_of_an_agent_cost_verdicts_once() -> None:
    world = World()
    served = gateway(world, {"regions": {"default": {"moderation": {"output": []}}}})
    functions = [{"name": f"f{number}", "description": f"Does {number}."} for number in range(40)]
    body = {"model": "assistant", "tools": [{"type": "function", "function": one} for one in functions], "stop": "end"}
    for turn in range(3):
        before = len(world.judged)
        messages = [{"role": "user", "content": f"Question {turn}?", "name": "anna"}]
        assert served.post("/v1/chat/completions", {**body, "messages": messages}).status_code == 200
        assert len(world.judged[before:]) == (43 if not turn else 1)


@pytest.mark.parametrize(
    ("asker", "known"),
    [
        ({"authorization": "Bearer gk-1", "x-gateway-user": "anna"}, {"Hello.", GOOD, "Be kind."}),
        ({"authorization": "Bearer gk-1", "x-gateway-user": "otto"}, {"Be kind."}),
        ({"authorization": "Bearer gk-1"}, {"Be kind."}),
        ({"authorization": "Bearer gk-2", "x-gateway-user": "anna"}, set()),
    ],
)
def test_verdicts_show_no_user_what_another_one_wrote(asker: dict[str, str], known: set[str]) -> None:
    """The price and the time of a verdict show whether a text is remembered. An app may know its own system texts."""
    world = World([GOOD])
    clients = {name: {"keys": [key_hash(name)], "may_assert": ["user"]} for name in ("gk-1", "gk-2")}
    served = gateway(world, {"clients": clients})
    first = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}]
    anna = {"authorization": "Bearer gk-1", "x-gateway-user": "anna"}
    assert served.post("/v1/chat/completions", {"model": "assistant", "messages": first}, anna).status_code == 200
    world.judged.clear()
    turns = [*first, {"role": "assistant", "content": GOOD}, {"role": "user", "content": "And?"}]
    assert served.post("/v1/chat/completions", {"model": "assistant", "messages": turns}, asker).status_code == 200
    assert world.judged[:-1] == [text for text in ("Be kind.", "Hello.", GOOD, "And?") if text not in known]


@pytest.mark.parametrize(
    ("rule", "has_images"),
    [({}, False), ({"media": "pass"}, True), ({"input": ["seeing"]}, True), ({"input": []}, True)],
)
def test_capabilities_and_models_have_no_media_that_a_moderation_refuses(
    rule: dict[str, Any], has_images: bool
) -> None:
    seeing = {"provider": "openai", "model": "omni-moderation-latest", "endpoint": "us", "api_key": "k"}
    served = gateway(World(), {"deployments": {"seeing": seeing}, "regions": {"default": {"moderation": rule}}})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    chat = {"model": "assistant", "messages": [{"role": "user", "content": [image]}]}
    refused = served.post("/v1/chat/completions", chat).json().get("error", {}).get("code") == "unsupported_capability"
    shown = served.get("/v1/capabilities?assistant=assistant").json()["supported"]
    models = served.get("/v1/models/assistant").json()["architecture"]["input_modalities"]
    assert (not refused, "vision" in shown, "image" in models) == (has_images,) * 3
