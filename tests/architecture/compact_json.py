"""Write JSON with as few lines as 120 columns allow: `python -m tests.architecture.compact_json FILE...` rewrites files.

Only white space changes, so numbers, escapes and repeated keys of a recording stay as they were.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["compact"]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')
_WIDTH = 120


def compact(text: str) -> str:
    """Return the same JSON text in another layout: a value stands on one line if it fits, and scalars fill their lines."""
    return "\n".join(_lines(_TOKEN.findall(text), "", "")) + "\n"


def _lines(tokens: list[str], indent: str, after: str) -> Iterator[str]:
    flat = indent + re.sub(r"([,:])\0", r"\1 ", "".join(one + "\0" * (one in ",:") for one in tokens)) + after
    opening = next((at for at, one in enumerate(tokens[:3]) if one in "[{"), None)
    if len(flat) <= _WIDTH or opening is None or len(tokens) - opening <= 2:
        yield flat
        return
    yield indent + "".join(tokens[:opening]).replace(":", ": ") + tokens[opening]
    depth, start, row = 0, opening + 1, ""
    for at in range(opening + 1, len(tokens)):
        depth += (tokens[at] in "[{") - (tokens[at] in "]}")
        if depth < 0 or (depth == 0 and tokens[at] == ","):
            is_scalar = not any(one in "[{" for one in tokens[start:at])
            for line in _lines(tokens[start:at], indent + " ", "," if depth == 0 else ""):
                if row and is_scalar and len(row) + len(line) - len(indent) <= _WIDTH:
                    row += line[len(indent) :]
                    continue
                if row:
                    yield row
                row = line if is_scalar else ""
                if not is_scalar:
                    yield line
            start = at + 1
    if row:
        yield row
    yield indent + tokens[-1] + after


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(compact(path.read_text("utf-8")), "utf-8")
