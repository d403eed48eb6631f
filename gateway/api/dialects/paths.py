"""The paths of the dialects: which API a request to a path speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gateway.api.dialects.dialect import Dialect
from gateway.api.dialects.openai_chat import OPENAI_CHAT

CHAT_PATH = "/v1/chat/completions"

_AT_PATH: Mapping[str, Callable[[], Dialect]] = {CHAT_PATH: lambda: OPENAI_CHAT}
"""Makes the dialect for one request, by path."""


def dialect_at(path: str) -> Dialect | None:
    """Return the dialect for one POST request to this path; None if no dialect has the path."""
    make = _AT_PATH.get(path)
    return make() if make is not None else None
