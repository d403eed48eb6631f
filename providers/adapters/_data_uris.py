"""A client's `data:` URI for formats that want its type and its content apart."""

from __future__ import annotations

__all__ = ["is_data_uri", "split_data_uri"]


def is_data_uri(uri: str) -> bool:
    """Whether the content is in the URI itself."""
    return uri[:5].lower() == "data:"


def split_data_uri(uri: str) -> tuple[str, str]:
    """The type in small letters, empty if none is named, and the content in base64."""
    head, _, data = uri.partition(",")
    mime = head[5:].partition(";")[0].lower()
    # A common slip that OpenAI takes; Gemini and Claude refuse it.
    return "image/jpeg" if mime == "image/jpg" else mime, data
