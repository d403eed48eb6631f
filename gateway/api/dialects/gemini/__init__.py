"""Gemini's `generateContent` and `countTokens`: the API of google-genai and of Gemini CLI.

Source: ai.google.dev/api/generate-content and google-genai 3.4 for Python, read 2026-11-23.
"""

from gateway.api.dialects.gemini.dialect import Gemini, GeminiCount
from gateway.api.dialects.gemini.errors import encode_error

__all__ = ["Gemini", "GeminiCount", "encode_error"]
