"""Put a mutant into an imported module: its functions get the mutant's code, its constants the mutant's values.

A process that has imported everything and collected the tests is then forked for each mutant, and the child runs the
tests at once.
"""

from __future__ import annotations

import ast
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["can_be_swapped", "swap"]


def can_be_swapped(source: str, line: int) -> bool:
    """Return whether the code at this line is in a function or at module level. A class is created only once."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and _holds(node, line):
            return any(
                isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and _holds(inner, line) for inner in node.body
            )
    return True


def _holds(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or 0)


def swap(module: ModuleType, source: str) -> None:
    """Make the module behave as if it had this source."""
    made: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(source, str(module.__file__), "exec"), made)  # noqa: S102  # our own source, spoilt
    for name, new in made.items():
        old = module.__dict__.get(name)
        if name.startswith("__") or isinstance(old, ModuleType) or old is None:
            continue
        if isinstance(old, type) or callable(old):
            if getattr(old, "__module__", None) == module.__name__:
                _swap_code(old, new)
        elif type(old) is type(new):
            module.__dict__[name] = new


def _swap_code(old: Any, new: Any) -> None:
    if isinstance(old, type):
        for name, member in list(new.__dict__.items()):
            if name in old.__dict__:
                _swap_code(old.__dict__[name], member)
    elif isinstance(old, property):
        _swap_code(old.fget, new.fget)
    elif isinstance(old, classmethod | staticmethod):
        _swap_code(old.__func__, new.__func__)
    else:
        old, new = getattr(old, "__wrapped__", old), getattr(new, "__wrapped__", new)
        if isinstance(old, FunctionType) and isinstance(new, FunctionType):
            old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
