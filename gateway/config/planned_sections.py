"""The sections of usage and money, which are compiled but not yet applied: they are refused by name.

A key without an effect would promise a limit that does not exist. Remove this module when the sections are applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.config.problems import KeyPath, dotted
from gateway.config.validation import Findings

_PLANNED: tuple[KeyPath, ...] = (
    ("clients_source",),
    ("keys",),
    ("cell", "name"),
    ("secrets", "cookies"),
    ("secrets", "receipts"),
    ("secrets", "consent", 1),
    ("secrets", "identity", 1),
)
"""The paths of the refused keys. In a path, `*` stands for any name."""

_OF_STORES: tuple[KeyPath, ...] = (("secrets", "pepper"),)
"""The paths of keys that have an effect with `stores` only."""


def refuse_planned_sections(findings: Findings) -> None:
    """Report the planned keys that are written, all of them as one error at the first."""
    patterns = _PLANNED if "stores" in findings.source.values else (*_PLANNED, *_OF_STORES)
    found = {
        pattern: path for pattern in patterns if (path := next(_written((), findings.source.values, pattern), None))
    }
    if not found:
        return
    first = min(found.values(), key=lambda path: findings.source.position(path, key=True))
    names = ", ".join(f"`{dotted(pattern)}`" for pattern in found)
    are = "is" if len(found) == 1 else "are"
    message = f"usage and money: {names} {are} not supported by this version yet"
    findings.error(first, message, "remove them; `rpm` and `concurrent` limit requests", key=True)


def _written(path: KeyPath, value: object, rest: KeyPath) -> Iterator[KeyPath]:
    """Yield each path of the values that matches a pattern. `*` stands for any name."""
    if not rest:
        yield path
        return
    part = rest[0]
    if isinstance(value, Mapping):
        for name in value if part == "*" else {part} & value.keys():
            yield from _written((*path, name), value[name], rest[1:])
    elif isinstance(value, list) and isinstance(part, int) and part < len(value):
        yield from _written((*path, part), value[part], rest[1:])
