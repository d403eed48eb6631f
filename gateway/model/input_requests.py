"""Requests that are not chats: embeddings, moderations and rerank. The answer of each is one JSON body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias, assert_never, get_args

from providers.chat import ChatRequest, ImagePart, TextPart, UserMessage
from providers.embeddings import EmbeddingAnswer, EmbeddingRequest
from providers.matching.requirements import Requirements, moving_fields
from providers.moderations import ModerationAnswer, ModerationRequest
from providers.rerank import RerankAnswer, RerankRequest

Use: TypeAlias = Literal["chat", "embeddings", "moderations", "rerank"]
"""A kind of requests to an assistant. Each has routes of its own."""
USES: tuple[Use, ...] = get_args(Use)
InputRequest: TypeAlias = EmbeddingRequest | ModerationRequest | RerankRequest
InputAnswer: TypeAlias = EmbeddingAnswer | ModerationAnswer | RerankAnswer
ServedRequest: TypeAlias = ChatRequest | InputRequest
"""Every request that the gateway sends to a deployment."""
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
        case _:
            assert_never(request)


def needs_of_input(request: InputRequest) -> Requirements:
    """Return what a request requires of a deployment."""
    features: set[str] = set()
    parameters = set(request.extra)
    match request:
        case EmbeddingRequest():
            features |= {"token_input"} if request.takes_tokens else set()
            features |= {"dimensions"} if request.dimensions is not None else set()
            parameters |= request.unread
            parameters |= {"user"} if request.user is not None else set()
        case ModerationRequest():
            for content in request.inputs:
                urls = [] if isinstance(content, str) else [it.url for it in content if isinstance(it, ImagePart)]
                features |= {"vision"} if urls else set()
                features |= {"image_url"} if any(url[:5].lower() != "data:" for url in urls) else set()
        case RerankRequest():
            parameters |= request.unread
            parameters |= {"max_tokens_per_doc"} if request.max_tokens_per_doc is not None else set()
        case _:
            assert_never(request)
    moving = moving_fields(request.extra)
    return Requirements(frozenset(features), frozenset(parameters), moving, use=use_of(request))


def texts_of(request: InputRequest) -> Iterator[str]:
    """Yield every text of the request's input. Tokens are not text."""
    if isinstance(request, RerankRequest):
        yield request.query
        yield from request.documents
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


class MeasuredRerank(ChatRequest, frozen=True):
    """A rerank as a chat whose cost bounds its own.

    Attributes:
        search_units: The most search units that a vendor counts for it.
    """

    search_units: int = 0


def measured_as_chat(request: ServedRequest) -> ChatRequest:
    """Return a chat whose cost bounds that of the request: with the same texts, and one character for each token."""
    match request:
        case ChatRequest():
            return request
        case EmbeddingRequest() | RerankRequest():
            most = 1
        case ModerationRequest():
            most = _MOST_VERDICT_TOKENS * len(request.inputs)
        case _:
            assert_never(request)
    if isinstance(request, RerankRequest):
        # Some vendors count the query once for each document.
        texts = [text for document in request.documents for text in (request.query, document)]
        messages, units = tuple(map(UserMessage, texts)), request.most_search_units
        return MeasuredRerank(request.model, messages, max_tokens=1, reasoning_effort="none", search_units=units)
    inputs = [UserMessage(text) for text in texts_of(request)]
    tokens = sum(
        1 for content in request.inputs if not isinstance(content, str) for it in content if isinstance(it, int)
    )
    if tokens:
        inputs.append(UserMessage("0" * tokens))
    return ChatRequest(request.model or "", tuple(inputs), max_tokens=most, reasoning_effort="none")
