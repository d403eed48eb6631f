"""`POST /v1/audio/transcriptions` and `/v1/audio/translations`: forms, formats, streams, vendors, and what leaves."""

import asyncio
import gzip
import hashlib
import json
from typing import Any

import httpx
import pytest

from gateway.api.inputs.audio import TranscriptionDialect
from gateway.config.input_routes import _MOST_BODY_BYTES
from gateway.config.problems import ConfigRejected
from gateway.model.caller import RequestHeaders
from gateway.model.record import Record
from gateway.telemetry.request_log import JsonLines
from providers.inputs.audio.form import PIECE_BYTES, boundary_of, parse_form
from providers.inputs.audio.values import Transcript, with_members
from providers.testkit.simulated_audio import SAMPLE_TEXT, sample
from tests.kit.audio import BOUNDARY, form_of, silent_wav, simulated_audio, transcription_form
from tests.kit.chat_http import error_of, events_of
from tests.kit.config_cases import compiled
from tests.kit.configs import Config, table_of
from tests.kit.input_gateway import InputGateway

PATH = "/v1/audio/transcriptions"
CONFIG = Config.parse("""
version: 1
assistants:
  assistant:
    transcription: {default: [house, spare]}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  house: {provider: openai-compatible, model: w, endpoint: "https://house.example/v1", stores: any, processes: any}
  spare: {provider: openai-compatible, model: w, endpoint: "https://spare.example/v1", stores: any, processes: any}
location: {unknown: default}
""")
SEGMENTS = [
    {"id": 0, "start": 0.0, "end": 1.5, "text": " Hello,", "emotion": "happy"},
    {"id": 1, "start": 3661.25, "end": 3662.0, "text": "world. -->", "speaker": "A"},
]
HEARD: dict[str, Any] = {
    "text": "Hello, world.",
    "language": "english",
    "duration": 1.0,
    "segments": SEGMENTS,
    "emotion": "happy",
    "usage": {"type": "duration", "seconds": 1.0},
}


def heard(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=HEARD)


@pytest.fixture
def gateway() -> InputGateway:
    return InputGateway(heard, CONFIG)


def sent_to(request: httpx.Request) -> dict[str, bytes]:
    """Return the parts of the form that a provider received, in their order."""
    boundary = boundary_of(request.headers["content-type"])
    return {part.name: bytes(part.data) for part in parse_form(request.content, boundary)}


async def test_large_form_leaves_as_it_is_and_a_broken_one_holds_up_no_other() -> None:
    gateway, file = InputGateway(heard, CONFIG), silent_wav() + hashlib.shake_256(b"").digest(2_000_000)
    form, media = transcription_form(file), {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    broken = await gateway._send("POST", PATH, None, media, form[:-4])
    assert error_of(broken)[:2] == (400, "invalid_request")
    for more, content in (({}, form), ({"content-encoding": "gzip"}, gzip.compress(form))):
        response = await gateway._send("POST", PATH, None, {**media, **more}, content)
        assert response.status_code == 200, response.text
        assert sent_to(gateway.requests[-1])["file"] == file
    assert gateway.gateway._chat.body_limits._held_bytes == 0


async def test_other_requests_run_while_a_large_form_is_parsed() -> None:
    dialect = TranscriptionDialect()
    media = f"multipart/form-data; boundary={BOUNDARY}".encode()
    dialect.read_head(RequestHeaders({b"content-type": media}, 0, None, ""))
    parsing = asyncio.ensure_future(dialect.read_large(transcription_form(bytes(4 * PIECE_BYTES))))
    turns = 0
    while not parsing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 4


def test_what_leaves_is_a_new_form_with_the_model_first_and_the_file_last(gateway: InputGateway) -> None:
    response = gateway.post_form(PATH, transcription_form(language="en-US", prompt="about cars", temperature="0"))
    assert response.status_code == 200
    (request,) = gateway.requests
    sent = sent_to(request)
    assert list(sent) == ["model", "language", "prompt", "temperature", "response_format", "file"]
    assert (sent["model"], sent["language"], sent["response_format"]) == (b"w", b"en", b"verbose_json")
    assert sent["file"] == silent_wav()
    assert b"secret name" not in request.content
    assert b'filename="audio.wav"' in request.content
    assert int(request.headers["content-length"]) == len(request.content)


def test_answer_keeps_known_members_and_no_guess_of_emotion(gateway: InputGateway) -> None:
    body = gateway.post_form(PATH, transcription_form()).json()
    assert body == {"text": "Hello, world.", "usage": {"type": "duration", "seconds": 1.0}}
    verbose = gateway.post_form(PATH, transcription_form(response_format="verbose_json")).json()
    assert (verbose["language"], verbose["duration"], verbose["task"]) == ("english", 1.0, "transcribe")
    assert [one["text"] for one in verbose["segments"]] == [" Hello,", "world. -->"]
    assert "emotion" not in json.dumps(verbose)


STRICT = {
    "text": "Hi.",
    "languages": ["en", {"code": "fr"}, {"name": "x"}],
    "segments": [{"id": 7, "seek": 9, "tokens": [1], "text": "Hi.", "speaker": "B"}, {"id": None, "seek": "0", "tokens": None}],
    "words": [{"word": "Hi.", "start": 0, "end": 1}],
}  # fmt: skip


def test_segments_have_the_members_that_strict_decoders_need() -> None:
    gateway = InputGateway(lambda _: httpx.Response(200, json=STRICT), CONFIG)
    verbose = gateway.post_form(PATH, transcription_form(response_format="verbose_json")).json()
    assert [(one["id"], one["seek"], one["tokens"]) for one in verbose["segments"]] == [(7, 9, [1]), (1, 0, [])]
    assert verbose["languages"] == [{"code": "en"}, {"code": "fr"}]
    kept = with_members(Transcript("Hi.", segments=tuple(STRICT["segments"])), "diarized_json").segments  # type: ignore[arg-type]
    assert [(one["id"], one["type"]) for one in kept or ()] == [("7", "transcript.text.segment"), ("seg_1", "transcript.text.segment")]  # fmt: skip


def test_times_of_words_alone_need_no_segments() -> None:
    gateway = InputGateway(lambda _: httpx.Response(200, json=STRICT | {"segments": None}), CONFIG)
    word, segment = {"timestamp_granularities[]": "word"}, {"timestamp_granularities": "segment"}
    for fields, status in ((word, 200), (segment, 502), ({}, 502)):
        response = gateway.post_form(PATH, transcription_form(response_format="verbose_json", **fields))
        assert response.status_code == status, fields
        assert status != 200 or response.json()["words"] == STRICT["words"]


SRT = "1\n00:00:00,000 --> 00:00:01,500\nHello,\n\n2\n01:01:01,250 --> 01:01:02,000\nworld. ->\n\n"
VTT = "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello,\n\n01:01:01.250 --> 01:01:02.000\nworld. ->\n"


@pytest.mark.parametrize(("form", "text"), [("text", "Hello, world.\n"), ("srt", SRT), ("vtt", VTT)])
def test_subtitles_and_text_are_written_here(gateway: InputGateway, form: str, text: str) -> None:
    response = gateway.post_form(PATH, transcription_form(response_format=form))
    assert (response.text, response.headers["content-type"]) == (text, "text/plain; charset=utf-8")
    assert response.headers["x-gateway-emulated"] == "response_format"


ODD = b"""{"text": "Hi \\ud83d", "duration": 1.0, "logprobs": [NaN, {"emotion": "sad"}], "words": [{"word": "\\udc00"}],
 "segments": [{"start": 1e308, "end": 1%b, "text": "Hi.", "id": 1%b}, {"end": {"emotion": "sad"}}, null]}"""


@pytest.mark.parametrize(
    "fields", [{}, {"response_format": "srt"}, {"response_format": "verbose_json"}, {"stream": "true"}]
)
def test_values_that_no_writer_of_json_takes_are_no_internal_error(fields: dict[str, str]) -> None:
    gateway = InputGateway(lambda _: httpx.Response(200, content=ODD % (b"0" * 400, b"0" * 30)), CONFIG)
    response = gateway.post_form(PATH, transcription_form(**fields))
    assert (response.status_code, "internal_error" in response.text) == (200, False), response.text
    assert "emotion" not in response.text
    if "stream" not in fields and "srt" not in fields.values():
        assert response.json()["text"] == "Hi \ufffd"


def test_halves_of_a_character_in_two_events_are_joined() -> None:
    halves = [f'{{"type":"transcript.text.delta","delta":"\\u{half}"}}' for half in ("d83d", "de00")]
    gateway = InputGateway(streamed(*halves, '{"type":"transcript.text.done"}'), CONFIG)
    events = events_of(gateway.post_form(PATH, transcription_form(stream="true")))
    assert [one.get("delta", one.get("text")) for one in events[:-1]] == ["\U0001f600"] * 2


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data"])
def test_body_that_is_no_form_is_refused(gateway: InputGateway, content_type: str) -> None:
    response = gateway.post_form(PATH, transcription_form(), {"content-type": content_type})
    assert error_of(response) == (415, "unsupported_media_type", None)
    assert gateway.requests == []


def test_unknown_fields_and_those_that_a_step_lacks_are_dropped_and_named(gateway: InputGateway) -> None:
    response = gateway.post_form(PATH, transcription_form(**{"keywords[]": "word", "my_field": "1"}))
    assert response.headers["x-gateway-dropped"] == "keywords, my_field"
    assert "my_field" not in sent_to(gateway.requests[0])


LIMITED = CONFIG.merge({"deployments": {"house": {"audio_bytes": 100}}})


def test_step_that_does_not_take_the_size_is_skipped_and_the_largest_is_named() -> None:
    gateway = InputGateway(heard, LIMITED)
    assert gateway.post_form(PATH, transcription_form()).headers["x-gateway-deployment"] == "spare"
    only = LIMITED.merge({"assistants": {"assistant": {"transcription": {"default": ["house"]}}}})
    gateway = InputGateway(heard, only)
    assert error_of(gateway.post_form(PATH, transcription_form())) == (413, "request_too_large", "file")


@pytest.mark.parametrize(
    ("fields", "file", "param"),
    [
        ({"response_format": "diarized_json"}, silent_wav(), "response_format"),
        ({}, b"#!AMR\n" + bytes(100), "file"),
        (
            {"response_format": "verbose_json", "timestamp_granularities[]": "word"},
            silent_wav(),
            "timestamp_granularities",
        ),
    ],
)
def test_what_no_step_has_is_refused_by_name(fields: dict[str, str], file: bytes, param: str) -> None:
    config = CONFIG.merge({"deployments": {name: {"provider": "vllm"} for name in ("house", "spare")}})
    gateway = InputGateway(heard, config)
    response = gateway.post_form(PATH, transcription_form(file, **fields))
    assert error_of(response) == (400, "unsupported_capability", param)
    assert gateway.requests == []


def test_translation_that_no_step_makes_is_named_as_one() -> None:
    vendor = "{provider: siliconflow, endpoint: intl, model: FunAudioLLM/SenseVoiceSmall, api_key: k-11111111}"
    gateway = InputGateway(heard, CONFIG.merge(f"deployments: {{house: {vendor}, spare: {vendor}}}"))
    response = gateway.post_form("/v1/audio/translations", transcription_form())
    assert error_of(response) == (400, "unsupported_capability", "model")
    assert "translates audio: ask for a transcription" in response.text
    assert gateway.requests == []


def test_refused_file_goes_to_the_next_step_and_is_no_failure() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "house.example":
            return httpx.Response(415, json={"error": {"message": "unsupported media"}})
        return heard(request)

    gateway = InputGateway(answer, CONFIG)
    response = gateway.post_form(PATH, transcription_form())
    assert (response.status_code, response.headers["x-gateway-deployment"]) == (200, "spare")
    assert sent_to(gateway.requests[0])["file"] == sent_to(gateway.requests[1])["file"]


def test_log_names_no_part_that_the_client_made_up(records: list[Record]) -> None:
    for parts in ([("nightjar", b"a", "b")], [("nightjar", b"\xff", None)]):
        response = InputGateway(heard, CONFIG).post_form(PATH, form_of([*parts, ("file", silent_wav(), "a")]))
        assert error_of(response) == (400, "invalid_request", "nightjar")
    assert not any("nightjar" in JsonLines().of([(one, 0.0)])[0].decode() for one in records)


def test_log_line_has_numbers_and_no_words(
    gateway: InputGateway, records: list[Record], capfd: pytest.CaptureFixture[str]
) -> None:
    gateway.post_form(PATH, transcription_form(prompt="a secret prompt"))
    line = json.loads(JsonLines().of([(records[0], 0.0)])[0])
    assert line["audio"] == {"bytes": 32_044, "format": "wav", "seconds": "1.000"}
    assert (line["use"], line["task"], line["audio_seconds"]) == ("transcription", "transcribe", "1.000")
    seen = json.dumps(line) + "".join(capfd.readouterr())
    assert not any(word in seen for word in ("secret", "Hello"))


def test_translation_is_asked_at_its_own_path_without_a_language(gateway: InputGateway) -> None:
    response = gateway.post_form("/v1/audio/translations", transcription_form(language="de"))
    assert (response.status_code, response.headers["x-gateway-dropped"]) == (200, "language")
    assert gateway.requests[0].url.path == "/v1/audio/translations"


# --- streams --------------------------------------------------------------------------------------


def streamed(*events: str) -> Any:
    body = "".join(f"data: {event}\n\n" for event in events)
    return lambda _: httpx.Response(200, headers={"content-type": "text/event-stream"}, text=body)


DELTAS = ('{"type":"transcript.text.delta","delta":"Hello,"}', '{"type":"transcript.text.delta","delta":" world."}')
CHUNK = '{{"object":"transcription.chunk","choices":[{{"delta":{{"content":"{}"}},"finish_reason":"stop"}}]}}'
FORMS = {
    "typed": (
        *DELTAS,
        '{"type":"transcript.text.done","text":"Hello, world.","usage":{"type":"duration","seconds":1}}',
    ),
    "chunks": (CHUNK.format("Hello,"), CHUNK.format(" world."), "[DONE]"),
    "named": (
        '{"type":"transcription.text.delta","text":"Hello,"}',
        '{"type":"transcription.done","text":"Hello, world.","usage":{"prompt_audio_seconds":1}}',
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_events_becomes_deltas_and_one_done(form: str) -> None:
    gateway = InputGateway(streamed(*FORMS[form]), CONFIG)
    events = events_of(gateway.post_form(PATH, transcription_form(stream="true")))
    assert events[-1] == "[DONE]"
    assert "".join(one["delta"] for one in events[:-2]) == events[-2]["text"] == "Hello, world."
    assert "usage" not in events[-2]  # the type of this event has tokens alone
    assert sent_to(gateway.requests[0])["stream"] == b"true"


def test_tokens_are_the_usage_of_the_last_event() -> None:
    counted = '{"type":"transcript.text.done","text":"Hi","usage":{"type":"tokens","input_tokens":9,"output_tokens":2}}'
    events = events_of(InputGateway(streamed(counted), CONFIG).post_form(PATH, transcription_form(stream="true")))
    assert (events[-2]["usage"]["type"], events[-2]["usage"]["total_tokens"]) == ("tokens", 11)


def test_whole_answer_is_one_delta_and_one_done() -> None:
    events = events_of(InputGateway(heard, CONFIG).post_form(PATH, transcription_form(stream="true")))
    assert [one["type"] for one in events[:-1]] == ["transcript.text.delta", "transcript.text.done"]


def test_nothing_follows_the_first_end() -> None:
    gateway = InputGateway(streamed(*FORMS["typed"], *FORMS["typed"]), CONFIG)
    events = events_of(gateway.post_form(PATH, transcription_form(stream="true")))
    kinds = [one["type"].rpartition(".")[2] for one in events[:-1]]
    assert (kinds, events[-1]) == (["delta", "delta", "done"], "[DONE]")


@pytest.mark.parametrize("end", [DELTAS, (CHUNK.format("Hello"),)])
def test_stream_without_the_end_of_its_vendor_is_an_error(end: tuple[str, ...]) -> None:
    events = events_of(InputGateway(streamed(*end), CONFIG).post_form(PATH, transcription_form(stream="true")))
    assert events[-1]["error"]["code"] == "stream_interrupted"
    assert "transcript.text.done" not in json.dumps(events)


def test_stream_that_is_broken_at_once_has_a_status() -> None:
    response = InputGateway(streamed(DELTAS[0], "{broken"), CONFIG).post_form(PATH, transcription_form(stream="true"))
    assert error_of(response) == (502, "provider_error", None)


# --- vendors --------------------------------------------------------------------------------------

VENDORS = [
    ("openai", "gpt-transcribe", "/v1"),
    ("openai", "whisper-1", "/v1"),
    ("openai", "gpt-4o-transcribe-diarize", "/v1"),
    ("azure", "gpt-4o-transcribe", "/openai/v1"),
    ("azure", "whisper-1", "/openai"),
    ("groq", "whisper-large-v3", "/openai/v1"),
    ("mistral", "voxtral-mini-latest", "/v1"),
    ("siliconflow", "FunAudioLLM/SenseVoiceSmall", "/v1"),
    ("dashscope", "qwen3-asr-flash", "/api/v1"),
    ("vllm", "openai/whisper-large-v3", "/v1"),
    ("openai-compatible", "whisper", "/v1"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("provider", "model", "base"), VENDORS)
def test_each_vendor_is_asked_in_its_form(provider: str, model: str, base: str, stream: bool) -> None:
    one = {"provider": provider, "model": model, "endpoint": f"https://house.example{base}", "api_key": "k-12345678"}
    config = CONFIG.merge({"deployments": {"house": {**one, "stores": "any", "processes": "any"}}})
    gateway = InputGateway(simulated_audio(provider), config)
    fields = {"stream": "true"} if stream else {}
    response = gateway.post_form(PATH, transcription_form(sample(), language="en", **fields))
    assert response.status_code == 200, response.text
    url, is_older_azure = gateway.requests[0].url, base == "/openai"
    assert url.params.get("api-version") == ("2024-10-21" if is_older_azure else None)
    assert ("/openai/deployments/whisper-1/" in url.path) is is_older_azure
    assert response.headers["x-gateway-deployment"] == "house"
    assert "emotion" not in response.text
    assert (events_of(response)[-2] if stream else response.json())["text"] == SAMPLE_TEXT


# --- configuration --------------------------------------------------------------------------------


def test_deployment_of_a_provider_without_the_use_is_refused() -> None:
    entry = {"provider": "anthropic", "model": "m", "endpoint": "https://house.example", "api_key": "k"}
    with pytest.raises(ConfigRejected, match="writes no audio down"):
        table_of(CONFIG.merge({"deployments": {"house": entry}}))


@pytest.mark.parametrize(("size", "is_warned"), [(_MOST_BODY_BYTES, False), (_MOST_BODY_BYTES + 1, True)])
def test_file_that_no_body_can_have_is_warned_of(size: int, is_warned: bool) -> None:
    config = CONFIG.merge({"deployments": {"house": {"audio_bytes": size}}})
    assert any("of a body" in it.message for it in compiled(config.text, {}).warnings) is is_warned


def test_capabilities_and_models_show_both_uses(gateway: InputGateway) -> None:
    shown = gateway.get("/v1/capabilities").json()
    assert shown["transcription"]["response_formats"] == ["json", "srt", "text", "verbose_json", "vtt"]
    assert (shown["transcription"]["max_bytes"], shown["speech"]) == (25_000_000, None)
    assert gateway.get("/v1/models").json()["data"][0]["x_gateway"]["serves"] == ["transcription"]


def test_form_without_a_file_is_refused_before_any_provider(gateway: InputGateway) -> None:
    refused = gateway.post_form(PATH, form_of([("model", b"assistant", None)]))
    assert error_of(refused) == (400, "invalid_request", "file")
    assert error_of(gateway.post_form(PATH, b"--a-boundary\r\nbroken"))[:2] == (400, "invalid_request")
    assert gateway.requests == []


@pytest.mark.parametrize(("limits", "is_warned"), [({"tpm": 100}, True), ({"tpm": 100, "rpm": 5}, False), ({}, False)])
def test_client_whose_only_limit_is_of_tokens_is_warned_of(limits: dict[str, int], is_warned: bool) -> None:
    client = {"keys": [f"sha256:{'0' * 64}"], **({"limits": limits} if limits else {})}
    warnings = compiled(CONFIG.merge({"clients": {"app": client}}).text, {}).warnings
    assert any("transcriptions have no limit" in it.message for it in warnings) is is_warned
