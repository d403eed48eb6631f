"""Transcriptions and speech: what is recorded of them, and how a transcript is judged before it is released."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from gateway.execution.exchange import AnswerStyle, Exchange
from gateway.execution.judging import Judge, PassedTexts, pieces_of, policy_of
from gateway.execution.moderated_stream import ModeratedStream
from gateway.execution.upstream_client import Answer
from gateway.model.decision import Refusal, RefusalCode, Refused
from gateway.model.deployment import Deployment
from gateway.model.moderation import Flagged, NoVerdict
from gateway.model.record import AttemptRecord, FeatureNote, Record
from gateway.model.region_text import Label, Locale
from gateway.policy.labels import LABEL_DATA, Labelling, TextSigner, marks
from gateway.service.answer_stages import AnswerStages
from gateway.usage.usage_row import shown_seconds
from providers.chat import AudioDelta, StreamEvent, Usage
from providers.inputs.audio.kinds import lengths_of
from providers.inputs.audio.tags import PLACES, tag_names
from providers.inputs.audio.values import SpeechRequest, Transcript, TranscriptionRequest
from providers.json_values import as_list, as_map, dumps
from providers.served import InputRequest
from providers.value import replace

_MOST_LABEL_DATA = 8 * 1024


class AudioNote(FeatureNote):
    """The facts of a request for audio in the log line and the receipt: numbers, and names of the product.

    Attributes:
        own: The gateway's own count, for an answer without one of the provider or of the account.
        labels: The labels of speech, as the answer shows them.
        signer: Signs the mark of the file, or None.
    """

    __slots__ = ("_fields", "_file", "_use", "labels", "own", "signer")

    def __init__(self, request: TranscriptionRequest | SpeechRequest) -> None:
        self.labels: list[dict[str, object]] = []
        self.signer: TextSigner | None = None
        self._file: dict[str, object] | None = None
        if isinstance(request, SpeechRequest):
            self._use, self.own = "speech", Usage(characters=len(request.input))
            self._fields: dict[str, object] = {"characters": len(request.input), "voice": request.voice}
        else:
            self._use, self._fields = "transcription", {"task": request.task}
            self.own = Usage(audio_ms=lengths_of(request.kind, request.file).own)
            self._file = {"bytes": len(request.file), "format": request.kind, "seconds": None}

    def label(
        self, labels: Sequence[Label], data: list[dict[str, object]], request: SpeechRequest, id: str
    ) -> SpeechRequest:
        """Note the labels of speech with their data, in the same order. Return the request with those for its file."""
        has_place = request.response_format in PLACES
        for label, one in zip(labels, data, strict=True):
            one["in_file"] = has_place and label.audio != "none"
        tagged = sorted((one for one in data if one["in_file"]), key=lambda one: "AIGC" not in one)
        values = [one.get("AIGC", {"ai_generated": True, "label": one["name"], "id": id}) for one in tagged]
        tags = [
            (name, dumps(value).decode()) for name, value in zip(tag_names(tagged), values, strict=True)
        ]  # fmt: skip
        self.labels = data
        return replace(request, tags=tuple(tags), needs_tags=any(one.audio == "required" for one in labels))

    def note_file(self, begun: Iterable[StreamEvent]) -> None:
        """Note whether the file has its labels, as the first events of the answer show."""
        is_tagged = any(isinstance(event, AudioDelta) and event.is_tagged for event in begun)
        self.labels = [{**one, "in_file": one["in_file"] and is_tagged} for one in self.labels]

    def count(self, usage: Usage) -> None:
        """Note what the call is charged for."""
        if self._file is not None and usage.audio_ms:
            self._file["seconds"] = shown_seconds(usage.audio_ms)
            self._fields["audio_seconds"] = self._file["seconds"]
        elif usage.characters:
            self._fields["characters"] = usage.characters

    def log_fields(self) -> Mapping[str, object]:
        return self._fields if self._file is None else {**self._fields, "audio": self._file}

    def receipt_members(self, recipient: Callable[[AttemptRecord], Mapping[str, object]]) -> Mapping[str, object]:
        return self.log_fields()

    def header_lines(self) -> Iterable[bytes]:
        """See `FeatureNote`. A header that is too long is left out."""
        if self.labels:
            data = b64encode(dumps(self.labels))
            if len(data) <= _MOST_LABEL_DATA:
                yield f"{LABEL_DATA}: {data.decode()}".encode()


def note_audio(record: Record, usage: Usage | None) -> Usage:
    """Note what a call for audio is charged for, and return it: the own count if there is none."""
    note = record.noted(AudioNote)
    counted = usage or (note.own if note is not None else Usage())
    if note is not None:
        note.count(counted)
    return counted


def labelled(exchange: Exchange, request: InputRequest) -> InputRequest:
    """Return a request with the labels that its file must have: speech is generated, and a transcript is not.

    Raises Refused if a label has to stand in the file, and the format has no place for it.
    """
    note, locale = exchange.record.noted(AudioNote), exchange.locale
    if note is None or not isinstance(request, SpeechRequest) or locale is None:
        return request
    if request.response_format not in PLACES and any(label.audio == "required" for label in locale.labels):
        message = f"`response_format` must have a place for the label of this region: {', '.join(sorted(PLACES))}"
        raise Refused(Refusal(RefusalCode.UNSUPPORTED_CAPABILITY, message, param="response_format"))
    labelling, id = labelling_of_speech(locale), exchange.record.request_id
    return note.label(labelling.labels, marks(labelling, id, in_content=False), request, id)


def labelling_of_speech(locale: Locale) -> Labelling:
    """Return the labelling of an answer whose words are spoken."""
    return Labelling(locale.labels, frozenset(label.name for label in locale.labels))


def style_audio(
    stages: AnswerStages, exchange: Exchange, request: TranscriptionRequest | SpeechRequest, answer: Answer
) -> None:
    """Decide how a transcript or speech is shown. Only the latter is generated, so that it has labels."""
    exchange.record.shown.dropped |= request.unread
    assistant, locale, labelling = exchange.assistant, exchange.locale, None
    has_comments = not isinstance(request, SpeechRequest) or request.events
    if isinstance(request, SpeechRequest) and locale is not None and locale.labels:
        labelling = labelling_of_speech(locale)
        exchange.record.shown.labels = labelling.names
        if (note := exchange.record.noted(AudioNote)) is not None:
            note.note_file(answer.stream.begun if answer.stream is not None else ())
            note.signer = stages.signer_of(exchange.config, locale) if request.events else None
    keep_alive_s = exchange.config.resilience.keep_alive_s if has_comments else 0.0
    shown_model = None if assistant.reveal_model else assistant.name
    exchange.style = AnswerStyle(True, 1, labelling, shown_model, keep_alive_s)


async def judged_transcript(judge: Judge, answer: Answer, memory: PassedTexts) -> Answer:
    """Return a transcript that the judges of requests and of answers accept: it is the words of a person.

    Raises Flagged if a judge does not accept it, and NoVerdict if there was none and the policy requires one.
    """
    moderation = judge.moderation
    is_same = [it.name for it in moderation.input] == [it.name for it in moderation.output]
    both = [it for it in (moderation.input, () if is_same else moderation.output) if it]
    judge = replace(judge, verdicts=judge.verdicts or {})  # no deployment judges a text twice
    passed = memory.of(judge.context.asker)
    for judges in both:
        if isinstance(answer.result, Transcript):
            await _expect_passed(judge, judges, answer.result, passed)
        elif answer.stream is not None:
            one = replace(judge, moderation=replace(moderation, output=judges))
            answer = replace(answer, stream=ModeratedStream(answer.stream, one, None, passed, is_whole=False))
    return answer


async def _expect_passed(
    judge: Judge, judges: tuple[Deployment, ...], transcript: Transcript, passed: PassedTexts
) -> None:
    policy = policy_of(judge.moderation, judges)
    texts = [text for text in dict.fromkeys(_told(transcript)) if text.strip() and not passed.has(policy, text)]
    try:
        verdict = await judge.verdict(judges, [piece for text in texts for piece in pieces_of(text)])
    except NoVerdict as missing:
        if judge.moderation.on_failure == "closed":
            judge.result.note_output("failed")
            raise
        judge.result.note_output("skipped")
        judge.result.note_missing(missing)
        return
    if verdict.flagged is not None:
        judge.result.note_output("flagged", verdict.flagged)
        raise Flagged(verdict.flagged)
    for text in texts:
        passed.add_text(policy, text)
    judge.result.note_output("passed")


def _told(transcript: Transcript) -> Iterator[str]:
    """Yield all that the client would see of a transcript: all texts of one kind together, in their order."""
    yield transcript.text
    rows: dict[str, list[str]] = {"text": []}
    parts = *(transcript.segments or ()), *(transcript.words or ()), *as_list(transcript.logprobs)
    for part in parts:
        for name, value in as_map(part).items():
            if isinstance(value, str):
                rows.setdefault("text" if name == "word" else name, []).append(value)
    tokens = rows.pop("token", ())
    said, *others = rows.values()
    yield " ".join(map(str.strip, said))
    yield "".join(tokens)
    yield from (", ".join(dict.fromkeys(row)) for row in others)
    yield ", ".join(filter(None, (transcript.language, *transcript.languages)))


def emulated_by(answer: Answer, form: str) -> frozenset[str]:
    """Return what the gateway makes itself of a transcript: a format that is asked for as another one."""
    return frozenset({"response_format"}) if form in ("text", "srt", "vtt") and answer.stream is None else frozenset()
