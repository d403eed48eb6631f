"""Audio in a region with moderation, redaction, consent or age bands: what is judged, skipped, asked and refused."""

import json
from typing import Any

import httpx
import pytest

from gateway.api.inputs.audio import TranscriptEncoder
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import Finished, TextDelta
from providers.testkit.simulated_audio import spoken_file
from tests.kit.audio import form_of, silent_wav, transcription_form
from tests.kit.configs import Config
from tests.kit.input_gateway import PERSONAL, InputGateway
from tests.kit.judged_chats import CONFIG, HARM, World, events_of

HEARS, SPEAKS = "/v1/audio/transcriptions", "/v1/audio/speech"
OWN = {"provider": "openai-compatible", "model": "m", "stores": "any", "processes": "any"}
AUDIO: dict[str, Any] = {
    "assistants": {"assistant": {"transcription": {"default": ["ears"]}, "speech": {"default": ["mouth"]}}},
    "deployments": {
        "ears": {**OWN, "endpoint": "https://ears.example/v1"},
        "mouth": {**OWN, "endpoint": "https://mouth.example/v1"},
    },
    "cell": {"territory": "DE"},
}


class Heard(World):
    """A recogniser that always returns the same, a speaker, and the judges of a region."""

    def __init__(self, text: str = "Hello, world.") -> None:
        super().__init__()
        self.text = text
        self.parts: dict[str, Any] = {}
        self.hosts: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host not in ("ears.example", "mouth.example"):
            return super().__call__(request)
        self.hosts.append(request.url.host)
        if request.url.host == "mouth.example":
            return httpx.Response(200, content=spoken_file("mp3", 1))
        segments = [{"start": 0, "end": 1, "text": self.text}]
        return httpx.Response(200, json={"text": self.text, "segments": segments, **self.parts})


def served(world: World, *patches: dict[str, Any]) -> InputGateway:
    return InputGateway(world, CONFIG.merge(AUDIO, *patches))


def test_transcript_that_passes_is_released_and_judged(records: list[Record]) -> None:
    response = served(Heard()).post_form(HEARS, transcription_form())
    assert response.json()["text"] == "Hello, world."
    moderation = records[0].moderation
    assert moderation.fields()["output"] == "passed"


@pytest.mark.parametrize("lists", [(["judge"], ["judge"]), (["judge"], ["judge", "spare"]), ([], ["spare"])])
@pytest.mark.parametrize("fields", [{}, {"response_format": "verbose_json"}, {"stream": "true"}])
def test_no_deployment_judges_a_transcript_twice(fields: dict[str, str], lists: tuple[list[str], list[str]]) -> None:
    world, (of_input, of_output) = Heard(), lists
    rules = {"regions": {"default": {"moderation": {"input": of_input, "output": of_output}}}}
    assert served(world, rules).post_form(HEARS, transcription_form(**fields)).status_code == 200
    assert world.judged == ["Hello, world."]


@pytest.mark.parametrize("form", ["json", "text", "srt"])
def test_flagged_transcript_is_not_returned(form: str) -> None:
    response = served(Heard(f"about {HARM}")).post_form(HEARS, transcription_form(response_format=form))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "content_filter")
    assert HARM not in response.text


PARTS: list[tuple[str, dict[str, Any]]] = [
    ("json", {"language": HARM}),
    ("json", {"languages": ["en", HARM]}),
    ("json", {"logprobs": [{"token": HARM, "logprob": -0.1}]}),
    ("json", {"logprobs": [{"token": HARM[:9], "logprob": -0.1}, {"token": HARM[9:], "logprob": -0.1}]}),
    ("verbose_json", {"words": [{"word": HARM, "start": 0, "end": 1}]}),
    ("verbose_json", {"segments": [{"text": "Hi.", "speaker": HARM, "start": 0, "end": 1}]}),
]


@pytest.mark.parametrize(("form", "part"), PARTS)
def test_all_that_the_client_would_see_of_a_transcript_is_judged(form: str, part: dict[str, Any]) -> None:
    world = Heard()
    world.parts = part
    response = served(world).post_form(HEARS, transcription_form(response_format=form))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "content_filter")


def test_language_of_a_transcript_costs_one_verdict_an_hour() -> None:
    world = Heard()
    world.parts = {"language": "english"}
    gateway = served(world)
    for text in ("One.", "Two."):
        world.text = text
        assert (
            gateway.post_form(HEARS, transcription_form(**{"response_format": "verbose_json"})).json()["language"]
            == "english"
        )
    assert world.judged == ["One.", "english", "Two."]


def test_flagged_stream_ends_with_an_error_event() -> None:
    gateway = served(Heard(f"about {HARM}"))
    response = gateway.post_form(HEARS, transcription_form(stream="true"))
    assert HARM not in response.text
    assert "transcript.text.done" not in response.text
    (event,) = events_of(response)
    whole = gateway.post_form(HEARS, transcription_form()).json()
    shown = ("code", "reason", "user_message", "moderation")
    assert [event["error"][name] for name in shown] == [whole["error"][name] for name in shown]


def test_end_of_a_stream_has_what_a_whole_transcript_has_in_headers() -> None:
    world = Heard()
    world.judge = lambda _: httpx.Response(500)
    gateway = served(world, {"regions": {"default": {"moderation": {"on_failure": "open"}}}})
    last = events_of(gateway.post_form(HEARS, transcription_form(stream="true")))[-1]
    assert last["x_gateway"]["moderation"] == {"skipped": True}
    record = Record("r", 0.0, "")
    record.shown.charged = "0.01 EUR"
    encoder = TranscriptEncoder(AnswerStyle(), record, has_segments=False)
    assert b'"x_gateway":{"cost":"0.01 EUR"}' in encoder.encode((TextDelta("Hello."), Finished()))


@pytest.mark.parametrize("field", ["prompt", "keywords[]"])
def test_flagged_text_of_a_form_reaches_no_provider(field: str) -> None:
    world = Heard()
    response = served(world).post_form(HEARS, transcription_form(**{field: f"about {HARM}"}))
    assert (response.json()["error"]["code"], world.hosts) == ("content_filter", [])


@pytest.mark.parametrize("field", ["input", "instructions", "style"])
def test_flagged_text_is_not_spoken(field: str) -> None:
    world = Heard()
    body = {"model": "assistant", "voice": "v", "input": "Hello.", field: f"about {HARM}"}
    response = served(world).post(SPEAKS, body)
    assert (response.json()["error"]["code"], world.hosts) == ("content_filter", [])


REDACTED = Config.parse("""
version: 1
assistants: {assistant: {transcription: {default: [ears]}, speech: {default: [mouth]}}}
regions: {default: {territories: ["*"], boundary: ["*"], redact: personal}}
deployments: {}
location: {unknown: default}
""").merge({"deployments": AUDIO["deployments"], "redactions": {"personal": PERSONAL}})


@pytest.mark.parametrize("stream", [{}, {"stream": "true"}], ids=["whole", "stream"])
def test_person_may_claim_in_a_transcript_what_an_assistant_must_not(stream: dict[str, str]) -> None:
    """The rule forbids claims of the assistant about itself. Other categories flag as ever."""
    judges = {"moderation": {"output": ["judge", "spare"]}, "claims": {"forbidden": ["health-licence"]}}
    rule = {"regions": {"default": judges}}
    for category, is_flagged in (("health-licence", False), ("violence", True)):
        found = httpx.Response(200, json={"results": [{"flagged": False, "categories": {category: True}}]})
        world = Heard("I am a doctor.")
        world.judge = lambda _, found=found: found
        text = served(world, rule).post_form(HEARS, transcription_form(**stream)).text
        assert ("content_filter" in text, "doctor" in text) == (is_flagged, not is_flagged)
        assert world.judged == ["I am a doctor."]


def test_redaction_skips_audio_and_texts_with_values() -> None:
    world = Heard()
    gateway = InputGateway(world, REDACTED)
    refused = gateway.post_form(HEARS, transcription_form())
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "file")
    explained = gateway.get("/v1/explain?assistant=assistant&use=transcription").json()
    assert [it["reason"] for it in explained["considered"]] == ["redaction"]
    assert gateway.get("/v1/capabilities?assistant=assistant").json()["transcription"] is None
    assert gateway.get("/v1/models/assistant").json()["x_gateway"]["serves"] == ["speech"]
    body = {"model": "assistant", "voice": "v", "input": "Write to anna@example.org."}
    for told in (body, {**body, "input": "Hello.", "voice": "anna@example.org"}):
        assert gateway.post(SPEAKS, told).json()["error"]["code"] == "unsupported_capability"
    assert world.hosts == []
    assert gateway.post(SPEAKS, {**body, "input": "Hello."}).status_code == 200


def test_redaction_that_lets_media_pass_looks_at_the_texts() -> None:
    world = Heard()
    gateway = InputGateway(world, REDACTED.merge({"redactions": {"personal": {"media": "pass"}}}))
    assert gateway.post_form(HEARS, transcription_form()).status_code == 200
    refused = gateway.post_form(HEARS, transcription_form(prompt="Write to anna@example.org."))
    assert (refused.status_code, world.hosts) == (400, ["ears.example"])


def test_consent_names_audio_and_holds_for_this_file_alone() -> None:
    consent = {"mode": "per_request", "recipient": "Ears Inc"}
    config = REDACTED.merge({"regions": {"default": {"redact": None}}, "deployments": {"ears": {"consent": consent}}})
    world = Heard()
    gateway = InputGateway(world, config)
    asked = gateway.post_form(HEARS, transcription_form(prompt="about cars"))
    question = asked.json()["error"]["consent"]
    assert (asked.status_code, question["would_send"], world.hosts) == (403, ["audio", "messages"], [])
    agreed = {"x-gateway-consent": question["token"]}
    other = gateway.post_form(HEARS, transcription_form(silent_wav(2), prompt="about cars"), agreed)
    assert (other.status_code, world.hosts) == (403, [])
    assert gateway.post_form(HEARS, transcription_form(prompt="about cars"), agreed).status_code == 200


def test_form_of_an_empty_file_is_refused_before_a_judge() -> None:
    world = Heard()
    response = served(world).post_form(HEARS, form_of([("file", b"", "x"), ("model", b"assistant", None)]))
    assert (response.status_code, world.hosts, json.loads(response.text)["error"]["param"]) == (400, [], "file")
