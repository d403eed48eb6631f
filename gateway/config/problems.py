"""What is wrong with a config: where, what, and how to mend it. A problem never holds a secret.

ConfigRejected    the config has at least one error; `problems` has every one, and the warnings
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest
from typing import Literal

KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead to a value: `("deployments", "qwen-cn", "api_key", 0)`."""

Severity = Literal["error", "warning"]

_SHOWN_CHARACTERS = 60
_SHOWN_NAMES = 12
_COMPARED = 32


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, or one thing to know. line and column count from 1; 0 where the file as a whole is meant.

    file: empty where it stands in none.
    hint: what to do about it; empty where the message says it all.
    """

    file: str
    line: int
    column: int
    path: KeyPath
    message: str
    hint: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        """`config/gateway.yaml:12:5: deployments.x.provider: unknown provider 'dashscop'; did you mean 'dashscope'?`"""
        mark = "warning: " if self.severity == "warning" else ""
        path = f"{dotted(self.path)}: " if self.path else ""
        hint = f"; {self.hint}" if self.hint else ""
        place = f"{self._place}: " if self.file else ""
        return visible(f"{place}{mark}{path}{self.message}{hint}")

    @property
    def _place(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @property
    def order(self) -> tuple[str, int, int, KeyPath, str]:
        """By place in the file."""
        return (self.file, self.line, self.column, tuple(map(str, self.path)), self.message)


class ConfigRejected(Exception):
    """A config that can't be used; `problems` has everything found, sorted by place, warnings too."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda problem: problem.order))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: KeyPath) -> str:
    """The path as people write it: `assistants.assistant.routes.cn[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_printable(part)}"
    return text.removeprefix(".")


def quoted(word: str) -> str:
    """The word in quotes, printable and not too long, for a message."""
    return f"'{_printable(word)}'"


def visible(text: str) -> str:
    """On one line, and nothing that a terminal would obey: a file's name may hold anything, and so may a config, and
    what a server says."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _printable(text: str) -> str:
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…"


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that `word` was probably meant to be, None where none is near."""
    from difflib import get_close_matches  # who serves has no words to mend

    by_lower = {_folded(name): name for name in sorted(names, reverse=True)}
    wanted = _folded(word[:_SHOWN_CHARACTERS])
    likely = nlargest(_COMPARED, by_lower, key=lambda name: _common_ends(name, wanted))
    close = get_close_matches(wanted, likely, n=1, cutoff=0.65)
    return by_lower[close[0]] if close else None


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _common_ends(one: str, other: str) -> int:
    """How many characters both begin and end with: quick to tell, where comparing a thousand names is not."""
    return _common_beginning(one, other) + _common_beginning(one[::-1], other[::-1])


def _common_beginning(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (mine, theirs) in enumerate(pairs) if mine != theirs), min(len(one), len(other)))


def choice_hint(word: str, names: Iterable[str], *, none: str = "there is none") -> str:
    """The nearest name as a question, else the names that there are, else what `none` says."""
    known = sorted(names)
    near = nearest(word, known)
    if near is not None:
        return f"did you mean {quoted(near)}?"
    if not known:
        return none
    rest = len(known) - _SHOWN_NAMES
    more = f" and {rest} more" if rest > 0 else ""
    return f"there {'is' if len(known) == 1 else 'are'} {', '.join(known[:_SHOWN_NAMES])}{more}"
