"""Requests that are not chats: embeddings, moderations, rerank, transcriptions and speech."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, assert_never, get_args

from providers.audio.values import SpeechRequest, Transcript, TranscriptionRequest
from providers.chat import ChatRequest, ImagePart, TextPart, UserMessage
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.matching.requirements import Requirements, moving_fields
from providers.moderations.values import ModerationAnswer, ModerationRequest
from providers.rerank.values import RerankAnswer, RerankRequest

Use: TypeAlias = Literal["chat", "embeddings", "moderations", "rerank", "transcription", "speech"]
"""A kind of requests to an assistant. Each has routes of its own."""
USES: tuple[Use, ...] = get_args(Use)
AudioRequest: TypeAlias = TranscriptionRequest | SpeechRequest
InputRequest: TypeAlias = EmbeddingRequest | ModerationRequest | RerankRequest | AudioRequest
InputAnswer: TypeAlias = EmbeddingAnswer | ModerationAnswer | RerankAnswer | Transcript
ServedRequest: TypeAlias = ChatRequest | InputRequest
"""Every request that the gateway sends to a deployment."""
TRANSCRIPTION_PARAMETERS = (
    "language", "languages", "keywords", "prompt", "temperature", "include", "chunking_strategy"
)  # fmt: skip
"""The fields of a transcription that a deployment may lack: they are left out for it, and named."""
_MOST_VERDICT_TOKENS = 256
"""A guard model answers with a word or two, and the names of categories."""


def use_of(request: ServedRequest) -> Use:
    """Return the kind of a request."""
    match request:
        case ChatRequest():
            return "chat"
        case EmbeddingRequest():
            return "embeddings"
        case ModerationRequest():
            return "moderations"
        case RerankRequest():
            return "rerank"
        case TranscriptionRequest():
            return "transcription"
        case SpeechRequest():
            return "speech"
        case _:
            assert_never(request)


class AudioNeeds(Requirements, frozen=True):
    """The requirements of a request for a transcription or for speech, with its numbers, which each deployment bounds.

    Its size is the bytes of the file, or the characters of the text. The voice has the product's name.
    """

    size: int = 0
    voice: str = ""


def _needs_of_audio(request: AudioRequest) -> AudioNeeds:
    """Return the requirements. `file` and `input` are among the parameters, so that no decision is remembered."""
    form = f"response_format.{request.response_format}"
    if isinstance(request, SpeechRequest):
        given = {"speed": request.speed, "instructions": request.instructions}
        named = {name for name, value in given.items() if value is not None} | {"input", *request.extra}
        features = frozenset({form, "voice", "input_length"})
        moving = moving_fields(request.extra)
        return AudioNeeds(
            features, frozenset(named), moving, use="speech", size=len(request.input), voice=request.voice
        )
    features = frozenset({"audio", f"file.{request.kind}", "file_size", form})
    features |= {f"timestamp_granularities.{one}" for one in request.granularities}
    features |= {"translation"} if request.task == "translate" else set()
    named = {"file"}
    named |= {name for name in TRANSCRIPTION_PARAMETERS if getattr(request, name) not in (None, ())}
    return AudioNeeds(features, frozenset(named), frozenset(), use="transcription", size=len(request.file))


def needs_of_input(request: InputRequest) -> Requirements:
    """Return what a request requires of a deployment."""
    features: set[str] = set()
    parameters = set(request.extra)
    match request:
        case EmbeddingRequest():
            features |= {"token_input"} if request.takes_tokens else set()
            features |= {"dimensions"} if request.dimensions is not None else set()
            parameters |= {"user"} if request.user is not None else set()
        case ModerationRequest():
            for content in request.inputs:
                urls = [] if isinstance(content, str) else [it.url for it in content if isinstance(it, ImagePart)]
                features |= {"vision"} if urls else set()
                features |= {"image_url"} if any(url[:5].lower() != "data:" for url in urls) else set()
        case RerankRequest():
            parameters |= {"max_tokens_per_doc"} if request.max_tokens_per_doc is not None else set()
        case TranscriptionRequest() | SpeechRequest():
            return _needs_of_audio(request)
        case _:
            assert_never(request)
    moving, use = moving_fields(request.extra), use_of(request)
    unread = request.unread if isinstance(request, EmbeddingRequest | RerankRequest) else frozenset[str]()
    return Requirements(frozenset(features), frozenset(parameters), moving, use=use, unread=unread)


def texts_of(request: InputRequest) -> Iterator[str]:
    """Yield every text of the request's input. Tokens are not text."""
    if isinstance(request, RerankRequest):
        yield request.query
        yield from request.documents
        return
    if isinstance(request, TranscriptionRequest):
        yield from (text for text in (request.prompt, *request.keywords) if text)
        return
    if isinstance(request, SpeechRequest):
        yield from (text for text in (request.input, request.instructions) if text)
        return
    if isinstance(request, ModerationRequest) and request.prompt is not None:
        for _ in request.inputs:  # each is judged with it
            yield request.prompt
    for content in request.inputs:
        if isinstance(content, str):
            yield content
        else:
            for part in content:
                if isinstance(part, TextPart):
                    yield part.text
                elif not isinstance(part, int):
                    yield part.url


def user_of_input(request: InputRequest) -> str | None:
    """Return the identifier of the user in the request."""
    return request.user if isinstance(request, EmbeddingRequest) else None


class MeasuredInput(ChatRequest, frozen=True):
    """A request of another use as a chat whose cost bounds its own, with the most search units of a rerank."""

    use: Use = "chat"
    audio: AudioRequest | None = None
    search_units: int = 0

    def __repr__(self) -> str:
        """Leave out the texts."""
        return f"MeasuredInput({self.use!r})"


def measured_as_chat(request: ServedRequest) -> ChatRequest:
    """Return a chat whose cost bounds that of the request: with the same texts, and one character for each token."""
    if isinstance(request, ChatRequest):
        return request
    texts, most, units = [*texts_of(request)], 1, 0
    if isinstance(request, RerankRequest):
        # Some vendors count the query once for each document.
        texts += [request.query] * (len(request.documents) - 1)
        units = request.most_search_units
    elif isinstance(request, EmbeddingRequest | ModerationRequest):
        lists = [content for content in request.inputs if not isinstance(content, str)]
        if tokens := sum(1 for content in lists for it in content if isinstance(it, int)):
            texts.append("0" * tokens)
        if isinstance(request, ModerationRequest):
            most = _MOST_VERDICT_TOKENS * len(request.inputs)
    audio = request if isinstance(request, TranscriptionRequest | SpeechRequest) else None
    messages, use = tuple(map(UserMessage, texts)), use_of(request)
    return MeasuredInput(
        request.model or "",
        messages,
        max_tokens=most,
        reasoning_effort="none",
        use=use,
        audio=audio,
        search_units=units,
    )
