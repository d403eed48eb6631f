"""Deprecated alias for one release: import from `providers.contract`."""

from __future__ import annotations

import warnings

from providers.reading.errors import (
    MESSAGES,
    blames_itself,
    by_code,
    by_status,
    error_object,
    failure,
    is_html,
    mistakes_in,
    plain_text,
    request_id_of,
)

__all__ = [
    "MESSAGES",
    "blames_itself",
    "by_code",
    "by_status",
    "error_object",
    "failure",
    "is_html",
    "mistakes_in",
    "plain_text",
    "request_id_of",
]

warnings.warn(
    "providers.classify is deprecated and goes in the next release: import from providers.contract",
    DeprecationWarning,
    stacklevel=2,
)
