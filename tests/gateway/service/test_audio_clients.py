"""The requests that Open WebUI and LibreChat send, byte for byte, and what follows from other features of a region.

The forms are those of `requests` and of the npm package `form-data`, which the two apps use.
"""

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.config.problems import ConfigRejected
from gateway.execution.latency import first_token_timeout_s
from gateway.model.record import Record
from gateway.model.resilience import Resilience
from providers.catalogue.models import ModelFacts
from providers.inputs.audio.values import SpeechRequest, TranscriptionRequest
from providers.testkit.simulated_audio import spoken_file
from tests.kit.audio import silent_wav, transcription_form
from tests.kit.config_cases import compiled
from tests.kit.configs import Config, table_of
from tests.kit.input_gateway import InputGateway

HEARS, SPEAKS = "/v1/audio/transcriptions", "/v1/audio/speech"
CONFIG = Config.beside(__file__)
WEBM = b"\x1aE\xdf\xa3" + bytes(400)
REQUESTS, NPM = "0c5cc6f6a1e9f7b3d2a4c8e0f1b2d3c4", "--------------------------104920318274650918273645"


def _form(boundary: str, *parts: bytes) -> bytes:
    line = b"--" + boundary.encode()
    return b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--\r\n"


_FIELD = b"Content-Disposition: form-data; name="
_MODEL = _FIELD + b'"model"\r\n\r\nassistant'
_LANGUAGE = _FIELD + b'"language"\r\n\r\nen'
_MP3 = _FIELD + b'"file"; filename="1c9b.mp3"\r\n\r\n' + WEBM
_WEBM = _FIELD + b'"file"; filename="audio.webm"\r\nContent-Type: audio/webm\r\n\r\n' + WEBM
CLIENTS = {
    "Open WebUI": (REQUESTS, _form(REQUESTS, _MODEL, _LANGUAGE, _MP3)),
    "LibreChat": (NPM, _form(NPM, _WEBM, _MODEL)),
}


def world(request: httpx.Request) -> httpx.Response:
    if request.url.host == "mouth.example":
        form = json.loads(request.content)["response_format"]
        return httpx.Response(200, content=spoken_file(form, 1))
    return httpx.Response(200, json={"text": "Hello.", "duration": 1.0, "segments": []})


@pytest.mark.parametrize("client", CLIENTS)
def test_form_of_an_app_is_written_down(client: str) -> None:
    boundary, form = CLIENTS[client]
    gateway = InputGateway(world, CONFIG)
    answer = gateway.post_form(HEARS, form, {"content-type": f"multipart/form-data; boundary={boundary}"})
    assert (answer.status_code, answer.json()["text"]) == (200, "Hello.")
    (sent,) = gateway.requests
    assert b'filename="audio.webm"' in sent.content  # by its bytes, whatever Open WebUI calls it


@pytest.mark.parametrize(
    ("asked", "dropped"),
    [({"voice": "alloy"}, None), ({"voice": "anna", "backend": ""}, "backend")],
    ids=["Open WebUI", "LibreChat"],
)
def test_request_of_an_app_is_spoken_as_mp3(asked: dict[str, str], dropped: str | None) -> None:
    gateway = InputGateway(world, CONFIG)
    answer = gateway.post(SPEAKS, {"model": "assistant", "input": "Hello.", **asked})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
    assert answer.headers.get("x-gateway-dropped") == dropped
    assert gateway.bodies[0]["voice"] == {"anna": "af_heart", "alloy": "af_bella"}[asked["voice"]]


# --- seams ----------------------------------------------------------------------------------------


def ask(config: Config, use: str, headers: Any = None, environ: Any = None) -> tuple[InputGateway, httpx.Response]:
    gateway = InputGateway(world, config, environ)
    if use == "speech":
        return gateway, gateway.post(SPEAKS, {"model": "assistant", "input": "Hello.", "voice": "anna"}, headers)
    return gateway, gateway.post_form(HEARS, transcription_form(), headers)


@pytest.mark.parametrize("use", ["transcription", "speech"])
@pytest.mark.parametrize("member", [{"hand_off": {"when": ["failure"]}}, [{"ears": "50%"}, {"mouth": "50%"}]])
def test_list_of_audio_has_neither_barriers_nor_weights(use: str, member: Any) -> None:
    with pytest.raises(ConfigRejected):
        table_of(CONFIG.merge({"assistants": {"assistant": {use: {"default": ["ears", member, "mouth"]}}}}))


@pytest.mark.parametrize("use", ["transcription", "speech"])
def test_audio_has_neither_shadow_nor_hand_off(use: str, records: list[Record]) -> None:
    shadow = {"assistants": {"assistant": {"shadow": {"default": {"deployment": "mouth", "share": "100%"}}}}}
    gateway, answer = ask(CONFIG.merge(shadow), use)
    assert (answer.status_code, len(gateway.requests)) == (200, 1)
    assert records[0].decided.hand_off is None


@pytest.mark.parametrize("use", ["transcription", "speech"])
def test_upgrade_to_a_websocket_has_no_effect_on_audio(use: str) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    _, answer = ask(CONFIG, use, upgrade)
    assert answer.status_code == 200


@pytest.mark.parametrize("use", ["transcription", "speech"])
def test_band_of_unknown_users_may_have_one_use_or_none(use: str) -> None:
    issuer = {"issuer": "https://i.example", "audience": "g", "algorithms": ["HS256"], "secret": "${S}"}
    signals = {"signals": ["claim", "api_key"], "claim": {**issuer, "age_band": "age"}}
    for rule, status in (({use: False}, 403), ({}, 200)):
        region = {"age_bands": {"child": rule}, "age_missing": "child"}
        config = CONFIG.merge({"regions": {"default": region}, "location": signals})
        gateway, answer = ask(config, use, environ={"S": "s" * 32})
        assert (answer.status_code, len(gateway.requests)) == (status, status == 200)


def test_first_answer_of_a_transcription_is_awaited_for_the_length_of_its_audio_too() -> None:
    bounds = Resilience(first_token_s=20.0, commit_s=25.0)
    deployment: Any = SimpleNamespace(first_token_s=None, target=SimpleNamespace(facts=ModelFacts()))

    def request(seconds: float) -> TranscriptionRequest:
        return TranscriptionRequest("m", memoryview(silent_wav(seconds)), "wav")

    assert first_token_timeout_s(deployment, request(3), bounds) == 23
    assert first_token_timeout_s(deployment, request(30), bounds) == 25
    deployment.first_token_s = 2.0
    assert first_token_timeout_s(deployment, request(3), bounds) == 5
    assert first_token_timeout_s(deployment, SpeechRequest("m", "a" * 4096, "v"), bounds) == 2


@pytest.mark.parametrize(("voices", "is_warned"), [({"anna": "x", "*": "y"}, False), ({"tom": "x"}, True), ({}, True)])
def test_failover_that_changes_the_voice_is_warned_of(voices: dict[str, str], is_warned: bool) -> None:
    spare = {"provider": "openai-compatible", "model": "s", "endpoint": "https://spare.example/v1", "stores": "any"}
    more = {"processes": "any", **({"voices": voices} if voices else {})}
    lists = {"assistants": {"assistant": {"speech": {"default": ["mouth", "spare"]}}}}
    config = CONFIG.merge({"deployments": {"spare": {**spare, **more}}}, lists)
    assert any("changes the voice" in it.message for it in compiled(config.text, {}).warnings) is is_warned
