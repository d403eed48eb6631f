"""Transcripts and speech of a simulated provider, in the vendors' forms as a server reads and writes them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib import resources

from providers.failures import InvalidRequest
from providers.inputs.audio.facts import SpeechFacts, TranscriptionFacts, load_speech_facts, load_transcription_facts
from providers.inputs.audio.form import boundary_of, parse_form
from providers.inputs.audio.kinds import kind_of, lengths_of
from providers.json_values import JsonError, as_list, as_map, dumps, loads, read_map, read_str
from providers.testkit.audio_files import spoken_file
from providers.testkit.simulator import IncomingRequest
from providers.wire import WireResponse

SAMPLE_TEXT = "Hello world."
"""The words of the recording that comes with the gateway, `hello.wav`."""
_JSON = {"content-type": "application/json", "x-request-id": "simulated-audio"}
_EVENTS = {"content-type": "text/event-stream", "x-request-id": "simulated-audio"}
_CHARACTERS_PER_S = 15
_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "pcm": "application/octet-stream"}
_Refused = Callable[[str], Exception]


def sample() -> bytes:
    """Return a recording of one second: 16 kHz, 16 bit, mono."""
    return resources.files("providers.testkit").joinpath("hello.wav").read_bytes()


def transcript_of(file: bytes) -> str:
    """Return what is "said" in a file, which depends on nothing but its bytes."""
    if file == sample():
        return SAMPLE_TEXT
    return f"Simulated words number {int(hashlib.sha256(file).hexdigest()[:6], 16)}."


def answer_audio(
    provider: str, incoming: IncomingRequest, check_head: Callable[[IncomingRequest], object], refused: _Refused
) -> WireResponse | None:
    """Return the answer to a request for a transcription or for speech, or None at another path.

    `check_head` raises the vendor's error if the key is wrong, and `refused` returns its error about a body.
    """
    written, spoken = load_transcription_facts(provider), load_speech_facts(provider)
    if incoming.path.endswith(("/audio/transcriptions", "/audio/translations")) and written is not None:
        check_head(incoming)
        return _written_down(incoming, written.of, refused)
    if incoming.path.endswith("/audio/speech") and spoken is not None:
        check_head(incoming)
        body = _object(incoming, refused)
        return _spoken(body, spoken.of(str(body.get("model"))), refused)
    if (
        spoken is not None
        and spoken.usual.form == "qwen"
        and incoming.path.endswith("/multimodal-generation/generation")
    ):
        body = _object(incoming, refused)
        source = read_map(body, "input")
        if "voice" in source:
            check_head(incoming)
            return _qwen_speech(read_str(source, "text") or "", refused)
        if "asr_options" in read_map(body, "parameters"):
            check_head(incoming)
            return _qwen_transcript(source, refused)
    return None


def _object(incoming: IncomingRequest, refused: _Refused) -> Mapping[str, object]:
    try:
        return as_map(loads(incoming.body))
    except JsonError:
        raise refused("the body is not valid JSON") from None


def _written_down(
    incoming: IncomingRequest, facts_of: Callable[[str], TranscriptionFacts], refused: _Refused
) -> WireResponse:
    boundary = boundary_of(incoming.headers.get("content-type", ""))
    if boundary is None:
        raise refused("the body must be a form")
    try:
        parts = parse_form(incoming.body, boundary)
    except InvalidRequest as error:
        raise refused(str(error)) from None
    fields: dict[str, str] = {}
    for part in parts:
        if not part.is_file:
            name, text = part.name.removesuffix("[]"), bytes(part.data).decode()
            fields[name] = f"{fields[name]},{text}" if name in fields else text
    files = [bytes(part.data) for part in parts if part.is_file]
    if not files or parts[0].name != "model" or not parts[-1].is_file:
        raise refused("model must come first, and file last")
    facts, file = facts_of(fields["model"]), files[0]
    kind = kind_of(file)
    if kind is None or kind not in facts.kinds or len(file) > facts.most_bytes:
        raise refused("Invalid file format")
    form = fields.get("response_format", "json")
    known = {"model", "language", "languages", "prompt", "response_format", "temperature", "timestamp_granularities"}
    known |= {"stream", "diarize", facts.keywords, "include", "chunking_strategy"}
    if unknown := fields.keys() - known:
        raise refused(f"unknown parameter: {min(unknown)}")
    if form not in ("json", facts.asks, *(["diarized_json"] if facts.diarizes else [])):
        raise refused(f"response_format {form} is not compatible with this model")
    text, seconds = transcript_of(file), lengths_of(kind, file).own / 1000
    if fields.get("stream") == "true":
        return WireResponse(200, _EVENTS, _events(text, seconds, facts.stream), 0)
    segment: dict[str, object] = {"id": 0, "start": 0.0, "end": seconds, "text": text}
    if form == "diarized_json" or fields.get("diarize") == "true":
        segment["speaker"] = "A"
    body: dict[str, object] = {"text": text, "emotion": "happy", "usage": _usage(text, seconds, facts)}
    if form != "json" or not facts.asks:
        body |= {"language": fields.get("language", "english"), "duration": seconds}
        if facts.has_segments or facts.diarizes:
            body["segments"] = [segment]
        if "word" in fields.get("timestamp_granularities", ""):
            words = text.split()
            body["words"] = [
                {"word": word, "start": seconds * at / len(words), "end": seconds * (at + 1) / len(words)}
                for at, word in enumerate(words)
            ]
    return WireResponse(200, _JSON, dumps(body), 0)


def _usage(text: str, seconds: float, facts: TranscriptionFacts) -> dict[str, object]:
    if facts.stream == "named":
        return {"prompt_audio_seconds": seconds, "prompt_tokens": 4, "completion_tokens": len(text.split())}
    return {"type": "duration", "seconds": seconds}


def _events(text: str, seconds: float, form: str) -> bytes:
    pieces = [word if at == 0 else f" {word}" for at, word in enumerate(text.split())]
    usage: dict[str, object] = {"type": "duration", "seconds": seconds}
    events: list[dict[str, object]]
    if form == "chunks":
        events = [
            {"object": "transcription.chunk", "choices": [{"delta": {"content": one}, "finish_reason": "stop"}]}
            for one in pieces
        ]
        events.append({"object": "transcription.chunk", "choices": [], "usage": usage})
    elif form == "named":
        events = [{"type": "transcription.text.delta", "text": one} for one in pieces]
        usage = {"prompt_audio_seconds": seconds, "prompt_tokens": 4, "completion_tokens": len(pieces)}
        events.append({"type": "transcription.done", "text": text, "usage": usage})
    else:
        events = [{"type": "transcript.text.delta", "delta": one} for one in pieces]
        events.append({"type": "transcript.text.done", "text": text, "usage": usage})
    return b"".join([b"data: " + dumps(event) + b"\n\n" for event in events]) + b"data: [DONE]\n\n"


def _spoken(body: Mapping[str, object], facts: SpeechFacts, refused: _Refused) -> WireResponse:
    text, form = read_str(body, "input") or "", read_str(body, "response_format") or "mp3"
    if not text or not body.get(facts.voice) or form not in facts.formats:
        raise refused("input, voice and a known response_format are required")
    if facts.most_characters is not None and len(text) > facts.most_characters:
        raise refused("input is too long")
    audio = spoken_file(form, len(text) / _CHARACTERS_PER_S)
    if facts.form == "json":
        return WireResponse(200, _JSON, dumps({"audio_data": base64.b64encode(audio).decode()}), 0)
    return WireResponse(200, {**_JSON, "content-type": _TYPES.get(form, f"audio/{form}")}, audio, 0)


def _qwen_transcript(source: Mapping[str, object], refused: _Refused) -> WireResponse:
    messages = [as_map(one) for one in as_list(source.get("messages"))]
    contents = [as_map(one) for message in messages for one in as_list(message.get("content"))]
    urls = [url for one in contents if isinstance(url := one.get("audio"), str)]
    if len(urls) != 1 or ";base64," not in urls[0]:
        raise refused("one audio is required")
    file = base64.b64decode(urls[0].partition(";base64,")[2])
    if (kind := kind_of(file)) is None:
        raise refused("the audio has an unknown format")
    message = {"role": "assistant", "content": [{"text": transcript_of(file)}], "annotations": [{"emotion": "happy"}]}
    choice = {"finish_reason": "stop", "message": message}
    body = {"output": {"choices": [choice]}, "usage": {"seconds": lengths_of(kind, file).own / 1000}}
    return WireResponse(200, _JSON, dumps(body), 0)


def _qwen_speech(text: str, refused: _Refused) -> WireResponse:
    if not text:
        raise refused("input.text is required")
    audio, half = spoken_file("pcm", len(text) / _CHARACTERS_PER_S), 0
    half = len(audio) // 4 * 2
    usage = {"characters": len(text)}
    events = [
        {"output": {"audio": {"data": base64.b64encode(piece).decode()}, "finish_reason": reason}, "usage": usage}
        for piece, reason in ((audio[:half], "null"), (audio[half:], "stop"))
    ]
    return WireResponse(200, _EVENTS, b"".join([b"data:" + dumps(event) + b"\n\n" for event in events]), 0)
