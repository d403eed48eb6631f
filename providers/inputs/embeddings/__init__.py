"""Embeddings: canonical requests and vectors, the optional protocol of an adapter, and OpenAI's format of both.

Adapters that have embeddings satisfy `Embeds`.
"""
