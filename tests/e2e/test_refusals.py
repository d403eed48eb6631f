"""Requests that are refused before the body is parsed: raw requests, and the answer to each."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

import pytest

from providers.testkit.server import SimulatorThread
from tests.kit.gateway_process import APP_KEY, BACKEND_KEY, GatewayProcess

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}).encode()
KEY = f"authorization: Bearer {APP_KEY}".encode()
JSON = b"content-type: application/json"
PLACE = b"cf-ipcountry: DE"
LIMIT_S = 90


@dataclass(frozen=True)
class Answer:
    """A response, as read from the connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        return json.loads(self.body)["error"]["code"] if self.body else None


def request(
    method: str = "POST", path: str = CHAT, *headers: bytes, body: bytes = BODY, length: int | None = None
) -> bytes:
    """Return a request with only these headers, a host and a length."""
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1"), b"host: gateway", *headers]
    lines.append(b"content-length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def valid_request(*headers: bytes, path: str = CHAT, method: str = "POST", length: int | None = None) -> bytes:
    """Return a valid request except for these parts."""
    return request(method, path, KEY, JSON, PLACE, *headers, length=length)


def answer_of(gateway: GatewayProcess, data: bytes) -> Answer:
    """Return the answer to these bytes."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            headers: dict[str, str] = {}
            while line := stream.readline().strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip()] = value.strip()
            has_body = not data.startswith(b"HEAD ")
            body = stream.read(int(headers.get("content-length", 0))) if has_body else b""
    return Answer(status, headers, body)


OK, BAD = (200, None), (400, "invalid_request")
NO_KEY, NO_LEAVE = (401, "invalid_api_key"), (403, "permission_denied")
NOT_FOUND, NOT_ALLOWED = (404, "not_found"), (405, "method_not_allowed")
SLOW, LARGE, MEDIA, HEADERS = (
    (408, "request_timeout"),
    (413, "request_too_large"),
    (415, "unsupported_media_type"),
    (431, "headers_too_large"),
)

CASES: dict[str, tuple[bytes, tuple[int, str | None]]] = {
    "a good one": (valid_request(), OK),
    # The key.
    "no key": (request("POST", CHAT, JSON, PLACE), NO_KEY),
    "unknown key": (request("POST", CHAT, JSON, PLACE, b"authorization: Bearer gk-nobody"), NO_KEY),
    "another scheme": (request("POST", CHAT, JSON, PLACE, b"authorization: Basic Z2stYXBwOg=="), NO_KEY),
    "no scheme": (request("POST", CHAT, JSON, PLACE, b"authorization: gk-app"), NO_KEY),
    "a scheme and no key": (request("POST", CHAT, JSON, PLACE, b"authorization: Bearer "), NO_KEY),
    "x-api-key": (request("POST", CHAT, JSON, PLACE, b"x-api-key: gk-app"), OK),
    "an empty x-api-key": (request("POST", CHAT, JSON, PLACE, b"x-api-key:"), NO_KEY),
    "an empty x-api-key with a key": (valid_request(b"x-api-key: "), OK),
    "the same key twice": (valid_request(b"x-api-key: gk-app"), OK),
    "two keys": (valid_request(b"x-api-key: " + BACKEND_KEY.encode()), NO_KEY),
    "two keys of one header": (valid_request(b"authorization: Bearer " + BACKEND_KEY.encode()), NO_KEY),
    "a key in Latin-1": (request("POST", CHAT, JSON, PLACE, b"authorization: Bearer gk-\xe9"), NO_KEY),
    "a key in UTF-8": (request("POST", CHAT, JSON, PLACE, "authorization: Bearer gk-密".encode()), NO_KEY),
    "a key in the query": (valid_request(path=CHAT + "?api_key=gk-app"), NO_KEY),
    "a key in the query, dressed": (valid_request(path=CHAT + "?a=1&API%5FKEY="), NO_KEY),
    "another query": (valid_request(path=CHAT + "?api-version=2026-01-01"), OK),
    # The body, from its headers.
    "no content type": (request("POST", CHAT, KEY, PLACE), MEDIA),
    "another content type": (request("POST", CHAT, KEY, PLACE, b"content-type: text/plain"), MEDIA),
    "a form": (request("POST", CHAT, KEY, PLACE, b"content-type: multipart/form-data; boundary=a"), MEDIA),
    "almost JSON": (request("POST", CHAT, KEY, PLACE, b"content-type: application/jsonl"), MEDIA),
    "a charset": (request("POST", CHAT, KEY, PLACE, b"content-type: Application/JSON; charset=utf-8"), OK),
    "two content types": (valid_request(b"content-type: text/plain"), MEDIA),
    "two content types in one": (request("POST", CHAT, KEY, PLACE, JSON + b", text/plain"), MEDIA),
    "br": (valid_request(b"content-encoding: br"), MEDIA),
    "gzip after br": (valid_request(b"content-encoding: br", b"content-encoding: gzip"), MEDIA),
    "gzip that is none": (valid_request(b"content-encoding: gzip"), BAD),
    "zstd that is none, after identity": (valid_request(b"content-encoding: identity", b"content-encoding: zstd"), BAD),
    "identity": (valid_request(b"content-encoding: identity"), OK),
    "32 MB": (valid_request(length=33_554_433), LARGE),
    "a length beyond all numbers": (valid_request(length=10**30), BAD),
    "two lengths": (valid_request(b"content-length: 3"), BAD),
    "a body that does not come": (valid_request(b"x-gateway-timeout-ms: 300", length=5000), SLOW),
    "a time that is none": (valid_request(b"x-gateway-timeout-ms: 1e3"), BAD),
    "a body of nothing": (request("POST", CHAT, KEY, JSON, PLACE, body=b""), BAD),
    # The headers themselves; further ones are in `tests/gateway/server/test_http_protocol.py`.
    "a large header": (valid_request(b"x-large: " + b"a" * 70_000), HEADERS),
    "headers without end": (valid_request(*[b"x-%d: a" % number for number in range(20_000)]), HEADERS),
    "no HTTP": (b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n", BAD),
    "an upgrade": (valid_request(b"connection: upgrade", b"upgrade: h2c"), OK),
    "an expectation": (valid_request(b"expect: tea"), OK),
    # The path.
    "two slashes": (valid_request(path="/" + CHAT), NOT_FOUND),
    "two slashes within": (valid_request(path="/v1//chat/completions"), NOT_FOUND),
    "a trailing slash": (valid_request(path=CHAT + "/"), NOT_FOUND),
    "a parameter of the path": (valid_request(path=CHAT + ";x"), NOT_FOUND),
    "dots": (valid_request(path="/v1/../v1/chat/completions"), NOT_FOUND),
    "dots, dressed": (valid_request(path="/v1/%2e%2e/v1/chat/completions"), NOT_FOUND),
    "another case": (valid_request(path="/V1/Chat/Completions"), NOT_FOUND),
    "a null": (valid_request(path=CHAT + "%00"), NOT_FOUND),
    "a wrong escape": (valid_request(path=CHAT + "%zz"), NOT_FOUND),
    "no UTF-8": (valid_request(path="/%ff%fe"), NOT_FOUND),
    "an unknown path": (valid_request(path="/v1/nothing"), NOT_FOUND),
    "an unknown model": (request("GET", "/v1/models/none", KEY, PLACE, body=b""), (404, "model_not_found")),
    "a key in the query of models": (request("GET", "/v1/models?api_key=x", KEY, PLACE, body=b""), NO_KEY),
    "without v1": (valid_request(path="/chat/completions"), NOT_FOUND),
    "the root": (valid_request(path="/"), NOT_FOUND),
    "a letter, escaped": (valid_request(path="/v1/chat/%63ompletions"), OK),
    "a whole URL": (valid_request(path="http://elsewhere.example" + CHAT), OK),
    "no path": (valid_request(path="v1"), BAD),
    "bytes beyond ASCII": (valid_request(path="/é"), BAD),
    # The method.
    **{
        f"{method} chat": (request(method, CHAT, KEY, body=b""), NOT_ALLOWED)
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
    },
    "HEAD chat": (request("HEAD", CHAT, KEY, body=b""), (405, None)),
    "GET chat with a body": (valid_request(method="GET"), NOT_ALLOWED),
    "DELETE models": (request("DELETE", "/v1/models", KEY, body=b""), NOT_ALLOWED),
    "POST models": (valid_request(path="/v1/models"), NOT_ALLOWED),
    "OPTIONS models": (request("OPTIONS", "/v1/models", body=b""), NOT_ALLOWED),
    "HEAD healthz": (request("HEAD", "/healthz", body=b""), OK),
    "HEAD readyz": (request("HEAD", "/readyz", body=b""), OK),
    "GET healthz with a body": (request("GET", "/healthz"), OK),
}
ALLOWED = {"models": "GET", "chat": "POST"}


@pytest.mark.parametrize("name", CASES)
def test_refused_request_gets_its_status_and_code(
    gateway: GatewayProcess, providers: SimulatorThread, name: str
) -> None:
    data, (status, code) = CASES[name]
    before = {site: providers[site].received for site in ("eu", "eu2", "us", "cn")}
    answer = answer_of(gateway, data)
    assert (answer.status, answer.code if status != 200 else None) == (status, code), answer.body
    if status == 405:
        assert answer.headers["allow"] == next(ALLOWED[word] for word in name.split() if word in ALLOWED)
    if status >= 400:
        assert {site: providers[site].received for site in before} == before
        if answer.body:
            error = json.loads(answer.body)["error"]
            for_users = {"user_message", "user_message_language"}
            assert set(error) - for_users == {"message", "type", "param", "code", "reason"}
            assert not error.keys() & for_users or for_users <= error.keys()
            assert error["type"] == ("authentication_error" if status == 401 else "invalid_request_error")
            assert answer.headers["content-type"] == "application/json"
        assert "gk-" not in answer.body.decode().replace("`Bearer KEY`", "")


def test_each_refusal_of_the_application_has_a_request_id(gateway: GatewayProcess) -> None:
    """The same holds for a refusal of the HTTP server, which the application does not see."""
    of_application = ("no key", "no content type", "32 MB", "two slashes", "GET chat", "POST models")
    for name in (*of_application, "a large header", "headers without end", "two lengths", "no HTTP"):
        assert answer_of(gateway, CASES[name][0]).headers["x-request-id"], name


def test_connection_is_reused_after_a_refusal_without_unread_bytes(gateway: GatewayProcess) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=LIMIT_S) as connection,
        connection.makefile("rb") as stream,
    ):
        names = ("two slashes", "POST models", "GET chat with a body", "no key", "no content type", "a body of nothing")
        for name in (*names, "a good one"):
            data, (status, _) = CASES[name]
            connection.sendall(data)
            assert int(stream.readline().split()[1]) == status, name
            length = 0
            while line := stream.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            stream.read(length)
