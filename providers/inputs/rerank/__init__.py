"""Rerank: canonical requests and scores, the optional protocol of an adapter, and the vendors' formats.

Adapters whose provider scores documents have the member `rerank`.
"""
