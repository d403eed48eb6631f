"""Check a bound at its edge, on both sides: the last amount that passes, and the first that does not.

The bound is set to a small number for that, so that an amount is made fast.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Edge", "accepts", "at_least", "at_most", "below", "file_of"]


@dataclass(frozen=True)
class Edge:
    """The edge of a bound.

    Attributes:
        bound: The name of the constant after that of the module that compares with it.
        passes: Returns whether an amount passes.
        value: The value that the constant gets.
        last: The last amount that passes.
        first: The first amount that does not.
    """

    bound: str
    passes: Callable[[int], object]
    value: int
    last: int
    first: int

    def check(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Check both sides. The working directory is an empty folder."""
        module, _, name = self.bound.rpartition(".")
        monkeypatch.chdir(folder)
        monkeypatch.setattr(importlib.import_module(module), name, self.value)
        assert self.passes(self.last)
        assert not self.passes(self.first)


def at_most(bound: str, passes: Callable[[int], object], value: int = 5) -> Edge:
    """Return the edge of a bound that is the largest amount that passes."""
    return Edge(bound, passes, value, value, value + 1)


def below(bound: str, passes: Callable[[int], object], value: int = 5) -> Edge:
    """Return the edge of a bound that is the smallest amount that does not pass."""
    return Edge(bound, passes, value, value - 1, value)


def at_least(bound: str, passes: Callable[[int], object], value: int = 5) -> Edge:
    """Return the edge of a bound that is the smallest amount that passes."""
    return Edge(bound, passes, value, value, value - 1)


def accepts(call: Callable[..., object], *arguments: object, **named: object) -> bool:
    """Return whether a call raises nothing. That the bound is the reason, `tests/mutation/bounds.py` shows."""
    try:
        call(*arguments, **named)
    except Exception:
        return False
    return True


def file_of(size: int, text: bytes = b"", mode: int = 0o600) -> str:
    """Write a file of this many bytes into the working directory, which begins with the text, and return its name."""
    path = Path("file")
    path.write_bytes(text.ljust(size, b"x"))
    path.chmod(mode)
    return path.name
