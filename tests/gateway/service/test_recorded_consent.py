"""The consent in the record of a request: for every use, and also if another version or a later step answers."""

from typing import Any

import httpx
import pytest

from gateway.model.record import Record
from providers.testkit.simulated_audio import spoken_file
from tests.kit.audio import transcription_form
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.input_gateway import InputGateway, vectors_of

USES = ("chat", "embeddings", "moderations", "transcription", "speech")
ROUTES: dict[str, Any] = {"routes" if use == "chat" else use: {"default": ["away", "home"]} for use in USES}
OWN = {"provider": "openai-compatible", "model": "m", "stores": "any", "processes": "any"}
STANDING = {"mode": "standing", "recipient": "Away"}
CONFIG = Config(
    {
        "version": 1,
        "assistants": {"assistant": ROUTES},
        "regions": {"default": {"territories": ["*"], "boundary": ["*"]}},
        "deployments": {
            "away": {**OWN, "endpoint": "https://away.example/v1", "consent": STANDING},
            "home": {**OWN, "endpoint": "https://home.example/v1"},
        },
        "clients": {"app": {"keys": [key_hash("gk-1")], "may_assert": ["consent"]}},
        "location": {"unknown": "default"},
        "resilience": {"attempts": {"per_deployment": 1}},
    }
)
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    "embeddings": ("/v1/embeddings", {"input": "hi"}),
    "moderations": ("/v1/moderations", {"input": "hi"}),
    "speech": ("/v1/audio/speech", {"input": "hi", "voice": "v"}),
}
AGREED = {"authorization": "Bearer gk-1", "x-gateway-consent": "granted"}


def answer(request: httpx.Request) -> httpx.Response:
    match request.url.path.rpartition("/")[2]:
        case "embeddings":
            return httpx.Response(200, json=vectors_of(request))
        case "moderations":
            return httpx.Response(200, json={"results": [{"flagged": False, "categories": {}}]})
        case "transcriptions":
            return httpx.Response(200, json={"text": "hi", "duration": 1.0})
        case "speech":
            return httpx.Response(200, content=spoken_file("mp3", 1))
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return httpx.Response(200, json={"id": "a", "created": 1, "model": "m", "choices": [choice]})


@pytest.mark.parametrize("case", ["answers", "fails", "fails at a reload"])
@pytest.mark.parametrize("use", USES)
def test_consent_by_which_a_prompt_was_sent_is_recorded(use: str, case: str, records: list[Record]) -> None:
    def provider(request: httpx.Request) -> httpx.Response:
        if request.url.host == "home.example" or case == "answers":
            return answer(request)
        if case == "fails at a reload":
            gateway.gateway.activate(table_of(CONFIG.merge({"resilience": {"total": "50s"}})))
        return httpx.Response(503, json={})

    gateway = InputGateway(provider, CONFIG)
    if use == "transcription":
        got = gateway.post_form("/v1/audio/transcriptions", transcription_form(), AGREED)
    else:
        path, body = ASKED[use]
        got = gateway.post(path, {"model": "assistant", **body}, AGREED)
    assert (got.status_code, records[0].consent) == (200, "standing:assertion")


def test_consent_that_was_not_used_is_not_recorded(records: list[Record]) -> None:
    first_home = {"assistants": {"assistant": {"routes": {"default": ["home", "away"]}}}}
    gateway = InputGateway(answer, CONFIG.merge(first_home))
    path, body = ASKED["chat"]
    assert gateway.post(path, {"model": "assistant", **body}, AGREED).status_code == 200
    assert records[0].consent is None
