"""The time of users: what is counted, which chats a limit refuses, and what clients see of it, in each API."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.features.duties.state import remove_use_records, use_records_of
from gateway.model.record import Record
from gateway.state.receipts import receipt_of
from gateway.telemetry.request_log import JsonLines
from tests.kit.chat_exchange import SSE, chunk
from tests.kit.configs import table_of
from tests.kit.judged_chats import EACH_CHAT, STREAMS, World, ask, events_of, text_of
from tests.kit.timed_gateway import CONFIG, NOON, SECRET, TimedGateway, headers, time_of_use_of

MINUTE_MS = 60_000


def age_of(dialect: str, response: httpx.Response) -> Any:
    error = response.json()["error"]
    if dialect == "gemini":
        (value,) = (it["value"] for it in error["details"] if "age" in it.get("value", {}))
        return value["age"]
    return error["age"]


@pytest.fixture
def served(tmp_path: Path) -> TimedGateway:
    return TimedGateway(tmp_path, World())


@EACH_CHAT
def test_session_ends_after_its_limit(served: TimedGateway, dialect: str, stream: bool) -> None:
    def chat() -> httpx.Response:
        return ask(served, dialect, stream=stream, headers=headers("child", accept_language="de"))

    shown = "session={0}; session-limit=3600; day={0}; day-limit=7200"
    for minutes in (0, 20, 40, 59):
        served.now_s = NOON + 60 * minutes
        response = chat()
        assert (response.status_code, response.headers["x-gateway-use"]) == (200, shown.format(60 * minutes))
    served.now_s = NOON + 3600
    response = chat()
    assert (response.status_code, response.headers["x-gateway-use"]) == (403, shown.format(3600))
    # 59 minutes of use, and a gap of 30 minutes.
    assert age_of(dialect, response) == {"rule": "session", "limit_s": 3600, "allowed_at": "2027-07-01T20:29:00Z"}
    assert response.headers["retry-after"] == str(29 * 60)
    assert response.headers["x-should-retry"] == "false"
    assert "Zeit für eine Pause" in response.text
    served.now_s = NOON + 89 * 60
    response = chat()
    assert (response.status_code, response.headers["x-gateway-use"]) == (
        200,
        "session=0; session-limit=3600; day=3540; day-limit=7200",
    )


@EACH_CHAT
def test_day_ends_after_its_limit_and_the_next_one_begins_at_0(
    served: TimedGateway, dialect: str, stream: bool
) -> None:
    def chat() -> httpx.Response:
        return ask(served, dialect, stream=stream, headers=headers("days"))

    for minutes in range(0, 125, 25):
        served.now_s = NOON + 60 * minutes
        assert chat().headers["x-gateway-use"] == f"day={60 * minutes}; day-limit=7200"
    served.now_s = NOON + 7200 + 60
    response = chat()
    assert (response.status_code, age_of(dialect, response)["rule"]) == (403, "day")
    # 100 minutes without the running pause, so the next session may go on.
    assert age_of(dialect, response)["allowed_at"] == "2027-07-01T21:10:00Z"
    served.now_s = NOON + 130 * 60
    assert chat().status_code == 200
    served.wait(21)
    assert age_of(dialect, chat())["allowed_at"] == "2027-07-01T21:40:00Z"
    served.now_s = NOON + 12 * 3600
    assert chat().headers["x-gateway-use"] == "day=0; day-limit=7200"


@EACH_CHAT
@pytest.mark.parametrize("band", ["child", "adult", None])
def test_unknown_user_is_refused_where_the_band_has_limits(
    tmp_path: Path, dialect: str, stream: bool, band: str | None
) -> None:
    world = World()
    served = TimedGateway(tmp_path, world)
    # An asserted user counts at this client; a client that may not assert one names no user.
    response = ask(served, dialect, stream=stream, headers=headers(band, sub=None))
    if band != "child":
        assert response.status_code == 200
        assert "x-gateway-use" not in response.headers
        assert "I am an AI." in text_of(response, stream=stream)
        assert "I am an AI." in text_of(ask(served, dialect, headers=headers(band, sub=None)), stream=False)
        return
    assert (response.status_code, world.asked) == (403, [])
    assert age_of(dialect, response) == {"rule": "user_unknown", "limit_s": None, "allowed_at": None}
    assert ("retry-after" in response.headers, response.headers["x-should-retry"]) == (False, "false")
    assert "Pause" not in response.text
    assert (
        ask(served, dialect, stream=stream, headers=headers(band, x_gateway_user="anna", sub=None)).status_code == 200
    )


def seconds_of(response: httpx.Response) -> int:
    """Return how long the session has lasted."""
    return int(response.headers["x-gateway-use"].partition("session=")[2].partition(";")[0])


def test_user_is_the_subject_everywhere_or_the_asserted_user_at_one_client(served: TimedGateway) -> None:
    def chat(**who: Any) -> int:
        return seconds_of(ask(served, "chat", headers=headers("child", **who)))

    assert [chat(), chat(sub=None, x_gateway_user="anna"), chat(sub=None, x_gateway_user="anna", key="gk-2")] == [0] * 3
    served.wait(10)
    assert chat(key="gk-2") == 600
    assert chat(sub="anna", x_gateway_user="ben") == 600, "the claim comes first"
    assert chat(sub="ben") == 0
    served.wait(10)
    assert chat(sub=None, x_gateway_user="anna") == 1200
    assert chat(sub=None, x_gateway_user="anna", key="gk-2") == 1200
    assert chat(sub=None, x_gateway_user="carl") == 0


def test_refused_and_failed_chats_and_other_requests_leave_no_trace(served: TimedGateway) -> None:
    world, is_failing = World(), [True]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": {"message": "no"}}) if is_failing[0] else world(request)

    served._provider = answer
    for _ in range(2):
        response = ask(served, "chat", headers=headers("child"))
        assert (response.status_code, seconds_of(response)) == (400, 0)
        served.wait(10)
    chat = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}
    assert served.post("/v1/messages/count_tokens", chat, headers("child")).status_code == 200
    assert served.get("/v1/models", headers("child")).status_code == 200
    served.wait(10)
    is_failing[0] = False
    assert seconds_of(ask(served, "chat", headers=headers("child"))) == 0


def test_another_version_with_other_bands_keeps_the_time_and_judges_it_anew(served: TimedGateway) -> None:
    ask(served, "chat", headers=headers("child"))
    served.wait(20)
    bands = {"child": None, "kid": {"use": {"session": "15m"}}}
    merged = CONFIG.merge({"regions": {"us-ca": {"age_bands": bands}}})
    served.gateway.activate(table_of(merged, {"CLAIM_SECRET": SECRET}))
    response = ask(served, "chat", headers=headers("kid"))
    assert response.status_code == 403
    assert age_of("chat", response) == {"rule": "session", "limit_s": 900, "allowed_at": "2027-07-01T19:30:00Z"}
    assert ask(served, "chat", headers=headers("sessions")).status_code == 200


def test_time_survives_a_restart_and_an_erasure_ends_it(tmp_path: Path) -> None:
    first = TimedGateway(tmp_path, World())
    ask(first, "chat", headers=headers("child"))
    second = TimedGateway(tmp_path, World())
    second.wait(10)
    assert seconds_of(ask(second, "chat", headers=headers("child"))) == 600
    [(key, record)] = use_records_of(tmp_path, [user_of(tmp_path)], None)
    assert (key.client, record.day_ms) == ("", 600_000)
    assert remove_use_records(tmp_path, [key.pseudonym], "gk-1") == 0
    assert remove_use_records(tmp_path, [key.pseudonym], None) == 1
    assert seconds_of(ask(second, "chat", headers=headers("child"))) == 0


def test_detour_through_another_region_resets_nothing(tmp_path: Path) -> None:
    bands = {"child": {"use": {"session": "1h", "day": "2h"}}, "adult": {}}
    auckland = {"gap": "5m", "timezone": "Pacific/Auckland"}
    nz = {"territories": ["NZ"], "boundary": ["*"], "use": auckland, "age_bands": bands, "age_missing": "adult"}
    patch: dict[str, Any] = {
        "regions": {"nz": nz},
        "assistants": {"assistant": {"routes": {"nz": ["model"]}}},
        "clients": {"gk-1": {"may_assert": ["user", "territory"]}},
    }
    served = TimedGateway(tmp_path, World(), patch)

    def chat_from(territory: str) -> int:
        sent = headers("child", x_gateway_territory=territory)
        return seconds_of(ask(served, "chat", headers=sent))

    assert [chat_from("US-CA"), served.wait(20), chat_from("US-CA")] == [0, None, 1200]
    served.wait(6)
    assert [chat_from("NZ"), served.wait(6), chat_from("US-CA")] == [1560, None, 1920]


def user_of(directory: Path) -> str:
    with closing(sqlite3.connect(directory / "use.db")) as database:
        [(user,)] = database.execute("SELECT user FROM used").fetchall()
    return str(user)


def test_records_are_deleted_48_hours_after_the_end_of_their_time(served: TimedGateway, tmp_path: Path) -> None:
    ask(served, "chat", headers=headers("child"))
    use = time_of_use_of(served.gateway)
    served.wait(48 * 60 - 1)
    asyncio.run(use.times.tidy())
    user = user_of(tmp_path)
    served.wait(2)
    asyncio.run(use.times.tidy())
    assert use_records_of(tmp_path, [user], None) == []


@EACH_CHAT
def test_store_that_cannot_be_asked_stops_users_with_limits_only(
    served: TimedGateway, dialect: str, stream: bool
) -> None:
    served.lose_store()
    response = ask(served, dialect, stream=stream, headers=headers("child"))
    assert response.status_code == 503
    assert "gate_unavailable" in response.text
    assert "The assistant could not respond: please try again later." in response.text, "no budget is the cause"
    response = ask(served, dialect, stream=stream, headers=headers("adult"))
    assert response.status_code == 200
    assert "I am an AI." in text_of(response, stream=stream)


@pytest.mark.parametrize("ends", ["breaks off", "goes on", "is killed", "is erased"])
def test_stream_extends_the_time_while_it_runs(served: TimedGateway, tmp_path: Path, ends: str) -> None:
    use, seen = time_of_use_of(served.gateway), []

    async def chunks() -> AsyncIterator[bytes]:
        yield chunk("One ")
        await asyncio.sleep(0)
        for _ in range(4):
            if use.running:
                break
            await asyncio.sleep(0)
        assert len(use.running) == 1
        served.wait(5)
        await use.extend_running()
        seen.append(record())
        served.wait(5)
        if ends == "is killed":
            for running in use.running:
                running.key = None  # nothing is written after this
        if ends == "is erased":
            assert remove_use_records(tmp_path, [user_of(tmp_path)], None) == 1
        elif ends != "goes on":
            raise httpx.ReadError("reset")
        yield chunk("two.") + chunk("", "stop") + b"data: [DONE]\n\n"

    def record() -> int:
        [(_, found)] = use_records_of(tmp_path, [user_of(tmp_path)], None)
        return found.day_ms // MINUTE_MS

    served._provider = lambda _: httpx.Response(200, content=chunks(), headers=SSE)
    response = ask(served, "chat", stream=True, headers=headers("child"))
    assert (response.status_code, seen) == (200, [5])
    assert record() == (5 if ends == "is killed" else 10)
    assert use.running == set()


def test_two_devices_at_once_make_one_session(served: TimedGateway, tmp_path: Path) -> None:
    """Both begin together, and one runs for ten minutes, the other for five of them. None counts twice."""
    number, both_run, first_ends = 0, asyncio.Event(), asyncio.Event()

    async def chunks(*, is_first: bool) -> AsyncIterator[bytes]:
        await (both_run if is_first else first_ends).wait()
        served.wait(5)
        first_ends.set()
        yield chunk("Hi.", "stop") + b"data: [DONE]\n\n"

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal number
        number += 1
        if number == 2:
            both_run.set()
        return httpx.Response(200, content=chunks(is_first=number == 1), headers=SSE)

    served._provider = answer
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hello."}], "stream": True}

    async def both() -> list[httpx.Response]:
        chat = [
            served._send("POST", "/v1/chat/completions", body, headers("child", key=key)) for key in ("gk-1", "gk-2")
        ]
        return await asyncio.gather(*chat)

    responses = asyncio.run(both())
    assert [response.status_code for response in responses] == [200, 200]
    [(_, record)] = use_records_of(tmp_path, [user_of(tmp_path)], None)
    assert (record.seen_ms - record.began_ms, record.day_ms) == (10 * MINUTE_MS, 10 * MINUTE_MS)


@pytest.mark.parametrize(
    ("noon", "midnight"),
    [("2027-03-14T19:00", "2027-03-15T07:00:00Z"), ("2027-11-07T20:00", "2027-11-08T08:00:00Z")],
    ids=["23 hours", "25 hours"],
)
def test_spent_day_ends_at_midnight_also_when_clocks_change(served: TimedGateway, noon: str, midnight: str) -> None:
    start_s = datetime.fromisoformat(noon).replace(tzinfo=UTC).timestamp()
    world = World()

    def slow(request: httpx.Request) -> httpx.Response:
        served.wait(2)
        return world(request)

    for minutes in (0, 25, 50, 75, 100, 119):
        served.now_s = start_s + 60 * minutes
        served._provider = slow if minutes == 119 else world
        assert ask(served, "chat", headers=headers("days")).status_code == 200
    response = ask(served, "chat", headers=headers("days"))
    assert (response.status_code, age_of("chat", response)["allowed_at"]) == (403, midnight)


def test_claim_without_a_name_names_no_user(served: TimedGateway) -> None:
    for sub in (None, ""):
        response = ask(served, "chat", headers=headers("child", sub=sub))
        assert (response.status_code, age_of("chat", response)["rule"]) == (403, "user_unknown")
    subjects: tuple[object, ...] = ({"name": "anna"}, 7, ["anna"])
    for sub in subjects:
        response = ask(served, "chat", headers=headers("child", sub=sub))
        assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")
        assert "x-gateway-claim" in response.json()["error"]["message"]
    assert ask(served, "chat", headers=headers("child", sub="a" * 10_000_000)).status_code == 431


NOTICES = {"text": "I am an AI.", "repeated": "Still an AI.", None: ""}


def shown_in(response: httpx.Response, *, stream: bool) -> str | None:
    """Return the words of the label in an answer, and check that its data state them."""
    assert response.status_code == 200, response.text
    text = text_of(response, stream=stream)
    found = next((how for how, words in NOTICES.items() if words and f"{words}\n\n" in text), None)
    documents = events_of(response) if stream else [response.json()]
    members = [document["x_gateway"] for document in documents if "x_gateway" in document]
    [label] = members[-1]["labels"]
    assert label.get("text", "") == NOTICES[found], label
    assert members[0]["labels"] == [label], "the first data are those of the end"
    assert ("repeated" in label) == (found == "repeated")
    return found


HISTORY: dict[str, Any] = {
    "chat": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Still an AI.\n\nb"}, {"role": "user", "content": "c"}]},
    "messages": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Still an AI.\n\nb"}, {"role": "user", "content": "c"}]},
    "responses": {"input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Still an AI.\n\nb"}, {"role": "user", "content": "c"}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "a"}]}, {"role": "model", "parts": [{"text": "Still an AI.\n\nb"}]}, {"role": "user", "parts": [{"text": "c"}]}]},
}  # fmt: skip


@STREAMS
@pytest.mark.parametrize("dialect", [*HISTORY])
@pytest.mark.parametrize(("band", "repeat"), [("child", 60), ("adult", 180)])
def test_notice_is_shown_in_each_session_and_repeats_in_it(
    tmp_path: Path, dialect: str, stream: bool, band: str, repeat: int, records: list[Record]
) -> None:
    world = World()
    # Without limits, so that sessions are long enough.
    without = {"regions": {"us-ca": {"age_bands": {"child": {"use": None}}}}}
    served = TimedGateway(tmp_path, world, without)

    def chat() -> str | None:
        response = ask(served, dialect, stream=stream, headers=headers(band), **HISTORY[dialect])
        return shown_in(response, stream=stream)

    assert chat() == "text", "the first answer of a session, in a conversation that goes on"
    assert "AI" not in json.dumps(world.asked[-1]["messages"])
    minutes = 0
    while minutes + 20 < repeat:
        minutes += 20
        served.wait(20)
        assert chat() is None, minutes
    served.wait(20)
    assert chat() == "repeated"
    served.wait(1)
    assert shown_in(ask(served, dialect, stream=stream, headers=headers(band)), stream=stream) == "text", (
        "a new conversation"
    )
    assert chat() is None
    served.wait(30)
    assert chat() == "text", "a new session"
    lines = [json.loads(JsonLines().of([(record, 0.0)])[0]) for record in records]
    assert [line["repeated"] for line in lines].count(True) == 1
    assert {line["use_limit"] for line in lines} == {None}
    assert sum("notice" in record.duties for record in records) == 4
    receipt = receipt_of(records[0], 0.0, None)
    assert (receipt["repeated"], receipt["use_limit"]) == (False, None)


def test_long_answer_does_not_put_off_the_next_notice(tmp_path: Path) -> None:
    """The label is shown at the beginning of an answer of nine minutes, and again an hour after that."""
    world = World()
    served = TimedGateway(tmp_path, world, {"regions": {"us-ca": {"age_bands": {"child": {"use": None}}}}})

    async def chunks() -> AsyncIterator[bytes]:
        for text, reason in (("One", None), (" two.", "stop")):
            yield chunk(text, reason)
            for _ in range(20):
                await asyncio.sleep(0)
            if reason is None:
                served.wait(9)
        yield b"data: [DONE]\n\n"

    def slow(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=chunks(), headers=SSE)

    def chat(*, stream: bool = False) -> str | None:
        response = ask(served, "chat", stream=stream, headers=headers("child"), **HISTORY["chat"])
        return shown_in(response, stream=stream)

    served._provider = slow
    assert chat(stream=True) == "text"
    served._provider = world
    found = []
    for minutes in (30, 55, 60, 85):
        served.now_s = NOON + 60 * minutes
        found.append(chat())
    assert found == [None, None, "repeated", None]


@STREAMS
def test_tool_call_alone_shows_no_notice_and_content_for_programs_does(tmp_path: Path, stream: bool) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    world = World(answers=[""], message={"tool_calls": [call]}, finish="tool_calls")
    served = TimedGateway(tmp_path, world)
    tools = [{"type": "function", "function": {"name": "find"}}]
    more = {**HISTORY["chat"], "tools": tools}
    ask(served, "chat", stream=stream, headers=headers("adult"), **more)
    world.answers, world.message, world.finish = ["{}"], {}, "stop"
    more["response_format"] = {"type": "json_object"}
    for expected in (True, False):
        response = ask(served, "chat", stream=stream, headers=headers("adult"), **more)
        documents = events_of(response) if stream else [response.json()]
        [*_, member] = [document["x_gateway"] for document in documents if "x_gateway" in document]
        assert ("text" in member["labels"][0]) == expected
        assert member["labels"][0].get("in_content") is (False if expected else None)


def test_refusals_are_counted_and_are_in_log_line_and_receipt(served: TimedGateway, records: list[Record]) -> None:
    ask(served, "chat", headers=headers("child", sub=None))
    for _ in range(4):
        ask(served, "chat", headers=headers("child"))
        served.wait(25)
    ask(served, "chat", headers=headers("days"))
    limits = [json.loads(JsonLines().of([(record, 0.0)])[0])["use_limit"] for record in records]
    assert limits == ["user_unknown", None, None, None, "session", None]
    refused = [receipt_of(record, 0.0, None) for record in records]
    assert [it["use_limit"] for it in refused if it is not None] == limits
    kinds = [kind for record in records for kind in record.duties if kind != "notice"]
    assert kinds == ["use_unknown", "use_session"]
    assert all("2027" not in json.dumps(it) for it in refused)


def test_sentence_of_the_operator_comes_first(tmp_path: Path) -> None:
    for number, own in enumerate(
        [
            {"messages": {"age": {"en": "Go out and play."}}},
            {"regions": {"us-ca": {"refusals": {"age_restricted": {"en": "Go out and play."}}}}},
        ]
    ):
        served = TimedGateway(tmp_path / str(number), World(), own)
        ask(served, "chat", headers=headers("sessions"))
        served.now_s = NOON + 1799
        ask(served, "chat", headers=headers("sessions"))
        served.now_s = NOON + 3590
        ask(served, "chat", headers=headers("sessions"))
        served.now_s = NOON + 3600
        assert ask(served, "chat", headers=headers("sessions")).json()["error"]["user_message"] == "Go out and play."


def test_explain_names_the_limits_of_the_band(served: TimedGateway, tmp_path: Path) -> None:
    explained = served.get("/v1/explain?assistant=assistant", headers("child")).json()
    assert explained["use_limit"] == {"session": 3600, "day": 7200}
    assert "use_limit" not in served.get("/v1/explain?assistant=assistant", headers("adult")).json()
    assert not (tmp_path / "use.db").exists()
