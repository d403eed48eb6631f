"""Chunks of Gemini's stream in the usual layout: told by one expression each, not parsed.

The expression is the whole chunk's grammar, so that what it matches is valid JSON and says nothing but its text and the
counts. Whatever differs, in its order or by one more field, is parsed as ever.

The layout is the one that Google's own examples of the API show; no stream was captured for it. Where it differs, only
the speed is lost.
"""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import islice
from typing import Any

__all__ = ["usual_texts"]

# A pair of surrogates may be split over two chunks: those escapes are left to the ordinary way.
_STRING = r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}))++'
_NUMBER = "(?:0|[1-9][0-9]{0,15}+)"
_DETAIL = f'{{"modality": ?"[A-Z_]++", ?"tokenCount": ?{_NUMBER}}}'
_COUNT = rf'"[A-Za-z]++": ?(?:{_NUMBER}|\[{_DETAIL}(?:, ?{_DETAIL})*+\])'
_USUAL = re.compile(
    (
        rf'{{"candidates": ?\[{{"content": ?{{"parts": ?\[{{"text": ?"({_STRING})"}}\], ?"role": ?"model"}}'
        rf'(?:, ?"index": ?0)?+}}\], ?"usageMetadata": ?{{{_COUNT}(?:, ?{_COUNT})*+}}'
        r', ?"modelVersion": ?"[A-Za-z0-9.@_-]*+", ?"responseId": ?"[A-Za-z0-9_-]*+"}'
    ).encode()
)


def usual_texts(events: list[Any], start: int) -> tuple[bytes, ...]:
    """The texts of the usual chunks in a row, as the insides of JSON strings; none if one of them is no UTF-8."""
    texts: list[bytes] = []
    with suppress(TypeError):
        for chunk in map(_USUAL.fullmatch, islice(events, start, None)):
            if chunk is None:
                break
            texts.append(chunk[1])
    try:
        b'"'.join(texts).decode()
    except UnicodeDecodeError:
        return ()
    return tuple(texts)
