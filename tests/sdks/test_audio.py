"""OpenAI's client for Python and curl, unchanged, against a gateway with simulated recognisers and speakers."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.testkit.scenario import Cut, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulated_audio import SAMPLE_TEXT, sample, spoken_file
from providers.testkit.simulator import load_simulators
from tests.kit.gateway_process import APP_KEY, config_of_one_region, running_gateway

openai = pytest.importorskip("openai", reason="make install-dev installs the client")
pytestmark = [pytest.mark.slow("starts a gateway"), pytest.mark.filterwarnings("ignore")]

MARK = "a spoken word and a file name of nobody"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audio")


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatorServer]:
    vendor = SimulatorServer(load_simulators().simulators["openai-compatible"], "openai-compatible")
    with SimulatorThread({"it": vendor}):
        yield vendor


@pytest.fixture(scope="module")
def url(server: SimulatorServer, place: Path) -> Iterator[str]:
    def own(name: str, **more: Any) -> dict[str, Any]:
        origin = f"{server.origin}/v1"
        return {
            "provider": "openai-compatible",
            "model": name,
            "endpoint": origin,
            "stores": "CN",
            "processes": "CN",
            **more,
        }

    config = config_of_one_region(
        {"ears": own("whisper"), "mouth": own("kokoro", voices={"anna": "af_heart"})},
        {
            "regions": {"world": {"territories": ["CN"], "boundary": ["CN"], "labels": ["eu-art50"]}},
            "assistants": {"ears": None, "mouth": None,
                           "assistant": {"transcription": {"world": ["ears"]}, "speech": {"world": ["mouth"]}}},
        },
    )  # fmt: skip
    with running_gateway(config.write(place), {"KEY": "a key"}) as gateway:
        yield gateway.url


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(api_key=APP_KEY, base_url=f"{url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / f"{MARK}.wav"
    path.write_bytes(sample())
    return path


def test_each_format_of_a_transcription(client: Any, recording: Path) -> None:
    def heard(form: str, **more: Any) -> Any:
        with recording.open("rb") as file:
            return client.audio.transcriptions.create(model="assistant", file=file, response_format=form, **more)

    assert heard("json").text == SAMPLE_TEXT
    assert heard("text").strip() == SAMPLE_TEXT
    assert heard("srt").startswith("1\n00:00:00,000 --> 00:00:01,000\n")
    assert heard("vtt").startswith("WEBVTT\n\n00:00:00.000")
    verbose = heard("verbose_json", timestamp_granularities=["word", "segment"])
    assert ([one.word for one in verbose.words], verbose.segments[0].end) == (["Hello", "world."], 1.0)


def test_stream_and_translation(client: Any, recording: Path) -> None:
    with recording.open("rb") as file:
        events = list(client.audio.transcriptions.create(model="assistant", file=file, stream=True))
    assert "".join(one.delta for one in events[:-1]) == events[-1].text == SAMPLE_TEXT
    with recording.open("rb") as file:
        assert client.audio.translations.create(model="assistant", file=file).text == SAMPLE_TEXT


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_speech_in_each_format(client: Any, form: str) -> None:
    answer = client.audio.speech.create(model="assistant", voice="anna", input="Hello world.", response_format=form)
    untagged = spoken_file(form, len("Hello world.") / 15)
    assert answer.read().endswith(untagged[-20:])
    with client.audio.speech.with_streaming_response.create(
        model="assistant", voice="anna", input="Hello world.", response_format=form
    ) as stream:
        assert b"".join(stream.iter_bytes()).endswith(untagged[-20:])


def test_mutagen_reads_the_labels(client: Any, tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen")
    for form in ("mp3", "flac", "opus"):
        answer = client.audio.speech.create(model="assistant", voice="anna", input="Hello.", response_format=form)
        path = tmp_path / f"speech.{form}"
        path.write_bytes(answer.read())
        tags = mutagen.File(path).tags
        found = tags.getall("TXXX:ai-label")[0].text[0] if form == "mp3" else tags["AIGC"][0]
        assert json.loads(found)["label"] == "eu-art50"


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("form", ["mp3", "opus", "flac", "wav"])
def test_decoded_audio_is_that_of_the_vendor(client: Any, tmp_path: Path, form: str) -> None:
    def decoded(data: bytes) -> bytes:
        path = tmp_path / "file"
        path.write_bytes(data)
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-"]
        return subprocess.run(command, capture_output=True, check=True).stdout

    answer = client.audio.speech.create(model="assistant", voice="anna", input="Hello world.", response_format=form)
    assert decoded(answer.read()) == decoded(spoken_file(form, len("Hello world.") / 15))


def test_answer_that_breaks_off_never_looks_whole(client: Any, server: SimulatorServer) -> None:
    server.scenario = Scenario(faults=((Cut(), 1.0),))
    try:
        with pytest.raises(openai.APIConnectionError):
            client.audio.speech.create(
                model="assistant", voice="anna", input="Hello. " * 300, response_format="wav"
            ).read()
    finally:
        server.scenario = Scenario()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_with_the_file_first(url: str, recording: Path) -> None:
    command = ["curl", "-s", f"{url}/v1/audio/transcriptions", "-H", f"authorization: Bearer {APP_KEY}"]
    form = ["-F", f"file=@{recording}", "-F", "model=assistant"]
    done = subprocess.run([*command, *form], capture_output=True, check=True, env={"PATH": os.environ["PATH"]})
    assert json.loads(done.stdout)["text"] == SAMPLE_TEXT


def test_no_spoken_word_and_no_file_name_is_kept(place: Path) -> None:
    kept = [path for path in place.rglob("*") if path.is_file()]
    assert kept
    for path in kept:
        data = path.read_bytes()
        assert MARK.encode() not in data, path
        assert SAMPLE_TEXT.encode() not in data, path
