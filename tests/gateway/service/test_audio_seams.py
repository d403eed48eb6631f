"""Audio next to every other feature: what is refused before its body, and what changes while it is uploaded or sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.model.record import Record
from gateway.telemetry.request_log import JsonLines
from providers.testkit.simulated_audio import spoken_file
from tests.kit import crisis_gateway, judged_chats, timed_gateway, token_gateway
from tests.kit.audio import BOUNDARY, transcription_form
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.input_gateway import InputGateway

HEARS, SPEAKS = "/v1/audio/transcriptions", "/v1/audio/speech"
USES = pytest.mark.parametrize("use", ["transcription", "speech"])
OWN = {"provider": "openai-compatible", "model": "m", "stores": "any", "processes": "any"}
BOTH = {"default": ["ears", "spare"]}
AUDIO: dict[str, Any] = {
    "assistants": {"assistant": {"transcription": BOTH, "speech": BOTH}},
    "deployments": {name: {**OWN, "endpoint": f"https://{name}.example/v1"} for name in ("ears", "spare")},
}
CONFIG = Config.parse("""
version: 1
assistants: {}
regions: {default: {territories: ["*"], boundary: ["*"]}, other: {territories: [AQ], boundary: ["*"]}}
deployments: {}
location: {unknown: default}
resilience: {attempts: {per_deployment: 1}}
""").merge(AUDIO)
CLAIM = {"issuer": "https://i.example", "audience": "g", "algorithms": ["HS256"], "secret": "${S}", "age_band": "age"}
SECRET = {"S": "s" * 32}


def patch(band: dict[str, Any], **location: Any) -> dict[str, Any]:
    """Return a patch with this band for users of an unknown age."""
    region = {"age_bands": {"child": band}, "age_missing": "child"}
    return {"regions": {"default": region}, "location": {"signals": ["claim", "api_key"], "claim": CLAIM, **location}}


def heard(request: httpx.Request) -> httpx.Response:
    """Answer as a recogniser and as a voice."""
    if request.url.path == SPEAKS:
        return httpx.Response(200, content=spoken_file("mp3", 1))
    return httpx.Response(200, json={"text": crisis_gateway.SAD, "segments": [], "duration": 1.0})


def body_of(use: str) -> tuple[str, str, bytes]:
    """Return the path, the content type and the body of a request with a sad text."""
    if use == "speech":
        body = {"model": "assistant", "voice": "v", "input": crisis_gateway.SAD}
        return SPEAKS, "application/json", json.dumps(body).encode()
    form = transcription_form(prompt=crisis_gateway.SAD)
    return HEARS, f"multipart/form-data; boundary={BOUNDARY}", form


def ask(gateway: Any, use: str, headers: Any = None, meanwhile: Callable[[], object] = lambda: None) -> httpx.Response:
    """Send a request, of which the second half is sent after `meanwhile`."""
    path, media, body = body_of(use)

    async def halves() -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        meanwhile()
        yield body[len(body) // 2 :]

    async def sent() -> httpx.Response:
        asgi = httpx.ASGITransport(app=gateway.gateway)
        async with httpx.AsyncClient(transport=asgi, base_url="http://gateway") as client:
            answer = await client.post(path, content=halves(), headers={"content-type": media, **(headers or {})})
        gateway.gateway.flush()
        return answer

    return gateway.run(sent()) if hasattr(gateway, "run") else asyncio.run(sent())  # type: ignore[no-any-return]


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]["code"]


HOME = {"cell": {"territory": "DE", "serves": ["other"], "homes": {"default": "https://home.example"}}}
UNREAD = {
    "another cell": (HOME, (421, "wrong_cell")),
    "a blocked territory": ({"location": {"unknown": "refuse"}}, (451, "region_unknown")),
    "a refused band": (patch({"refuse": True}), (403, "age_restricted")),
    "a band without hours": (patch({"hours": "00:00-00:01", "timezone": "Etc/GMT+11"}), (403, "age_restricted")),
    "a band without the use": (patch({"transcription": False, "speech": False}), (403, "age_restricted")),
    "no key": ({"clients": {"app": {"keys": [key_hash("gk-1")]}}}, (401, "invalid_api_key")),
}


@USES
@pytest.mark.parametrize("why", UNREAD)
def test_refusal_that_needs_no_body_comes_before_it(why: str, use: str) -> None:
    more, refusal = UNREAD[why]
    gateway = InputGateway(heard, CONFIG.merge(more), SECRET)
    answer = ask(gateway, use)
    assert (code_of(answer), gateway.requests) == (refusal, [])
    assert answer.headers["connection"] == "close"  # the body was not read
    assert answer.headers.get("location") == ("https://home.example" if answer.status_code == 421 else None)


@USES
@pytest.mark.parametrize("has_use", [False, True])
def test_explain_and_capabilities_know_the_band(has_use: bool, use: str) -> None:
    gateway = InputGateway(heard, CONFIG.merge(patch({use: has_use})), SECRET)
    outcome = gateway.get(f"/v1/explain?use={use}").json()["outcome"]
    assert outcome.get("refusal", {}).get("code") == (None if has_use else "age_restricted")
    assert (gateway.get("/v1/capabilities").json()[use] is not None) is has_use


def only(*names: str) -> dict[str, Any]:
    return {"assistants": {"assistant": {use: {"default": [*names]} for use in ("transcription", "speech")}}}


REQUIRED = {"regions": {"default": {"labels": [{"name": "eu-art50", "audio": "required"}]}}}
KEYED = {"clients": {"app": {"keys": [key_hash("gk-1")], "region": "default"}}}
CHANGES: dict[str, tuple[dict[str, Any], tuple[int, str], list[str]]] = {
    "its deployment is gone": (only("spare"), (200, ""), ["spare.example"]),
    "its use is gone": (
        {"assistants": {"assistant": {"transcription": None, "speech": None, "routes": {"default": ["ears"]}}}},
        (400, "unsupported_capability"),
        [],
    ),
    "its region is that of another cell": (HOME, (421, "wrong_cell"), []),
    "its band has no audio": (patch({"transcription": False, "speech": False}), (403, "age_restricted"), []),
    "its key is another client's": (
        {"clients": {"app": {"keys": [key_hash("gk-2")]}, "new": {"keys": [key_hash("gk-1")], "region": "default"}}},
        (200, ""),
        ["ears.example"],
    ),
    "its key is gone": ({"clients": {"app": {"keys": [key_hash("gk-2")]}}}, (401, "invalid_api_key"), []),
    "its file needs a label": (REQUIRED, (200, ""), ["ears.example"]),
}


@USES
@pytest.mark.parametrize("change", CHANGES)
def test_version_that_becomes_active_during_the_upload_decides(change: str, use: str) -> None:
    more, expected, hosts = CHANGES[change]
    config = CONFIG.merge(KEYED)
    gateway = InputGateway(heard, config)
    after = table_of(config.merge(more), SECRET)
    key = {"authorization": "Bearer gk-1"}
    answer = ask(gateway, use, key, lambda: gateway.gateway.activate(after))
    assert (code_of(answer), [one.url.host for one in gateway.requests]) == (expected, hosts)
    assert gateway.gateway._chat.body_limits._held_bytes == 0


@pytest.mark.parametrize(
    ("use", "more", "code"),
    [
        ("transcription", patch({"transcription": False}), (403, "age_restricted")),
        ("speech", patch({"speech": False}), (403, "age_restricted")),
        ("speech", REQUIRED, (400, "unsupported_capability")),
    ],
)
def test_version_that_becomes_active_between_two_attempts_decides_about_the_second(
    use: str, more: dict[str, Any], code: tuple[int, str]
) -> None:
    def failing(request: httpx.Request) -> httpx.Response:
        gateway.gateway.activate(table_of(CONFIG.merge(more), SECRET))
        return httpx.Response(503, json={})

    gateway = InputGateway(failing, CONFIG)
    if use == "speech":
        body = {"model": "assistant", "voice": "v", "input": "Hello.", "response_format": "pcm"}
        answer = gateway.post(SPEAKS, body)
    else:
        answer = ask(gateway, use)
    assert (code_of(answer), [one.url.host for one in gateway.requests]) == (code, ["ears.example"])


@USES
def test_token_that_expires_during_the_upload_was_valid_when_it_arrived(use: str) -> None:
    config = token_gateway.CONFIG.merge(AUDIO)
    with token_gateway.TokenGateway(config) as gateway:
        gateway.gateway._executor.client._transport = InputGateway(heard, config)._transport
        bearer = {"authorization": f"Bearer {token_gateway.signed(**token_gateway.RESEARCH)}"}

        def expire() -> None:
            gateway.ahead_s = 700.0
            gateway.gateway.activate(gateway.compiled(config.merge({"resilience": {"total": "599s"}})))

        assert code_of(ask(gateway, use, bearer, expire)) == (200, "")
        assert code_of(ask(gateway, use, bearer)) == (401, "invalid_api_key")


@USES
@pytest.mark.parametrize("then", ["stop", "answer"])
def test_crisis_is_judged_in_the_chat_of_a_spoken_round_alone(then: str, use: str, records: list[Record]) -> None:
    class World(crisis_gateway.CrisisWorld):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            return heard(request) if request.url.host == "ears.example" else super().__call__(request)

    world = World()
    gateway = crisis_gateway.served(world, AUDIO, then=then, on_failure="closed")
    answer = ask(gateway, use)
    assert (answer.status_code, world.asked_judges, records[0].help) == (200, [], None)
    assert "x-gateway-crisis" not in answer.headers


@USES
def test_audio_neither_counts_nor_needs_the_time_of_a_user(use: str, tmp_path: Path) -> None:
    def world(request: httpx.Request) -> httpx.Response:
        return heard(request) if request.url.host == "ears.example" else judged_chats.World()(request)

    lists = {"assistant": {"transcription": {"us-ca": ["ears"]}, "speech": {"us-ca": ["ears"]}}}
    gateway = timed_gateway.TimedGateway(tmp_path, world, {**AUDIO, "assistants": lists})  # type: ignore[arg-type]
    child = timed_gateway.headers("child")
    chat = {"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(4):
        answer = ask(gateway, use, child)
        assert (answer.status_code, "x-gateway-use" in answer.headers) == (200, False)
        gateway.wait(20)
    assert gateway.post("/v1/chat/completions", chat, child).headers["x-gateway-use"].startswith("session=0;")
    for _ in range(3):
        gateway.wait(20)
        last = gateway.post("/v1/chat/completions", chat, child)
    assert (last.status_code, ask(gateway, use, child).status_code) == (403, 200)


@USES
def test_log_line_of_a_region_with_transit_names_no_user(use: str, records: list[Record]) -> None:
    config = CONFIG.merge(
        {
            "cell": {"territory": "DE"},
            "regions": {"default": {"boundary": ["US"], "transit": ["DE"]}, "other": {"boundary": ["DE"]}},
            "deployments": {name: {"stores": "US", "processes": "US"} for name in ("ears", "spare")},
            "clients": {"app": {"keys": [key_hash("gk-1")], "region": "default", "may_assert": ["user"]}},
        }
    )
    gateway = InputGateway(heard, config)
    answer = ask(gateway, use, {"authorization": "Bearer gk-1", "x-gateway-user": "bert-away"})
    line = JsonLines().of([(records[0], 0.0)])[0]
    assert (answer.status_code, b"bert-away" in line, b'"audio"' in line or b'"voice"' in line) == (200, False, True)


@USES
def test_canary_of_the_chats_has_no_part_in_audio(use: str, records: list[Record]) -> None:
    routes = {"assistants": {"assistant": {"routes": {"default": [{"ears": 50, "spare": 50}]}}}}
    gateway = InputGateway(heard, CONFIG.merge(routes))
    hosts = {
        ask(gateway, use, {"x-gateway-user": f"user-{number}"}).headers["x-gateway-deployment"] for number in range(4)
    }
    assert (hosts, {one.decided.variant for one in records}) == ({"ears"}, {None})
