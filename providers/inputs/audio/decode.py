"""Read a client's request for a transcription or for speech strictly, in OpenAI's form."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Literal

from providers.failures import InvalidRequest, UnsupportedFeature
from providers.inputs.audio.form import FormPart, text_of_part
from providers.inputs.audio.kinds import KINDS, SPEECH_FORMATS, kind_of
from providers.inputs.audio.values import FORMATS, SpeechRequest, TranscriptionRequest
from providers.openai_json.fields import mapping, needed_text, number, text

_REPEATED = frozenset({"timestamp_granularities", "include", "keywords", "languages"})
_KNOWN = _REPEATED | {"language", "prompt", "response_format", "temperature", "chunking_strategy", "stream", "model"}
_FETCHED = "a provider would fetch it: send the audio as `file`"
_REFUSED = {
    **dict.fromkeys(("url", "file_url", "file_id", "input_audio"), _FETCHED),
    **dict.fromkeys(("known_speaker_names", "known_speaker_references"), "a sample would identify a person"),
}
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{1,8}){0,8}")
_NAME = re.compile(r"[a-z_.]{1,64}")
MOST_VOICE_CHARACTERS = 256
_SPEECH = frozenset({"model", "input", "voice", "response_format", "speed", "instructions", "stream_format"})


def decode_transcription(
    parts: tuple[FormPart, ...], task: Literal["transcribe", "translate"] = "transcribe"
) -> TranscriptionRequest:
    """Return the request of a form. Raises InvalidRequest, or UnsupportedFeature for a field that is refused."""
    file, fields = _parts_of(parts)
    model = "".join(fields.get("model", [])).strip()
    if not model:
        raise InvalidRequest("`model` is required: name an assistant", "model")
    if not file:
        raise InvalidRequest("`file` is required, and must not be empty", "file")
    kind = kind_of(file)
    if kind is None:
        message = f"`file` is not an audio file of a known kind; its first bytes are of none of {', '.join(KINDS)}"
        raise InvalidRequest(message, "file")
    unread = frozenset(name for name in fields if name not in _KNOWN)
    if task == "translate":
        unread |= {"language", "languages"} & fields.keys()
    one = {name: values[0] for name, values in fields.items() if values[0].strip() and name not in unread}
    many = {name: tuple(filter(None, map(str.strip, fields.get(name, ())))) for name in _REPEATED}
    granularities = many["timestamp_granularities"]
    form, is_stream = _format_of(one, granularities)
    if not all(map(_NAME.fullmatch, many["include"])):  # no judge and no redaction reads it
        raise InvalidRequest("`include` must be a name, such as `logprobs`", "include")
    chunking = one.get("chunking_strategy")
    if chunking is not None and chunking.strip() != "auto":
        unread, chunking = unread | {"chunking_strategy"}, None
    return TranscriptionRequest(
        model,
        file,
        kind,
        task,
        _language(one["language"], "language") if "language" in one else None,
        tuple([_language(tag, "languages") for tag in many["languages"]]) if task == "transcribe" else (),
        many["keywords"],
        one.get("prompt"),
        form,
        _temperature(one["temperature"]) if "temperature" in one else None,
        granularities,
        many["include"],
        chunking,
        is_stream,
        unread=unread,
    )


def _parts_of(parts: tuple[FormPart, ...]) -> tuple[memoryview | None, dict[str, list[str]]]:
    """Return the file of a form, and its texts by name. Raises InvalidRequest or UnsupportedFeature."""
    fields: dict[str, list[str]] = defaultdict(list)
    file: memoryview | None = None
    for part in parts:
        name = part.name.removesuffix("[]") if part.name.removesuffix("[]") in _REPEATED else part.name
        if (why := _REFUSED.get(name.removesuffix("[]"))) is not None:
            name = name.removesuffix("[]")
            raise UnsupportedFeature(name, f"`{name}` is not accepted: {why}", name)
        if part.is_file or name == "file":
            if name != "file" or not part.is_file:
                shown = name[:64]
                hint = "is a file: only `file` may be one" if part.is_file else "is a text: send it as a file"
                raise InvalidRequest(f"`{shown}` {hint}", shown, log_message=f"a part of the form {hint}")
            if file is not None:
                raise InvalidRequest("`file` is there twice", "file")
            file = part.data
        else:
            fields[name].append(text_of_part(part))
    for name, values in fields.items():
        if len(values) > 1 and name in _KNOWN - _REPEATED:
            raise InvalidRequest(f"`{name}` is there twice", name)
    return file, fields


def _format_of(one: dict[str, str], granularities: tuple[str, ...]) -> tuple[str, bool]:
    """Return the format of the answer, and whether it is a stream. Raises InvalidRequest."""
    form = one.get("response_format", "json")
    if form not in FORMATS:
        raise InvalidRequest(f"`response_format` must be one of {', '.join(FORMATS)}", "response_format")
    if not set(granularities) <= {"segment", "word"}:
        message = "`timestamp_granularities` must be `segment` or `word`"
        raise InvalidRequest(message, "timestamp_granularities")
    if granularities and form != "verbose_json":
        message = "`timestamp_granularities` needs `response_format` verbose_json"
        raise InvalidRequest(message, "timestamp_granularities")
    stream = one.get("stream", "false").strip().lower()
    if stream not in ("true", "false"):
        raise InvalidRequest("`stream` must be true or false", "stream")
    if stream == "true" and form not in ("json", "diarized_json"):
        raise InvalidRequest("`stream` needs `response_format` json or diarized_json", "stream")
    return form, stream == "true"


def _language(tag: str, param: str) -> str:
    """Return the first subtag of a language tag in lower case: `en-US` is `en`."""
    if not _LANGUAGE.fullmatch(tag.strip()):
        raise InvalidRequest(f"`{param}` must be a language tag, such as `en`", param)
    return re.split("[-_]", tag.strip())[0].lower()


def _temperature(value: str) -> float:
    try:
        temperature = float(value)
    except ValueError:
        temperature = -1.0
    if not 0 <= temperature <= 1:
        raise InvalidRequest("`temperature` must be a number from 0 to 1", "temperature")
    return temperature


def decode_speech(value: object) -> SpeechRequest:
    """Return the request of a JSON body. Raises InvalidRequest."""
    body = mapping(value, "body")
    model = text(body, "model", "model")
    if not model:
        raise InvalidRequest("`model` is required: name an assistant", "model")
    voice, spoken = needed_text(body, "voice", "voice"), needed_text(body, "input", "input")
    if len(voice) > MOST_VOICE_CHARACTERS:  # it is in the log
        raise InvalidRequest(f"`voice` has more than {MOST_VOICE_CHARACTERS} characters", "voice")
    if not spoken.strip():
        raise InvalidRequest("`input` must not be blank", "input")
    form, style = text(body, "response_format", "response_format"), text(body, "stream_format", "stream_format")
    if form is not None and form not in SPEECH_FORMATS:
        raise InvalidRequest(f"`response_format` must be one of {', '.join(SPEECH_FORMATS)}", "response_format")
    if style not in (None, "audio", "sse"):
        raise InvalidRequest("`stream_format` must be `audio` or `sse`", "stream_format")
    return SpeechRequest(
        model,
        spoken,
        voice,
        form or "mp3",
        number(body, "speed", "speed", 0.25, 4),
        text(body, "instructions", "instructions"),
        style == "sse",
        {name: item for name, item in body.items() if name not in _SPEECH and item is not None},
    )
