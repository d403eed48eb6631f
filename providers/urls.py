"""A URL taken apart, alike by every version of Python."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

__all__ = ["split_url"]

_BRACKETED = re.compile(r"\[[^][]*\](?::.*)?")


def split_url(url: str) -> SplitResult:
    """The parts of a URL. Raises ValueError where it is none.

    Brackets hold the whole host (RFC 3986, section 3.2.2). Older releases of Python take the host from between them and
    leave out what stands beside it (CVE-2025-0938), which whoever reads the URL next may not.
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if "[" in host and not _BRACKETED.fullmatch(host):
        raise ValueError("brackets hold a part of the host")
    return parts
