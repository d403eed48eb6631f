"""Test the transcriptions and the speech of an adapter that has them: through its simulator, and against any bytes."""

from __future__ import annotations

import pytest

from providers.adapter import Target
from providers.chat import AudioDelta, Failed, Finished, StreamEvent, TextDelta
from providers.conformance.subject import Subject
from providers.conformance.test_inputs import needed, target_of
from providers.inputs.audio.contract import SpeechFormat, TranscriptionFormat
from providers.inputs.audio.form import boundary_of, parse_form
from providers.inputs.audio.kinds import SPEECH_FORMATS, kind_of
from providers.inputs.audio.values import SpeechRequest, TranscriptionRequest
from providers.testkit.simulated_audio import SAMPLE_TEXT, sample
from providers.testkit.simulator import SimulatesAudio
from providers.wire import WireRequest, WireResponse


@pytest.fixture
def transcription(subject: Subject) -> TranscriptionFormat:
    found: TranscriptionFormat = needed(subject, "transcription")
    return found


@pytest.fixture
def speech(subject: Subject) -> SpeechFormat:
    found: SpeechFormat = needed(subject, "speech")
    return found


def _request(stream: bool = False) -> TranscriptionRequest:
    return TranscriptionRequest("assistant", memoryview(sample()), "wav", language="en", stream=stream)


def _target(subject: Subject) -> Target:
    return target_of(subject, "some-audio-model")


def _answered(subject: Subject, wire: WireRequest) -> WireResponse:
    simulator = subject.simulator
    assert isinstance(simulator, SimulatesAudio), "add `answer_audio` to the simulator"
    answer = simulator.answer_audio(subject.incoming(wire))
    assert answer is not None, "the simulator does not know the path of audio"
    return answer


def test_file_arrives_and_its_text_returns(subject: Subject, transcription: TranscriptionFormat) -> None:
    target = _target(subject)
    answer = _answered(subject, transcription.build_request(_request(), target))
    transcript = transcription.parse_response(answer, target)
    assert transcript.text == SAMPLE_TEXT, "the text of the transcript is not the one that the simulator sent"
    assert "emotion" not in str(transcript.segments), "a vendor's guess of emotion is never passed on"


def test_form_that_leaves_has_the_model_first_and_the_file_last(
    subject: Subject, transcription: TranscriptionFormat
) -> None:
    target = _target(subject)
    wire = transcription.build_request(_request(), target)
    assert wire == transcription.build_request(_request(), target), (
        "the same request must be built the same way each time"
    )
    boundary = boundary_of(dict(wire.headers)["content-type"])
    if boundary is None:
        return  # a chat with a data URL
    parts = parse_form(b"".join((wire.body, *map(bytes, wire.rest))), boundary)
    assert (parts[0].name, parts[-1].name, bytes(parts[-1].data)) == ("model", "file", sample()), (
        "the form must begin with `model` and end with the unchanged `file`"
    )
    assert len(wire.rest) == 2, "the file is a piece of its own, so that it is not copied"


def _read(parser: object, data: bytes, size: int) -> list[StreamEvent]:
    feed, close = parser.feed, parser.close  # type: ignore[attr-defined]
    return [*(event for at in range(0, len(data), size) for event in feed(data[at : at + size])), *close()]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_events_join_to_the_text_in_any_cut(subject: Subject, transcription: TranscriptionFormat, size: int) -> None:
    target, request = _target(subject), _request(stream=True)
    answer = _answered(subject, transcription.build_request(request, target))
    events = _read(transcription.stream_reader(request, answer, target), answer.body, size)
    assert "".join([event.text for event in events if isinstance(event, TextDelta)]) == SAMPLE_TEXT, (
        "the pieces of the stream must join to the text of the transcript"
    )
    assert isinstance(events[-1], Finished), "a whole stream must end with `Finished`"


def test_stream_that_is_cut_off_is_a_failure(subject: Subject, transcription: TranscriptionFormat) -> None:
    target, request = _target(subject), _request(stream=True)
    answer = _answered(subject, transcription.build_request(request, target))
    events = _read(transcription.stream_reader(request, answer, target), answer.body[: len(answer.body) // 2], 64)
    assert isinstance(events[-1], Failed), (
        "a stream without its end, or with an error in place of audio, must end with `Failed`"
    )


@pytest.mark.parametrize("form", SPEECH_FORMATS)
def test_speech_is_a_file_of_the_format(subject: Subject, speech: SpeechFormat, form: str) -> None:
    target = _target(subject)
    if form not in speech.facts(target.model).offers:
        pytest.skip(f"the model has no {form}")
    request = SpeechRequest("assistant", "Hello world.", "voice", form)
    answer = _answered(subject, speech.build_request(request, target))
    for size in (len(answer.body), 97):
        events = _read(speech.stream_reader(request, answer, target), answer.body, size)
        assert isinstance(events[-1], Finished), events[-1]
        audio = b"".join([event.data for event in events if isinstance(event, AudioDelta)])
        assert kind_of(audio) == SPEECH_FORMATS[form].kind, "the bytes are not of the format that was asked for"
        assert len(audio) > 40, "the file has no audio"


def test_error_with_status_200_is_no_speech(subject: Subject, speech: SpeechFormat) -> None:
    target, request = _target(subject), SpeechRequest("assistant", "Hello world.", "voice", "wav")
    head = WireResponse(200, {"content-type": "application/json"}, b"", 0)
    events = _read(speech.stream_reader(request, head, target), b'{"error":{"message":"no"}}', 8)
    assert isinstance(events[-1], Failed), (
        "a stream without its end, or with an error in place of audio, must end with `Failed`"
    )
