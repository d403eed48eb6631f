"""The paths of Gemini's API: `/v1beta/models/{assistant}:{method}`, and the same under `/v1`."""

from __future__ import annotations

import re

from providers.value import Value

VERSIONS = ("/v1beta", "/v1")
"""google-genai for Python uses `/v1`; the SDK for Node and Gemini CLI use `/v1beta`."""
METHODS = ("generateContent", "streamGenerateContent", "countTokens", "embedContent", "batchEmbedContents")
"""The methods that the gateway answers."""
NOT_OFFERED = ("batchGenerateContent", "asyncBatchEmbedContent")
"""Methods that the gateway knows and does not answer: jobs that Google runs later."""

_PATH = re.compile(r"/v1(?:beta)?/models/(.+):([A-Za-z]+)", re.DOTALL)
_EVENTS = re.compile(rb"(?:^|&)(?:alt|%24alt|\$alt)=sse(?:&|$)")


class GeminiPath(Value, frozen=True):
    """A path of Gemini's API: an assistant, whose name may contain a slash, and a method such as `generateContent`."""

    assistant: str
    method: str


def parse_path(path: str) -> GeminiPath | None:
    """Return the assistant and the method of a decoded path; None for the path of another API."""
    match = _PATH.fullmatch(path)
    return GeminiPath(match[1], match[2]) if match is not None else None


def is_gemini_path(path: str) -> bool:
    """Return whether errors at this path are written in Google's form."""
    return path.startswith("/v1beta/") or path == "/v1beta" or parse_path(path) is not None


def asks_for_events(query: bytes) -> bool:
    """Return whether a stream is asked for as server-sent events (`alt=sse`), not as one JSON array."""
    return _EVENTS.search(query) is not None
