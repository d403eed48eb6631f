"""OpenAI's embeddings and moderations, and rerank in the form of Cohere and Jina."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.api.body import parse_input
from gateway.api.dialects.openai_chat import InputDialect
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers.chat import Usage
from providers.inputs.embeddings.formats import Encoding, decode_embedding_request, encode_embeddings
from providers.inputs.embeddings.values import EmbeddingAnswer, EmbeddingRequest
from providers.inputs.moderations import decode_moderation_request, encode_moderations
from providers.inputs.rerank.formats import ShownRerank, decode_rerank_request, encode_rerank
from providers.inputs.rerank.values import RerankAnswer
from providers.moderations.values import ModerationAnswer
from providers.served import InputRequest
from providers.value import replace

_BYTES_PER_TOKEN = 4


def shown_model(style: AnswerStyle, record: Record) -> str:
    """Return the name of the model as the client is shown it."""
    return style.shown_model or record.answered_by.model or ""


class OpenAIEmbeddingsDialect(InputDialect):
    """One request for embeddings. If the provider counted no tokens, the client gets an estimate."""

    route = "/v1/embeddings"

    def __init__(self) -> None:
        self._encoding: Encoding = "float"
        self._estimated_tokens = 0

    def decode(self, body: bytes) -> InputRequest:
        request, self._encoding = decode_embedding_request(parse_input(body))
        self._estimated_tokens = estimated_tokens(request)
        return request

    def encode_result(self, result: EmbeddingAnswer, style: AnswerStyle, record: Record) -> bytes:
        if result.usage is None:
            result = replace(result, usage=Usage(prompt_tokens=self._estimated_tokens))
        return encode_embeddings(result, shown_model(style, record), self._encoding)


def estimated_tokens(request: EmbeddingRequest) -> int:
    """Return an estimate of the tokens of all inputs, for an answer without a count."""
    tokens = sum(len(item) for item in request.inputs if not isinstance(item, str))
    return tokens + tokens_of_texts(request.texts())


def tokens_of_texts(texts: Iterable[str]) -> int:
    """Return an estimate of the tokens of texts, for an answer without a count."""
    return -(-sum(len(text.encode("utf-8", "replace")) for text in texts) // _BYTES_PER_TOKEN)


class OpenAIModerationsDialect(InputDialect):
    """One request for moderations."""

    route = "/v1/moderations"

    def decode(self, body: bytes) -> InputRequest:
        return decode_moderation_request(parse_input(body))

    def encode_result(self, result: ModerationAnswer, style: AnswerStyle, record: Record) -> bytes:
        return encode_moderations(result, shown_model(style, record), f"modr-{record.request_id}")


class RerankDialect(InputDialect):
    """One request for scores of documents."""

    route = "/v1/rerank"

    def __init__(self) -> None:
        self._shown = ShownRerank()

    def decode(self, body: bytes) -> InputRequest:
        request, self._shown = decode_rerank_request(parse_input(body))
        return request

    def encode_result(self, result: RerankAnswer, style: AnswerStyle, record: Record) -> bytes:
        return encode_rerank(result, self._shown, shown_model(style, record), f"rerank-{record.request_id}")


class SecondRerankDialect(RerankDialect):
    """The same at the path of Cohere's second API."""

    route = "/v2/rerank"
