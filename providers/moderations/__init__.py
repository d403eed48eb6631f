"""Moderations: canonical requests and verdicts, the optional protocol of an adapter, OpenAI's format, and guard models.

Adapters whose provider classifies content satisfy `Moderates`.
"""
