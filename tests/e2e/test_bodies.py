"""Invalid request bodies on the real server: each error names the problem, its field and the fix."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.api.body import MAX_BODY_BYTES
from gateway.api.body_room import MAX_BODIES_BYTES, SMALL_BODY_BYTES
from providers.openai_json.decode_request import MAX_MESSAGES
from providers.testkit.server import SimulatorThread
from tests.kit.case_files import cases
from tests.kit.chat_http import CHAT
from tests.kit.gateway_process import APP_KEY, BACKEND_KEY, GatewayProcess
from tests.kit.waiting import eventually

HEADERS = {"cf-ipcountry": "DE", "content-type": "application/json"}
HI = {"role": "user", "content": "hi"}
HELLO: dict[str, Any] = {"model": "assistant", "messages": [HI]}
PIXEL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
DEEP_64 = b'{"a":' * 63 + b"{}" + b"}" * 63


def chat(**fields: Any) -> bytes:
    return json.dumps({**HELLO, **fields}).encode()


def with_part(part: object) -> bytes:
    parts = [{"type": "text", "text": "look"}, part]
    return chat(messages=[HI, HI, HI, {"role": "user", "content": parts}])


WRONG: dict[str, tuple[bytes, str | None, tuple[str, ...]]] = {
    # name: body, param, words of the message
    "empty": (b"", None, ("the body is empty; send a JSON object",)),
    "blank": (b"  \n", None, ("not valid JSON: input data is empty",)),
    "no JSON": (b"hello", None, ("not valid JSON", "line 1, column 1")),
    "cut off": (chat()[:-3], None, ("not valid JSON", "unexpected end")),
    "a comma too many": (b'{"model": "assistant",\n "messages": [],}', None, ("trailing comma", "line 2, column 16")),
    "single quotes": (b"{'model': 'assistant'}", None, ("line 1, column 2",)),
    "two documents": (chat() + chat(), None, ("not valid JSON", f"column {len(chat()) + 1}")),
    "a line break in a string": (b'{"model": "a\nb"}', None, ("control character", "line 1, column 13")),
    "BOM": (b"\xef\xbb\xbf" + chat(), None, ("byte order mark", "line 1, column 1")),
    "UTF-16": (json.dumps(HELLO).encode("utf-16"), None, ("not valid UTF-8: byte 1 (0xff)",)),
    "Latin-1": ('{"model": "é"}'.encode("latin-1"), None, ("not valid UTF-8: byte 12 (0xe9)",)),
    "a raw lone surrogate": (b'{"model": "\xed\xa0\x80"}', None, ("not valid UTF-8: byte 12 (0xed)",)),
    "an escaped lone surrogate": (b'{"model": "\\ud800"}', None, ("surrogate", "line 1")),
    "half a surrogate pair after another": (b'{"model": "\\ud83d\\ud83d"}', None, ("surrogate", "line 1")),
    "NaN": (b'{"temperature": NaN}', None, ("line 1, column 17",)),
    "Infinity": (b'{"temperature": -Infinity}', None, ("line 1, column 1",)),
    "1e999": (b'{"temperature": 1e999}', None, ("number is infinity", "line 1, column 17")),
    "400 digits": (b'{"seed": ' + b"9" * 400 + b"}", None, ("number is infinity", "line 1, column 10")),
    "30 digits": (b'{"model": "assistant", "messages": [], "seed": ' + b"9" * 30 + b"}", "seed", ("between",)),
    "a name twice": (chat()[:-1] + b', "model": "gpt-4o"}', "model", ("duplicate name `model`: send each name once",)),
    "a name twice, far inside": (
        chat(tools=[])[:-3] + b'[{"function": {"parameters": {"type": "a", "type": "a"}}}]}',
        "tools[0].function.parameters.type",
        ("duplicate name `",),
    ),
    "a name of any words twice": (chat()[:-1] + b', "a b": 1, "a\\u0020b": 2}', None, ("has a duplicate name",)),
    "an array": (b"[]", None, ("must be a JSON object, not an array",)),
    "a string": (b'"hello"', None, ("must be a JSON object, not a string",)),
    "null": (b"null", None, ("must be a JSON object, not null",)),
    "65 levels": (b'{"a":' + DEEP_64 + b"}", None, ("nested deeper than 64 levels",)),
    "2,000 levels": (b"[" * 2000 + b"]" * 2000, None, ("nested deeper than 64 levels",)),
    "no model": (b'{"messages": []}', "model", ("`model` is required: the name of an assistant",)),
    "a model of another type": (chat(model=["assistant"]), "model", ("must be a string, not an array",)),
    "no messages": (b'{"model": "assistant"}', "messages", ("`messages` is required",)),
    "empty messages": (chat(messages=[]), "messages", ("must not be empty",)),
    "too many messages": (chat(messages=[HI] * (MAX_MESSAGES + 1)), "messages", ("2049 entries; at most 2048",)),
    "an odd message": (chat(messages=[HI, "hi"]), "messages[1]", ("must be an object, not a string",)),
    "an odd role": (chat(messages=[{"role": "bot", "content": "a"}]), "messages[0].role", ("'system', 'developer'",)),
    "an odd part": (with_part({"type": "video_url"}), "messages[3].content[1].type", ("'image_url'",)),
    "an odd URL": (
        with_part({"type": "image_url", "image_url": {"url": 5}}),
        "messages[3].content[1].image_url.url",
        ("must be a string, not a number",),
    ),
    "a URL inside": (
        with_part({"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}),
        "messages[3].content[1].image_url.url",
        ("private or special address",),
    ),
    "a boolean for a number": (chat(temperature=True), "temperature", ("must be a number, not a boolean",)),
    "a boolean for a whole number": (chat(max_tokens=True), "max_tokens", ("must be a whole number, not a boolean",)),
    "a number for a boolean": (chat(stream=1), "stream", ("must be a boolean, not a number",)),
    "a fraction": (chat(n=1.5), "n", ("must be a whole number",)),
    "out of bounds": (chat(temperature=2.5), "temperature", ("between 0 and 2",)),
    "a string for a number": (chat(seed="7"), "seed", ("must be a whole number, not a string",)),
    "an unknown word": (chat(reasoning_effort="huge"), "reasoning_effort", ("'none', 'minimal'",)),
    "a result of no call": (
        chat(messages=[HI, {"role": "tool", "tool_call_id": "a", "content": "ok"}]),
        "messages[1].tool_call_id",
        ("answers no open call",),
    ),
    "a tool without a name": (
        chat(tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name",
        ("1 to 128 letters",),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "param", "words"), WRONG.values(), ids=WRONG.keys())
def test_invalid_body_gets_a_clear_error(
    client: httpx.Client, providers: SimulatorThread, content: bytes, param: str | None, words: tuple[str, ...]
) -> None:
    before = providers["eu"].received
    response = client.post(CHAT, content=content, headers=HEADERS)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (400, "invalid_request", "invalid_request_error")
    assert error["param"] == param
    for word in words:
        assert word in error["message"]
    assert len(error["message"]) < 300
    assert "connection" not in response.headers
    assert providers["eu"].received == before


RIGHT = {
    "64 levels": b'{"model": "assistant", "messages": [{"role": "user", "content": "hi"}], "x": '
    + DEEP_64[5:-1]
    + b"}",
    "all messages": chat(messages=[HI] * MAX_MESSAGES),
    "a pair of surrogates": b'{"model": "assistant", "messages": [{"role": "user", "content": "\\ud83d\\ude00"}]}',
    "null for what is optional": chat(
        **dict.fromkeys(["temperature", "n", "stop", "tools", "tool_choice", "stream", "stream_options", "user", "x"])
    ),
    "white space": b"\n\t " + chat() + b" \r\n",
    "what looks like a name twice": chat(messages=[{"role": "user", "content": '{"a": 1, "a": 2} \\\\": "a":'}]),
    "a whole number as a fraction": chat(max_tokens=50.0),
    "a large image": with_part(PIXEL | {"image_url": {"url": "data:image/png;base64," + "A" * 5_000_000}}),
}


@pytest.mark.parametrize("content", RIGHT.values(), ids=RIGHT.keys())
def test_body_at_a_limit_is_accepted(client: httpx.Client, content: bytes) -> None:
    response = client.post(CHAT, content=content, headers=HEADERS)
    assert response.status_code == 200, response.text


@cases("name", "hint")
def test_unknown_model_error_names_the_nearest_assistants(client: httpx.Client, name: str, hint: str) -> None:
    response = client.post(CHAT, content=chat(model=name), headers=HEADERS)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert error["message"] == f"the assistant {name!r} does not exist for this key; {hint}"


# --- too large ------------------------------------------------------------------------------------


@pytest.fixture
def connect(gateway: GatewayProcess) -> Iterator[Callable[[], socket.socket]]:
    address = urlsplit(gateway.url)
    with ExitStack() as stack:

        def open_one() -> socket.socket:
            return stack.enter_context(closing(socket.create_connection((address.hostname, address.port), timeout=30)))

        yield open_one


def head(**more: str) -> bytes:
    fields = {"Host": "gateway", "Authorization": f"Bearer {APP_KEY}", "CF-IPCountry": "DE"}
    fields |= {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in more.items()}
    lines = [f"POST {CHAT} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the status and the error of the next response."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        length = 0
        while (line := file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
        return status, json.loads(file.read(length))["error"]


def test_declared_length_over_the_limit_is_refused_before_the_body_is_read(
    connect: Callable[[], socket.socket],
) -> None:
    connection = connect()
    connection.sendall(head(Content_Length=str(MAX_BODY_BYTES + 1)))
    status, error = answer_of(connection)
    assert (status, error["code"]) == (413, "request_too_large")
    assert str(MAX_BODY_BYTES) in error["message"]


def test_chunked_body_over_the_limit_is_refused(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(head(Transfer_Encoding="chunked"))
    piece = b"%x\r\n%b\r\n" % (2**20, b" " * 2**20)
    for _ in range(MAX_BODY_BYTES // 2**20 + 1):
        connection.sendall(piece)
    status, error = answer_of(connection)
    assert (status, error["code"]) == (413, "request_too_large")


def test_length_counted_in_characters_is_reported_as_truncated_json(connect: Callable[[], socket.socket]) -> None:
    text = json.dumps({**HELLO, "messages": [{"role": "user", "content": "你好"}]}, ensure_ascii=False)
    connection = connect()
    connection.sendall(head(Content_Length=str(len(text))) + text.encode())
    status, error = answer_of(connection)
    assert (status, error["code"]) == (400, "invalid_request")
    assert "not valid JSON" in error["message"]
    assert connection.recv(1) == b""


def test_client_that_fills_the_memory_with_halves_makes_room_for_another(fresh: httpx.Client) -> None:
    address = urlsplit(str(fresh.base_url))
    large = chat(messages=[{"role": "user", "content": "a" * (SMALL_BODY_BYTES + 1)}])
    other = HEADERS | {"authorization": f"Bearer {BACKEND_KEY}"}
    with ExitStack() as held:
        opened = [
            held.enter_context(closing(socket.create_connection((address.hostname, address.port))))
            for _ in range(MAX_BODIES_BYTES // MAX_BODY_BYTES - 1)
        ]
        for connection in opened:
            connection.sendall(head(Content_Length=str(MAX_BODY_BYTES)) + b" ")

        def refused() -> list[socket.socket]:
            # The own small body and the large one of another client need no patience.
            assert fresh.post(CHAT, content=chat(), headers=HEADERS).status_code == 200
            assert fresh.post(CHAT, content=large, headers=other, timeout=5).status_code == 200
            return select.select(opened, [], [], 0)[0]

        eventually(refused)
        (connection,) = refused()
        status, error = answer_of(connection)
        assert (status, error["code"]) == (503, "overloaded")
