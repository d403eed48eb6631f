"""A private model that asks for a hand-off: what opens the barrier, and that no client sees the tool."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from gateway.execution.hand_off_tool import _MOST_HELD
from tests.kit.barriers import GRANTED, KEY, NEVER, STANDING, Providers, barrier, consent_of, served_by, whole
from tests.kit.chat_exchange import SSE
from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import EACH_CHAT, STREAMS, TOOLS, ask

ASKED = barrier("asked")
NAME = "gateway_hand_off"
Part = tuple[str, str]
"""A part of the private model's answer: its kind and its value. The call of the tool has the kind `ask`."""
World = tuple[Providers, InputGateway]
CALL: Part = ("call", "find")
ASK: Part = ("ask", "")


def deltas_of(parts: Sequence[Part], tool: str) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    calls = 0
    for kind, value in parts:
        if kind == "text":
            deltas += [{"content": piece} for piece in (value[:1], value[1:])]
        elif kind == "reasoning":
            deltas.append({"reasoning_content": value})
        else:
            function = {"name": tool if kind == "ask" else value, "arguments": ""}
            head = {"index": calls, "id": f"call_{calls}", "type": "function", "function": function}
            deltas += [
                {"tool_calls": [head]},
                *({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]} for piece in "{}"),
            ]
            calls += 1
    return deltas


def stream_of(parts: Sequence[Part], tool: str) -> bytes:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    finish = "tool_calls" if any(kind in ("ask", "call") for kind, _ in parts) else "stop"
    chunks: list[Any] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas_of(parts, tool)]
    chunks.append({"index": 0, "delta": {}, "finish_reason": finish})
    lines = [f"data: {json.dumps({**head, 'choices': [chunk]})}\n\n" for chunk in chunks]
    return ("".join(lines) + "data: [DONE]\n\n").encode()


class Cut(httpx.AsyncByteStream):
    """A body in two pieces, or byte by byte."""

    def __init__(self, body: bytes, at: int | None) -> None:
        self._pieces = [body[:at], body[at:]] if at is not None else [body[i : i + 1] for i in range(len(body))]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece:
                yield piece


def house(*parts: Part, at: int | None = -1) -> Any:
    """Return the private model with this answer, if it has the tool. `at`: where its stream is cut."""

    def answer(body: Any) -> httpx.Response:
        names = [one["function"]["name"] for one in body.get("tools", ())]
        tool = next((name for name in names if name.startswith(NAME) and name == names[-1]), NAME)
        if body.get("stream"):
            return httpx.Response(200, stream=Cut(stream_of(parts, tool), at), headers=SSE)
        named = [tool if kind == "ask" else value for kind, value in parts if kind in ("ask", "call")]
        calls = [
            {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": "{}"}}
            for index, name in enumerate(named)
        ]
        message: dict[str, Any] = {"content": "".join(value for kind, value in parts if kind == "text")}
        message |= {"reasoning_content": "".join(value for kind, value in parts if kind == "reasoning")}
        response = whole("", **message, **({"tool_calls": calls} if calls else {}))
        if not calls:
            return response
        document = response.json()
        document["choices"][0]["finish_reason"] = "tool_calls"
        return httpx.Response(200, json=document)

    return answer


@pytest.fixture(scope="module")
def world() -> World:
    providers = Providers()
    return providers, served_by(providers, ASKED)


OPENS: dict[str, tuple[Part, ...]] = {
    "alone": (ASK,),
    "after reasoning": (("reasoning", "I do not know"), ASK),
    "after another call": (CALL, ASK),
    "before another call": (ASK, CALL),
    "after white space": (("text", "\n\n"), ASK),
}
STAYS: dict[str, tuple[Part, ...]] = {
    "after text": (("text", "A word."), ASK),
    "after reasoning and text": (("reasoning", "Hm"), ("text", "A word."), ASK),
    "text alone": (("text", "A word."),),
    "after text, with another call": (("text", "A word."), ASK, CALL),
    "after text, behind another call": (("text", "A word."), CALL, ASK),
}


@EACH_CHAT
@pytest.mark.parametrize("parts", OPENS.values(), ids=OPENS)
def test_call_before_text_opens_the_barrier(dialect: str, stream: bool, parts: tuple[Part, ...], world: World) -> None:
    providers, served = world
    providers.asked.clear()
    providers.answers["house"] = house(*parts, at=None)
    more = {"tools": TOOLS[dialect]} if dialect in TOOLS else {}
    refused = ask(served, dialect, stream=stream, headers=KEY, **more)
    assert (refused.status_code, providers.names, refused.headers["x-gateway-hand-off"]) == (403, ["house"], "asked")
    consent = consent_of(refused)
    assert (consent["hand_off"], NAME in refused.text) == ("asked", False)
    response = ask(served, dialect, stream=stream, headers={**KEY, "x-gateway-consent": consent["token"]}, **more)
    assert (response.status_code, providers.names) == (200, ["house", "cloud"])
    assert NAME not in response.text + json.dumps(providers.asked[-1][1])


@EACH_CHAT
@pytest.mark.parametrize("parts", STAYS.values(), ids=STAYS)
def test_call_after_text_is_removed(dialect: str, stream: bool, parts: tuple[Part, ...], world: World) -> None:
    providers, served = world
    providers.asked.clear()
    providers.answers["house"] = house(*parts, at=None)
    more = {"tools": TOOLS[dialect]} if dialect in TOOLS else {}
    response = ask(served, dialect, stream=stream, headers=KEY, **more)
    assert (response.status_code, providers.names) == (200, ["house"])
    assert "x-gateway-hand-off" not in response.headers
    assert NAME not in response.text
    if dialect == "chat" and not stream:
        (choice,) = response.json()["choices"]
        calls = [part for part in parts if part == CALL]
        assert len(choice["message"].get("tool_calls") or ()) == len(calls)
        assert choice["finish_reason"] == ("tool_calls" if calls else "stop")
        assert choice["message"]["content"] == "A word."
    if dialect == "chat" and stream:
        events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        indexes = {call["index"] for event in events for call in event["choices"][0]["delta"].get("tool_calls", ())}
        assert indexes == ({0} if CALL in parts else set())
        finish = [event["choices"][0]["finish_reason"] for event in events][-1]
        assert finish == ("tool_calls" if CALL in parts else "stop")


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.full)])
@pytest.mark.parametrize(
    ("parts", "status"), [((("reasoning", "Hm"), CALL, ASK), 403), ((("text", "A word."), ASK), 200)]
)
def test_cut_of_the_stream_changes_nothing(parts: tuple[Part, ...], status: int, step: int) -> None:
    providers = Providers()
    served = served_by(providers, ASKED)
    for at in range(0, len(stream_of(parts, NAME)), step):
        providers.answers["house"] = house(*parts, at=at)
        response = ask(served, "chat", stream=True, headers=KEY, tools=TOOLS["chat"])
        assert (response.status_code, NAME in response.text) == (status, False)
        assert "tool_calls" not in response.text


def tools_sent(body: Any, patch: Any = ASKED, headers: Any = KEY) -> list[str]:
    providers = Providers()
    assert ask(served_by(providers, patch), "chat", headers=headers, **body).status_code == 200
    return [one["function"]["name"] for one in providers.asked[0][1].get("tools", ())]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, [NAME]),
        ({"tools": TOOLS["chat"]}, ["find", NAME]),
        ({"tools": TOOLS["chat"], "tool_choice": "auto"}, ["find", NAME]),
        ({"tools": TOOLS["chat"], "tool_choice": "none"}, ["find"]),
        ({"tools": [{"type": "function", "function": {"name": NAME}}]}, [NAME, f"{NAME}_2"]),
        ({"n": 2}, []),
        ({"response_format": {"type": "json_object"}}, []),
    ],
)
def test_tool_is_offered(body: dict[str, Any], names: list[str]) -> None:
    able = {"deployments": {"house": {"capabilities": ["tools", "n", "json_object"]}}, **ASKED}
    assert tools_sent(body, able) == names


def test_tool_is_not_offered() -> None:
    assert tools_sent({}, headers=NEVER) == []
    assert tools_sent({}, barrier("failure")) == []
    assert tools_sent({}, {"deployments": {"house": {"capabilities": []}}, **ASKED}) == []


def test_client_keeps_its_own_tool_of_this_name() -> None:
    own = [{"type": "function", "function": {"name": NAME}}]
    providers = Providers({"house": house(("call", NAME))})
    response = ask(served_by(providers, ASKED), "chat", headers=KEY, tools=own)
    (call,) = response.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == NAME
    providers = Providers({"house": house(ASK)})
    assert ask(served_by(providers, ASKED), "chat", headers=KEY, tools=own).status_code == 403


@STREAMS
def test_long_reasoning_counts_as_text(stream: bool) -> None:
    providers = Providers({"house": house(("reasoning", "x" * (_MOST_HELD + 1)), ASK)})
    response = ask(served_by(providers, ASKED), "chat", stream=stream, headers=KEY)
    assert (response.status_code, providers.names, NAME in response.text) == (200, ["house"], False)


@STREAMS
def test_standing_consent_lets_the_model_hand_off(stream: bool) -> None:
    providers = Providers({"house": house(ASK)})
    response = ask(served_by(providers, ASKED, STANDING), "chat", stream=stream, headers=GRANTED)
    assert (response.status_code, providers.names) == (200, ["house", "cloud"])
    assert (response.headers["x-gateway-hand-off"], response.headers["x-gateway-attempts"]) == ("asked", "2")


@STREAMS
def test_answer_stays_private_where_no_other_may_answer(stream: bool) -> None:
    """The private model is asked again, without the tool."""
    off: dict[str, Any] = {"deployments": {"cloud": {"enabled": False}}}
    providers = Providers({"house": lambda body: house(ASK if body.get("tools") else ("text", "Own."))(body)})
    response = ask(served_by(providers, ASKED, off), "chat", stream=stream, headers=KEY)
    assert (response.status_code, providers.names) == (200, ["house", "house"])
    assert "x-gateway-hand-off" not in response.headers
