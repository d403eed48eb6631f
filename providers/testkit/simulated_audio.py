"""Transcripts and speech of a simulated provider, in the vendors' forms as a server reads and writes them.

Its files are small and valid, of each format, and without speech.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Callable, Mapping
from importlib import resources

from providers.failures import InvalidRequest
from providers.inputs.audio.facts import SpeechFacts, TranscriptionFacts, load_speech_facts, load_transcription_facts
from providers.inputs.audio.form import boundary_of, parse_form
from providers.inputs.audio.kinds import kind_of, lengths_of
from providers.json_values import JsonError, as_list, as_map, dumps, loads, read_map, read_str
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


def _usage(text: str, seconds: float, facts: TranscriptionFacts) -> dict[str, object]:
    if facts.stream == "named":
        return {"prompt_audio_seconds": seconds, "prompt_tokens": 4, "completion_tokens": len(text.split())}
    return {"type": "duration", "seconds": seconds}


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


_RATE = 24_000
_FRAMES = {"mp3": b"\xff\xfb\x90\xc4" + bytes(413), "aac": b"\xff\xf1\x50\x40\x01\xbf\xfc\x00\xc8\x00\x80\x23\x80"}
"""A silent frame: MPEG 1 layer 3 with 128 kbit/s at 44.1 kHz, and AAC-LC with 44.1 kHz in ADTS."""
_FRAMES_PER_S = {"mp3": 44_100 / 1152, "aac": 44_100 / 1024}
_OPUS_SILENCE = b"\xf8\xff\xfe"
_OPUS_PER_S = 50


def spoken_file(form: str, seconds: float) -> bytes:
    """Return an audio file of about this length: a tone as `wav` and `pcm`, and else silence."""
    match form:
        case "pcm":
            return _tone(seconds)
        case "wav":
            return wav_of(_tone(seconds), _RATE)
        case "opus":
            return _opus(max(1, round(seconds * _OPUS_PER_S)))
        case "flac":
            return _flac(max(1, round(seconds * 10)))
    return _FRAMES[form] * max(2, round(seconds * _FRAMES_PER_S[form]))


def wav_of(samples: bytes, rate: int) -> bytes:
    """Return mono samples of 16 bit as a file."""
    form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    data = struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", 4 + 8 + 16 + 4 + len(data)) + b"WAVEfmt " + form + b"data" + data


def _tone(seconds: float) -> bytes:
    count = round(seconds * _RATE)
    return struct.pack(f"<{count}h", *(round(8000 * math.sin(at * 440 * 2 * math.pi / _RATE)) for at in range(count)))


def _ogg_page(packets: list[bytes], sequence: int, granule: int, flags: int) -> bytes:
    """Return a page with whole packets (RFC 3533)."""
    lacing = b"".join([b"\xff" * (len(one) // 255) + bytes([len(one) % 255]) for one in packets])
    head = struct.pack("<4sBBqIII", b"OggS", 0, flags, granule, 1, sequence, 0) + bytes([len(lacing)]) + lacing
    page = head + b"".join(packets)
    return page[:22] + struct.pack("<I", crc_of(page, 0x04C11DB7, 32)) + page[26:]


def crc_of(data: bytes, polynomial: int, bits: int) -> int:
    """Return a cyclic redundancy check without reflection, from 0."""
    crc, top, mask = 0, 1 << (bits - 1), (1 << bits) - 1
    for byte in data:
        crc ^= byte << (bits - 8)
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & mask
    return crc


def _opus(packets: int) -> bytes:
    head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, _RATE, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 9) + b"simulated" + struct.pack("<I", 0)
    pages = [_ogg_page([head], 0, 0, 2), _ogg_page([tags], 1, 0, 0)]
    starts = range(0, packets, _OPUS_PER_S)
    for number, start in enumerate(starts, 2):
        count = min(_OPUS_PER_S, packets - start)
        is_last = start + count == packets
        pages.append(_ogg_page([_OPUS_SILENCE] * count, number, (start + count) * 960, 4 if is_last else 0))
    return b"".join(pages)


def _flac(blocks: int) -> bytes:
    """Return blocks of 4,800 silent samples at 48 kHz (RFC 9639): each frame has one constant subframe."""
    size, rate = 4_800, 48_000
    packed = rate << 44 | 0 << 41 | 15 << 36 | blocks * size
    info = struct.pack(">HH", size, size) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    frames = []
    for number in range(blocks):
        # The number of a frame is coded as a character is.
        head = b"\xff\xf8\x7a\x08" + chr(number).encode() + struct.pack(">H", size - 1)
        frame = head + bytes([crc_of(head, 0x07, 8)]) + b"\x00\x00\x00"
        frames.append(frame + struct.pack(">H", crc_of(frame, 0x8005, 16)))
    return b"fLaC" + b"\x80\x00\x00\x22" + info + b"".join(frames)
