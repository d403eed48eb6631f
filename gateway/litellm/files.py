"""Read the values of another gateway's configuration and remember which were used, and write YAML with gaps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.config.problems import KeyPath, dotted
from gateway.config.yaml_document import GAP, Source, scalar
from providers.value import Value

LOGIN = re.compile(r"://[^/@\s]*@")
"""The login of a URL, which is a secret also in a name."""

_VISIBLE = re.compile(r"[!-~]{1,256}")
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)")


class Gap(Value, frozen=True):
    """A value that the source does not have. It is written as a comment in place of the key."""

    text: str


@dataclass(slots=True)
class Unique:
    """Gives names that are not taken yet."""

    taken: set[str] = field(default_factory=set)
    mark: str = "-"
    _numbers: dict[str, int] = field(default_factory=dict)

    def unique(self, wanted: str) -> str:
        """Return the name, with a number if it is taken."""
        name = wanted
        while name in self.taken:
            self._numbers[wanted] = number = self._numbers.get(wanted, 1) + 1
            name = f"{wanted}{self.mark}{number}"
        self.taken.add(name)
        return name


@dataclass(slots=True)
class SourceReading:
    """The values of a source. A value that was converted is marked, so that every other one can be listed."""

    source: Source
    used: set[KeyPath] = field(default_factory=set)
    """The paths of the values that were converted, each with everything below it."""
    notes: dict[KeyPath, str] = field(default_factory=dict)
    """A remark on a value, by its path. It is listed once, also if the value was converted."""
    opened: set[KeyPath] = field(default_factory=set)
    """The paths of restrictions that the source has, and the converted file has not."""

    def at(self, *path: str | int) -> Any:
        """Return the value at a path, or None."""
        value: Any = self.source.values
        for part in path:
            if isinstance(value, dict) and isinstance(part, str):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def use(self, *path: str | int, note: str = "") -> None:
        """Mark a value as converted."""
        self.used.add(path)
        if note:
            self.note(*path, note=note)

    def note(self, *path: str | int, note: str) -> None:
        self.notes.setdefault(path, note)

    def open(self, *path: str | int, note: str) -> None:
        """Mark a value as a restriction that the converted file has not."""
        self.opened.add(path)
        self.notes[path] = note

    def entries(self, *path: str | int) -> list[int]:
        """Return the indexes of the mappings in a list."""
        value = self.at(*path)
        return [index for index, one in enumerate(value) if isinstance(one, dict)] if isinstance(value, list) else []

    def keys(self, *path: str | int) -> list[str]:
        value = self.at(*path)
        return list(value) if isinstance(value, dict) else []

    def text(self, *path: str | int) -> str | None:
        """Return a text of visible ASCII without a reference, or None."""
        value = self.at(*path)
        value = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        return value if isinstance(value, str) and _VISIBLE.fullmatch(value) and "${" not in value else None

    def variable(self, *path: str | int) -> str | None:
        """Return the variable that `os.environ/NAME` names, or None."""
        value = self.at(*path)
        match = _VARIABLE.fullmatch(value) if isinstance(value, str) else None
        return match[1] if match is not None else None

    def number(self, *path: str | int) -> Decimal | None:
        """Return a number of 0 or more, or None. A text that is a number counts."""
        value = self.at(*path)
        if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 40:
            return None
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return None
        return number if number.is_finite() and 0 <= number < 10**15 else None

    def unused(self) -> Iterator[tuple[KeyPath, str]]:
        """Yield each value that was not converted, and once each path with a note, in the order of the file."""
        seen: set[KeyPath] = set()
        for path in self._leaves((), self.source.values):
            covering = [path[:end] for end in range(1, len(path) + 1)]
            noted = next((part for part in covering if part in self.notes), None)
            if noted is not None and noted not in seen:
                seen.add(noted)
                yield noted, self.notes[noted]
            elif noted is None and not self.is_used(path):
                yield path, ""

    def is_used(self, path: KeyPath) -> bool:
        """Return whether a value was converted, itself or with a mapping that contains it."""
        return any(path[:end] in self.used for end in range(1, len(path) + 1))

    def _leaves(self, path: KeyPath, value: object) -> Iterator[KeyPath]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from self._leaves((*path, key), item)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._leaves((*path, index), item)
        else:
            yield path

    def variables(self) -> set[str]:
        """Return the variables that the source names."""
        return {name for path in self._leaves((), self.source.values) if (name := self.variable(*path)) is not None}

    def line(self, path: KeyPath) -> int:
        return self.source.position(path)[0]


def yaml_lines(values: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """Yield the lines of a mapping in block form. A gap is a comment in place of its key."""
    pad = " " * indent
    for key, value in values.items():
        if isinstance(value, Gap):
            yield f"{pad}{GAP}{key}: {value.text}"
        elif isinstance(value, dict) and value:
            yield f"{pad}{scalar(key)}:"
            yield from yaml_lines(value, indent + 2)
        elif isinstance(value, list) and any(_has_gap(one) for one in value):
            yield f"{pad}{scalar(key)}:"
            for one in value:
                first, *rest = yaml_lines(one, indent + 4)
                yield f"{pad}  - {first.lstrip()}"
                yield from rest
        else:
            yield f"{pad}{scalar(key)}: {_flow(value)}"


def gaps_of(values: Mapping[str, Any], path: KeyPath = ()) -> Iterator[str]:
    """Yield the dotted path of each gap."""
    for key, value in values.items():
        if isinstance(value, Gap):
            yield dotted((*path, key))
        elif isinstance(value, dict):
            yield from gaps_of(value, (*path, key))
        elif isinstance(value, list):
            for index, one in enumerate(value):
                yield from gaps_of(one, (*path, key, index)) if isinstance(one, dict) else ()


def _has_gap(value: object) -> bool:
    return isinstance(value, dict) and any(isinstance(one, Gap) for one in value.values())


def _flow(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value)
