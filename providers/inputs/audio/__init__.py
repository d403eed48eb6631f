"""Audio: canonical requests for transcriptions and speech, optional protocols of an adapter, and the vendors' formats.

Adapters whose provider writes audio down satisfy `Transcribes`; those whose provider speaks satisfy `Speaks`.
"""
