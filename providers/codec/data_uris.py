"""A `data:` URI in a client's request (RFC 2397): taken in one spelling, or refused with what is wrong with it."""

from __future__ import annotations

import re

__all__ = ["is_data_uri", "sound_data_uri"]

_SCHEME = "data:"
_SOUND = re.compile(r"data:[\w.+-]+/[\w.+-]+(;[\w.+-]+=[\w.+-]+)*;base64,[A-Za-z0-9+/_=-]+", re.ASCII)
_NO_BASE64 = re.compile(r"[^A-Za-z0-9+/_=-]", re.ASCII)


def is_data_uri(uri: str) -> bool:
    """Whether the content is in the URI itself."""
    return uri[: len(_SCHEME)].lower() == _SCHEME


def sound_data_uri(uri: str) -> str:
    """The URI, with all before its content in small letters where that makes it sound.

    Raises ValueError, whose words end a sentence that begins with the field.
    """
    if _SOUND.fullmatch(uri):
        return uri
    head, comma, content = uri.partition(",")
    uri = f"{head.lower()},{content}"
    if _SOUND.fullmatch(uri):
        return uri
    raise ValueError(_what_is_wrong(head.lower(), comma, content))


def _what_is_wrong(head: str, comma: str, content: str) -> str:
    if not is_data_uri(head):
        return "is no data URI"
    if not comma or not head.endswith(";base64"):
        return "is a data URI that is not in base64"
    if not content:
        return "is a data URI without content"
    found = _NO_BASE64.search(content)
    if found is None:
        return "is a data URI whose media type can't be read"
    kind = "white space" if found[0].isspace() else "a character"
    return f"has {kind} in its base64 that doesn't belong there (character {found.start() + 1} of it)"
