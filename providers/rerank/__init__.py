"""Rerank: canonical requests and scores, the optional protocol of an adapter, and the vendors' formats.

Adapters whose provider scores documents satisfy `Reranks`.
"""

from providers.rerank.contract import RerankFacts, RerankFormat, Reranks, rerank_capabilities, rerank_of
from providers.rerank.facts import VendorRerank, load_rerank_facts
from providers.rerank.formats import ShownRerank, VendorRerankFormat, decode_rerank_request, encode_rerank
from providers.rerank.values import RerankAnswer, RerankRequest, rerank_batches, rerank_joined

__all__ = [
    "RerankAnswer",
    "RerankFacts",
    "RerankFormat",
    "RerankRequest",
    "Reranks",
    "ShownRerank",
    "VendorRerank",
    "VendorRerankFormat",
    "decode_rerank_request",
    "encode_rerank",
    "load_rerank_facts",
    "rerank_batches",
    "rerank_capabilities",
    "rerank_joined",
    "rerank_of",
]
