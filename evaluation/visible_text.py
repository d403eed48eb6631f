"""Make control characters of answers visible, and create files that only their owner can read.

An answer may contain terminal sequences (ESC), or bidirectional controls that show text in another order than it has.
Line ends, tabs and the joiners of emoji and of Arabic and Indian scripts stay as they are.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TextIO

from gateway.undo import undone_on_failure

# C0 and C1 controls without tab and line feed, soft hyphen, bidirectional controls, zero-width characters without the
# joiners, line separators, invisible operators, surrogates, annotations, the byte order mark and tags.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e007f]"
)


def visible_text(text: str) -> str:
    """Return the text with each control character as its code in brackets: `⟨U+001B⟩`. CR LF becomes LF."""
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    """Return the text on one line, with control characters visible."""
    return " ".join(visible_text(text).split())


def escaped_json(written: str) -> str:
    """Return JSON text whose control characters are escapes. Its values do not change."""
    return _HIDDEN.sub(lambda found: _escape(ord(found[0])), written)


def _escape(code: int) -> str:
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def open_private(path: Path, mode: str = "w", **options: str) -> TextIO:
    """Open a text file for writing that only its owner can read, also if it exists with other permissions.

    `mode` is `w` to replace a file, or `x` to refuse one that exists. The encoding is UTF-8 if none is given.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if mode == "x" else os.O_TRUNC)
    descriptor = os.open(path, flags, 0o600)
    with undone_on_failure(partial(os.close, descriptor)):
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "w", **{"encoding": "utf-8", **options})  # type: ignore[call-overload,no-any-return]
