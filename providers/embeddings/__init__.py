"""Embeddings: canonical requests and vectors, the optional protocol of an adapter, and OpenAI's format of both.

Adapters that have embeddings satisfy `Embeds`.
"""

from providers.embeddings.contract import (
    EmbeddingFacts,
    EmbeddingFormat,
    Embeds,
    batches_of,
    capabilities_of,
    embeddings_of,
    joined,
)
from providers.embeddings.facts import VendorEmbeddings, load_embedding_facts
from providers.embeddings.openai_format import Encoding, OpenAIEmbeddings, decode_embedding_request, encode_embeddings
from providers.embeddings.values import EmbeddingAnswer, EmbeddingRequest, Tokens, Vector, check_answer

__all__ = [
    "EmbeddingAnswer",
    "EmbeddingFacts",
    "EmbeddingFormat",
    "EmbeddingRequest",
    "Embeds",
    "Encoding",
    "OpenAIEmbeddings",
    "Tokens",
    "Vector",
    "VendorEmbeddings",
    "batches_of",
    "capabilities_of",
    "check_answer",
    "decode_embedding_request",
    "embeddings_of",
    "encode_embeddings",
    "joined",
    "load_embedding_facts",
]
