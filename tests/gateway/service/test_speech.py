"""`POST /v1/audio/speech`: formats, events, voices, failures, and the labels of speech."""

import hashlib
import json
import struct
from base64 import b64decode
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.features.marks.policy import check_mark, signer_of_pem
from gateway.inputs import audio
from gateway.inputs.audio import AudioNote
from gateway.model.age import AgeBand
from gateway.model.record import Record
from gateway.model.refusal_reason import STATUS
from gateway.policy.location.age import refuse_use_of_age
from gateway.telemetry.request_log import JsonLines
from providers.inputs.audio.decode import MOST_VOICE_CHARACTERS
from providers.inputs.audio.values import SpeechRequest
from providers.testkit.simulated_audio import _ogg_page, spoken_file
from tests.kit.audio import simulated_audio
from tests.kit.chat_http import error_of, events_of
from tests.kit.configs import Config
from tests.kit.doc_pages import ROOT
from tests.kit.gateway_command import in_this_process
from tests.kit.input_gateway import InputGateway

PATH = "/v1/audio/speech"
CONFIG = Config.beside(__file__)
ASKED = {"model": "assistant", "voice": "anna", "input": "Hello, this is said."}
ONLY_HOUSE = {"assistants": {"assistant": {"speech": {"default": ["house"]}}}}


def house_alone(**vendor: str) -> Config:
    """Return a configuration whose only step of speech is a model of this vendor."""
    stated = {"api_key": "k-12345678", "stores": "any", "processes": "any"}
    return CONFIG.merge(ONLY_HOUSE, {"deployments": {"house": {**vendor, **stated}}})


def speaking(request: httpx.Request) -> httpx.Response:
    """Return a valid file of the format that is asked for."""
    form = json.loads(request.content)["response_format"]
    return httpx.Response(200, headers={"content-type": "application/octet-stream"}, content=spoken_file(form, 1))


TYPES = {"mp3": "audio/mpeg", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav"}


@pytest.mark.parametrize("form", [*TYPES, "pcm", None])
def test_each_format_comes_as_it_is_and_mp3_where_none_is_asked_for(form: str | None) -> None:
    gateway = InputGateway(speaking, CONFIG)
    response = gateway.post(PATH, {**ASKED, **({"response_format": form} if form else {})})
    assert response.headers["content-type"] == TYPES.get(form or "mp3", "audio/pcm")
    assert response.content == spoken_file(form or "mp3", 1)
    spoken = {"model": "kokoro", "input": ASKED["input"], "voice": "af_heart"}
    assert gateway.bodies == [{**spoken, "response_format": form or "mp3"}]


def test_unknown_voice_goes_to_the_step_that_has_every_other_name() -> None:
    gateway = InputGateway(speaking, CONFIG)
    response = gateway.post(PATH, {**ASKED, "voice": "alloy"})
    assert (response.headers["x-gateway-deployment"], gateway.bodies[0]["voice"]) == ("spare", "af_bella")
    refused = InputGateway(speaking, CONFIG.merge(ONLY_HOUSE)).post(PATH, {**ASKED, "voice": "alloy"})
    assert error_of(refused) == (400, "unsupported_capability", "voice")
    assert "anna, tom" in refused.json()["error"]["message"]


def test_text_that_is_too_long_is_never_cut() -> None:
    gateway = InputGateway(speaking, CONFIG)
    assert gateway.post(PATH, {**ASKED, "input": "x" * 4096}).status_code == 200
    assert error_of(gateway.post(PATH, {**ASKED, "input": "x" * 4097})) == (400, "unsupported_capability", "input")


def test_events_have_the_file_in_pieces_and_its_usage() -> None:
    gateway = InputGateway(speaking, CONFIG)
    events = events_of(gateway.post(PATH, {**ASKED, "stream_format": "sse"}))
    assert b"".join(b64decode(one["audio"]) for one in events[:-1]) == spoken_file("mp3", 1)
    done = events[-1]
    assert done["type"] == "speech.audio.done"
    assert done["x_gateway"]["characters"] == len(ASKED["input"])
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"] > 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"detail": "no"}),
        httpx.Response(200, headers={"content-type": "text/html"}, text="<html>"),
        httpx.Response(200, content=b""),
        httpx.Response(200, headers={"content-type": "audio/mpeg"}, content=spoken_file("wav", 1)),
        httpx.Response(500, json={}),
    ],
    ids=["json", "html", "empty", "other kind", "error"],
)
def test_answer_that_is_no_audio_goes_to_the_next_step(answer: httpx.Response) -> None:
    def served(request: httpx.Request) -> httpx.Response:
        if request.url.host == "spare.example":
            return speaking(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    response = InputGateway(served, CONFIG).post(PATH, ASKED)
    assert (response.status_code, response.headers["x-gateway-deployment"]) == (200, "spare")
    assert response.content == spoken_file("mp3", 1)


@pytest.mark.parametrize("form", ["wav", "pcm"])
@pytest.mark.parametrize(
    ("provider", "model", "base"), [("dashscope", "qwen3-tts-flash", "/api/v1"), ("groq", "tts", "/v1")]
)
def test_wav_and_pcm_are_made_of_each_other(provider: str, model: str, base: str, form: str) -> None:
    config = house_alone(provider=provider, model=model, endpoint=f"https://house.example{base}")
    response = InputGateway(simulated_audio(provider), config).post(PATH, {**ASKED, "response_format": form})
    if (provider, form) == ("groq", "pcm"):  # its rate is not known
        assert error_of(response) == (400, "unsupported_capability", "response_format")
        return
    samples = spoken_file("pcm", len(ASKED["input"]) / 15)
    assert response.content[-len(samples) :] == samples
    assert (response.content[:4] == b"RIFF") == (form == "wav")


@pytest.mark.parametrize("form", [None, "mp3", "aac"])
def test_error_of_a_format_states_what_to_send(form: str | None) -> None:
    """The first request of an SDK has no `response_format`, which means `mp3`."""
    config = house_alone(provider="dashscope", model="qwen3-tts-flash", endpoint="https://house.example/api/v1")
    response = InputGateway(speaking, config).post(PATH, {**ASKED, **({"response_format": form} if form else {})})
    said = "is aac" if form == "aac" else "is not sent, or is mp3"
    message = f"`response_format` {said}, which no deployment of this region has: send one of pcm, wav"
    assert response.json()["error"]["message"] == message
    assert error_of(response) == (400, "unsupported_capability", "response_format")


@pytest.mark.parametrize("begin", [b"{", b" <", b"\n{"])
@pytest.mark.parametrize("media", ["audio/pcm", "application/json"])
def test_samples_may_begin_like_a_text(begin: bytes, media: str) -> None:
    samples = begin + bytes(3) + bytes(range(256)) * 4
    answer = httpx.Response(200, headers={"content-type": media}, content=samples)
    response = InputGateway(lambda _: answer, CONFIG).post(PATH, {**ASKED, "response_format": "pcm"})
    assert response.status_code == (200 if media == "audio/pcm" else 502)
    assert (response.content == samples) is (media == "audio/pcm")


@pytest.mark.parametrize(("size", "status"), [(MOST_VOICE_CHARACTERS, 200), (MOST_VOICE_CHARACTERS + 1, 400)])
def test_name_of_a_voice_is_bounded(size: int, status: int) -> None:
    response = InputGateway(speaking, CONFIG).post(PATH, {**ASKED, "voice": "v" * size})
    assert response.status_code == status


def test_log_line_has_characters_and_the_name_of_the_voice(records: list[Record]) -> None:
    InputGateway(speaking, CONFIG).post(PATH, ASKED)
    line = json.loads(JsonLines().of([(records[0], 0.0)])[0])
    assert (line["use"], line["characters"], line["voice"]) == ("speech", 20, "anna")
    assert "Hello" not in json.dumps(line)


# --- labels ---------------------------------------------------------------------------------------

REQUIRED = {"regions": {"default": {"labels": [{"name": "eu-art50", "audio": "required"}]}}}
LABELLED = CONFIG.merge(
    {"regions": {"default": {"labels": [{"name": "cn-gb45438", "producer": "0011123456789012345X00000"}, "eu-art50"]}}}
)


def labels_of(response: httpx.Response) -> Any:
    return json.loads(b64decode(response.headers["x-gateway-label-data"]))


@pytest.mark.parametrize("form", ["mp3", "wav", "opus", "flac", "aac"])
def test_labels_stand_in_headers_and_in_the_file(form: str) -> None:
    in_file = form != "aac"
    response = InputGateway(speaking, LABELLED).post(PATH, {**ASKED, "response_format": form})
    assert response.headers["x-gateway-labels"] == "cn-gb45438, eu-art50"
    labels = labels_of(response)
    assert [one["in_file"] for one in labels] == [in_file, in_file]
    assert [one["in_content"] for one in labels] == [False, False]
    assert (b'"ContentProducer":"0011123456789012345X00000"' in response.content) == in_file
    assert (b'"label":"eu-art50"' in response.content) == in_file
    assert labels[0]["AIGC"]["ReservedCode1"] == ""


def test_required_place_makes_other_formats_unknown() -> None:
    gateway = InputGateway(speaking, LABELLED.merge(REQUIRED))
    assert gateway.post(PATH, {**ASKED, "response_format": "flac"}).status_code == 200
    refused = gateway.post(PATH, {**ASKED, "response_format": "pcm"})
    assert error_of(refused) == (400, "unsupported_capability", "response_format")


ODD = b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff" + bytes(200)
"""A file whose form never comes, so that it has no place."""


def full_page() -> bytes:
    """Return Opus whose comments fill their page."""
    whole, comments = spoken_file("opus", 0.1), 255 * 255 - 17
    second, third = (whole.index(b"OggS", at) for at in (1, whole.index(b"OpusTags")))
    page = _ogg_page([b"OpusTags" + struct.pack("<I", comments) + bytes(comments + 4)], 1, 0, 0)
    return whole[:second] + page + whole[third:]


@pytest.mark.parametrize(("form", "odd"), [("wav", ODD), ("opus", full_page())])
def test_head_states_whether_the_file_had_a_place_and_a_required_one_is_found_at_the_next_step(
    form: str, odd: bytes
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=odd if request.url.host == "house.example" else spoken_file(form, 0.1))

    asked = {**ASKED, "response_format": form}
    response = InputGateway(answer, LABELLED).post(PATH, asked)
    assert response.content == odd
    assert [one["in_file"] for one in labels_of(response)] == [False, False]
    response = InputGateway(answer, LABELLED.merge(REQUIRED)).post(PATH, asked)
    assert b'"label":"eu-art50"' in response.content
    assert [one["in_file"] for one in labels_of(response)] == [True]
    alone = LABELLED.merge(REQUIRED, ONLY_HOUSE)
    assert error_of(InputGateway(answer, alone).post(PATH, asked))[:2] == (502, "provider_error")


def test_last_event_states_whether_the_file_had_a_place() -> None:
    for content, in_file in ((ODD, False), (spoken_file("wav", 0.1), True)):
        gateway = InputGateway(lambda _, content=content: httpx.Response(200, content=content), LABELLED)  # type: ignore[misc]
        events = events_of(gateway.post(PATH, {**ASKED, "response_format": "wav", "stream_format": "sse"}))
        assert [one["in_file"] for one in events[-1]["x_gateway"]["labels"]] == [in_file, in_file]


def test_label_that_is_not_for_files_stands_in_headers_alone() -> None:
    config = LABELLED.merge({"regions": {"default": {"labels": [{"name": "eu-art50", "audio": "none"}]}}})
    response = InputGateway(speaking, config).post(PATH, ASKED)
    assert response.content == spoken_file("mp3", 1)
    assert hashlib.sha256(response.content).hexdigest()


@pytest.mark.parametrize(("most", "is_sent"), [(8192, True), (8191, False)])
def test_data_of_labels_is_in_a_header_up_to_a_bound(most: int, is_sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    size = audio._MOST_LABEL_DATA  # a multiple of 4, as every base64 has
    assert size == 8192
    monkeypatch.setattr(audio, "_MOST_LABEL_DATA", most)
    note = AudioNote(SpeechRequest("m", "a", "v"))
    note.labels = [{"name": "x" * (size // 4 * 3 - len('[{"name":""}]'))}]
    assert bool([*note.header_lines()]) is is_sent


def test_signed_mark_is_over_the_bytes_as_sent(tmp_path: Path) -> None:
    vectors = json.loads((ROOT / "tests/fixtures/marks/vectors.json").read_text("utf-8"))
    key = signer_of_pem(vectors["private_key"]).public
    config = CONFIG.merge(
        {
            "marks": {"issuer": vectors["issuer"], "key": "${MARK_KEY}"},
            "regions": {"default": {"labels": [{"name": "eu-art50", "mark": "signed"}]}},
        }
    )
    gateway = InputGateway(speaking, config, {"MARK_KEY": vectors["private_key"]})
    events = events_of(gateway.post(PATH, {**ASKED, "stream_format": "sse"}))
    sent = b"".join(b64decode(one["audio"]) for one in events[:-1])
    (label,) = events[-1]["x_gateway"]["labels"]
    check = {"mark": label["marks"][0], "sha256": hashlib.sha256(sent).hexdigest()}
    assert b'"label":"eu-art50"' in sent
    assert gateway.post("/v1/marks/verify", check).json()["content"] == "same"
    (tmp_path / "keys").write_bytes(gateway.get("/.well-known/ai-marks.json").content)
    (tmp_path / "mark").write_text(label["marks"][0])
    for number, data in enumerate((sent, sent + b"x")):
        (tmp_path / "audio").write_bytes(data)
        given = {name: str(tmp_path / name) for name in ("keys", "mark", "audio")} | {"issuer": vectors["issuer"]}
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        assert in_this_process("marks", "verify", *words).returncode == number
    assert check_mark(label["marks"][0], None, vectors["issuer"], [key], "0" * 64).content == "different"


@pytest.mark.parametrize(("rule", "status"), [({"speech": False}, 403), ({"transcription": False}, 200)])
def test_band_may_have_no_speech(rule: dict[str, bool], status: int) -> None:
    refusal = refuse_use_of_age(AgeBand("child", **rule), "speech")  # type: ignore[arg-type]  # one of two switches
    assert (STATUS[refusal.code] if refusal is not None else 200) == status
