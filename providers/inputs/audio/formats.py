"""The wire formats of audio: OpenAI's form and speech, which most vendors have with differences, and DashScope's chat.

Source: OpenAI's Python SDK 3.51 (`TranscriptionCreateParams`, `SpeechCreateParams`); the pages that `audio.toml` names.
"""

from __future__ import annotations

from providers.adapter import Target
from providers.catalogue.models import ByModel
from providers.formats.request_options import azure_path
from providers.inputs.audio.facts import SpeechFacts, TranscriptionFacts
from providers.inputs.audio.form import written_form
from providers.inputs.audio.kinds import KINDS
from providers.inputs.audio.reading import SpeechReader, TranscriptReader, plain_words, read_transcript, read_usage
from providers.inputs.audio.values import SpeechRequest, Transcript, TranscriptionRequest
from providers.json_values import as_list, as_map, dumps, read_map
from providers.reading.errors import error_object, malformed
from providers.value import Value
from providers.wire import Base64, WireRequest, WireResponse

_WHOLE, _EVENTS = "application/json", "text/event-stream"
_SPEAKING = (("content-type", "application/json"), ("accept", _EVENTS), ("x-dashscope-sse", "enable"))
_EXTENSIONS = {"mp4": "m4a"}
_BASE64 = ";base64,"


class VendorTranscription(Value, frozen=True):
    """The format of a vendor, by its facts. See `TranscriptionFormat`."""

    vendor: ByModel[TranscriptionFacts]

    def facts(self, model: str) -> TranscriptionFacts:
        return self.vendor.of(model)

    def build_request(self, request: TranscriptionRequest, target: Target) -> WireRequest:
        """See `TranscriptionFormat`. The file is not copied, but for a chat with a data URL."""
        facts = self.vendor.of(target.model)
        if facts.form == "qwen":
            return _qwen_chat(request, target, facts)
        name = f"audio.{_EXTENSIONS.get(request.kind, request.kind)}"
        fields, media = _fields(request, target.model, facts), KINDS[request.kind].media
        kind, body, rest = written_form(fields, request.file, name, media, request.boundary)
        accept = _EVENTS if request.stream and facts.stream else _WHOLE
        path = facts.translation_path if request.task == "translate" else facts.path
        path, query = azure_path(target, path)  # that of all others is the same
        return WireRequest("POST", path, (("content-type", kind), ("accept", accept)), body, query, rest=rest)

    def parse_response(self, response: WireResponse, target: Target) -> Transcript:
        body = error_object(response.body)
        if self.vendor.of(target.model).form != "qwen":
            return read_transcript(body)
        choices = as_list(read_map(body, "output").get("choices"))
        content = read_map(as_map(choices[0]), "message").get("content") if choices else None
        texts = [content] if isinstance(content, str) else [as_map(one).get("text") for one in as_list(content)]
        if content is None or not all(isinstance(text, str) for text in texts):
            raise malformed("the answer has no text")
        text = plain_words("".join(map(str, texts)))
        return Transcript(text, usage=read_usage(read_map(body, "usage"), text))

    def stream_reader(self, request: TranscriptionRequest, head: WireResponse, target: Target) -> TranscriptReader:
        return TranscriptReader(head, lambda response: self.parse_response(response, target))


def _fields(request: TranscriptionRequest, model: str, facts: TranscriptionFacts) -> list[tuple[str, str]]:
    """Return the fields of the form that leaves, without the file."""
    fields = [("model", model)]
    if request.language is not None:
        fields.append(("language", request.language))
    fields += [("languages[]", language) for language in request.languages]
    if facts.keywords == "keywords":
        fields += [("keywords[]", word) for word in request.keywords]
    else:  # Mistral's words have neither spaces nor commas
        words = (part for word in request.keywords for part in word.replace(",", " ").split())
        fields += [(facts.keywords, word) for word in words]
    if request.prompt is not None:
        fields.append(("prompt", request.prompt))
    if request.temperature is not None:
        fields.append(("temperature", f"{request.temperature:g}"))
    if request.chunking_strategy is not None:
        fields.append(("chunking_strategy", request.chunking_strategy))
    is_stream, is_diarized = request.stream and bool(facts.stream), request.response_format == "diarized_json"
    granularities = request.granularities
    if facts.asks:
        asks = "json" if is_stream else facts.asks
        fields.append(("response_format", "diarized_json" if is_diarized else asks))
    elif is_diarized:
        fields.append(("diarize", "true"))
    if not facts.asks and request.asks_segments and "segment" not in granularities and not is_stream:
        granularities = (*granularities, "segment")
    fields += [("timestamp_granularities[]", one) for one in granularities]
    fields += [("include[]", one) for one in request.include]
    if is_stream:
        fields.append(("stream", "true"))
    return fields


def _qwen_chat(request: TranscriptionRequest, target: Target, facts: TranscriptionFacts) -> WireRequest:
    audio = {"audio": f"data:{KINDS[request.kind].media}{_BASE64}"}
    options: dict[str, object] = {"enable_itn": False}
    if request.language is not None:
        options["language"] = request.language
    body = {
        "model": target.model,
        "input": {"messages": [{"role": "user", "content": [audio]}]},
        "parameters": {"asr_options": options},
    }
    headers = (("content-type", "application/json"), ("accept", _WHOLE))
    # The file goes between: as a text of the JSON it would be copied four times.
    begin, mark, end = dumps(body).rpartition(_BASE64.encode())
    rest = Base64(request.file), end
    return WireRequest("POST", target.base_path + facts.path, headers, begin + mark, rest=rest)


class VendorSpeech(Value, frozen=True):
    """The format of a vendor, by its facts. See `SpeechFormat`."""

    vendor: ByModel[SpeechFacts]

    def facts(self, model: str) -> SpeechFacts:
        return self.vendor.of(model)

    def build_request(self, request: SpeechRequest, target: Target) -> WireRequest:
        facts = self.vendor.of(target.model)
        sent = sent_format(request.response_format, facts)
        path = target.base_path + facts.path
        if facts.form == "qwen":
            body: dict[str, object] = {"model": target.model, "input": {"text": request.input, "voice": request.voice}}
            return WireRequest("POST", path, _SPEAKING, dumps(body | dict(request.extra)))
        body = {"model": target.model, "input": request.input, facts.voice: request.voice, "response_format": sent}
        if request.speed is not None:
            body["speed"] = request.speed
        if request.instructions is not None:
            body["instructions"] = request.instructions
        body |= {**request.extra, **facts.pins.get(sent, {}), **target.pins}
        headers = (("content-type", "application/json"), ("accept", "*/*"))
        return WireRequest("POST", path, headers, dumps(body), facts.query)

    def stream_reader(self, request: SpeechRequest, head: WireResponse, target: Target) -> SpeechReader:
        facts = self.vendor.of(target.model)
        sent = sent_format(request.response_format, facts)
        return SpeechReader(head, request.response_format, sent, facts.form)


def sent_format(asked: str, facts: SpeechFacts) -> str:
    """Return the format that the vendor is asked for: the same, or `pcm` of which `wav` is made."""
    return "pcm" if asked == "wav" and "wav" not in facts.formats else asked
