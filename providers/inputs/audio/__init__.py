"""Audio: canonical requests for transcriptions and speech, optional protocols of an adapter, and the vendors' formats.

Adapters whose provider writes audio down have the member `transcription`; those whose provider speaks have `speech`.
"""
