"""Problems of a configuration: where each one is, what is wrong, and how to fix it. They never contain a secret.

`ConfigRejected` is raised for a configuration with at least one error. Its `problems` contain every error and warning.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from typing import Literal

from gateway.model.units import first_names
from providers.value import Value

KeyPath = tuple[str | int, ...]
"""The keys and list indices that lead to a value: `("deployments", "qwen-cn", "api_key", 0)`."""

Severity = Literal["error", "warning"]

_SHOWN_CHARACTERS = 60
_SHOWN_NAMES = 12
_COMPARED = 32


class Problem(Value, frozen=True):
    """One error or warning."""

    file: str
    line: int
    """Counted from 1, as `column` is; 0 if the problem concerns the whole file."""
    column: int
    path: KeyPath
    message: str
    hint: str = ""
    """How to fix it, or empty if the message is enough."""
    severity: Severity = "error"
    fails_check: bool = False
    """Whether a warning is an error for `gateway check`: a configuration with it must not be written, but a gateway
    that runs it must not stop for it."""

    def __str__(self) -> str:
        """Return one line, such as `config/gateway.yaml:12:5: deployments.x.provider: unknown provider 'dashscop'`."""
        mark = "warning: " if self.severity == "warning" else ""
        path = f"{dotted(self.path)}: " if self.path else ""
        hint = f"; {self.hint}" if self.hint else ""
        position = f"{self._position}: " if self.file else ""
        return visible(f"{position}{mark}{path}{self.message}{hint}")

    @property
    def _position(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @property
    def order(self) -> tuple[str, int, int, KeyPath, str]:
        """The sort key: the position in the file."""
        return (self.file, self.line, self.column, tuple(map(str, self.path)), self.message)


class ConfigRejected(Exception):
    """The configuration has errors. `problems` has every error and warning, sorted by position."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda problem: problem.order))
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: KeyPath) -> str:
    """Return the path in dotted form: `assistants.assistant.routes.cn[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_printable(part)}"
    return text.removeprefix(".")


def quoted(word: str) -> str:
    """Return the word in quotes for a message, printable and shortened."""
    return f"'{_printable(word)}'"


def visible(text: str) -> str:
    """Return the text on one line; control characters, which may be of others, are escaped."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _printable(text: str) -> str:
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…"


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Return the name that `word` was probably meant to be, never `word` itself; None if no name is similar."""
    from difflib import get_close_matches  # imported late: a serving process does not suggest names

    by_lower = {_folded(name): name for name in sorted(names, reverse=True) if name != word}
    folded_word = _folded(word[:_SHOWN_CHARACTERS])
    # A cheap filter: comparing a thousand names with difflib would be slow.
    likely = nlargest(
        _COMPARED,
        by_lower,
        key=lambda name: _common_beginning(name, folded_word) + _common_beginning(name[::-1], folded_word[::-1]),
    )
    close = get_close_matches(folded_word, likely, n=1, cutoff=0.65)
    return by_lower[close[0]] if close else None


def nearest_names(word: str, names: Iterable[str], *, most: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the names that are similar to `word` but not the same, the most similar first."""
    from difflib import get_close_matches  # imported late: a serving process does not suggest names

    return get_close_matches(word[:_SHOWN_CHARACTERS], sorted({*names} - {word}), n=most, cutoff=cutoff)


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _common_beginning(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(one), len(other)))


def choice_hint(word: str, names: Iterable[str], *, none: str = "there is none") -> str:
    """Return a hint: the nearest name as a question, else the list of names, else `none`."""
    known = sorted({*names} - {word})
    near = nearest(word, known)
    if near is not None:
        return f"did you mean {quoted(near)}?"
    if not known:
        return none
    return f"there {'is' if len(known) == 1 else 'are'} {first_names(known, _SHOWN_NAMES)}"
