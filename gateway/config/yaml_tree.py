"""A tree of plain values with the place of each, built from a YAML parser's events within bounds.

The core schema and nothing else: `NO`, `on`, `yes`, dates and `12:30:00` are strings. Building from events, not from
composed nodes, bounds nesting and the growth through aliases while the text is read, without recursion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from gateway.config.problems import ConfigRejected, Path, Problem, quoted

__all__ = ["MAX_DEPTH", "MAX_NODES", "Builder", "Node", "Source"]

MAX_NODES = 100_000
MAX_DEPTH = 64

_CORE = "tag:yaml.org,2002:"

# YAML 1.2.2, section 10.3.2 (core schema).
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(slots=True)
class Node:
    """A value and where it stands. size: of its tree with every alias written out; height: collections on top of each
    other in it."""

    line: int
    column: int
    value: object = field(repr=False)
    items: list[Node] | None = field(default=None, repr=False)
    entries: dict[str, tuple[Node, Node]] | None = field(default=None, repr=False)
    size: int = 1
    height: int = 0

    @property
    def is_collection(self) -> bool:
        """Whether it is a list or a mapping, and no scalar."""
        return self.items is not None or self.entries is not None


@dataclass(frozen=True, slots=True)
class Source:
    """The values of one file, the place of each, and the mistakes that didn't end the reading."""

    file: str
    values: dict[str, object] = field(repr=False)  # a key may be written among them
    problems: tuple[Problem, ...]
    root: Node

    def place(self, path: Path, *, key: bool = False) -> tuple[int, int]:
        """Line and column of the value at `path`, or of the last part of the way that exists.

        A collection is pointed at by its key; a scalar by itself, unless the `key` is asked for.
        """
        node, at = self.root, self.root
        for index, part in enumerate(path):
            label, child = _child(node, part)
            if child is None:
                return at.line, at.column
            wants_key = child.is_collection or (key and index == len(path) - 1)
            node, at = child, label if label is not None and wants_key else child
        return at.line, at.column

    def has(self, path: Path) -> bool:
        """Whether something is written at `path`."""
        node: Node | None = self.root
        for part in path:
            node = _child(node, part)[1] if node is not None else None
        return node is not None


def _child(node: Node, part: str | int) -> tuple[Node | None, Node | None]:
    """The key and the value of one part of a path; no key in a list, no value where there is none."""
    if isinstance(part, int):
        found = node.items is not None and part < len(node.items)
        return None, node.items[part] if found and node.items is not None else None
    return (node.entries or {}).get(part, (None, None))


@dataclass(slots=True)
class _Frame:
    """A collection that is being filled."""

    node: Node
    anchor: str | None
    key: Node | None = None


@dataclass(slots=True)
class Builder:
    """Values and places from the parser's events, within the bounds."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    root: Node | None = None
    _open: list[_Frame] = field(default_factory=list)
    _anchors: dict[str, Node] = field(default_factory=dict)
    _size: int = 0

    def feed(self, event: yaml.Event) -> None:
        """Take one event; raises ConfigRejected where a bound is passed."""
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        match event:
            case yaml.DocumentStartEvent() if self.root is not None:
                raise self._fatal(
                    line, column, "a second document begins here", "a config is one document; remove `---`"
                )
            case yaml.ScalarEvent():
                node = Node(line, column, self._scalar(event, line, column))
                if event.anchor:
                    self._anchors[event.anchor] = node
                self._complete(node, 1)
            case yaml.AliasEvent():
                self._alias(event.anchor, line, column)
            case yaml.MappingStartEvent():
                values: dict[str, object] = {}
                self._begin(Node(line, column, values, entries={}, height=1), event)
            case yaml.SequenceStartEvent():
                elements: list[object] = []
                self._begin(Node(line, column, elements, items=[], height=1), event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                frame = self._open.pop()
                if frame.anchor:
                    self._anchors[frame.anchor] = frame.node
                self._complete(frame.node, 0)

    def _begin(self, node: Node, event: yaml.CollectionStartEvent) -> None:
        own = "map" if node.entries is not None else "seq"
        if event.tag not in (None, "!", _CORE + own):
            self._refuse_tag(node.line, node.column)
        if len(self._open) >= MAX_DEPTH:
            raise self._fatal(node.line, node.column, f"more than {MAX_DEPTH} levels deep")
        self._count(1, node)
        self._open.append(_Frame(node, event.anchor))

    def _alias(self, name: str | None, line: int, column: int) -> None:
        target = self._anchors.get(name or "")
        if any(frame.anchor == name for frame in self._open):
            raise self._fatal(line, column, "an alias inside the very value that it stands for", "write it out")
        if target is None:
            hint = 'define it with `&` first, or put the text in quotes (everywhere is "*")'
            raise self._fatal(line, column, "an alias (`*`) of an anchor that is not defined before it", hint)
        if len(self._open) + target.height > MAX_DEPTH:
            raise self._fatal(line, column, f"with this alias, more than {MAX_DEPTH} levels deep")
        node = Node(line, column, target.value, target.items, target.entries, target.size, target.height)
        self._complete(node, node.size)

    def _complete(self, node: Node, growth: int) -> None:
        """Put a whole value where it belongs; `growth` is what it adds to the size that is not counted yet."""
        self._count(growth, node)
        if not self._open:
            self.root = node
            return
        frame = self._open[-1]
        parent = frame.node
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.items is not None and isinstance(parent.value, list):
            parent.items.append(node)
            parent.value.append(node.value)
        elif frame.key is None:
            frame.key = node
        else:
            self._entry(parent, frame.key, node)
            frame.key = None

    def _entry(self, parent: Node, key: Node, node: Node) -> None:
        name = key.value
        if not isinstance(name, str) or parent.entries is None or not isinstance(parent.value, dict):
            hint = "" if key.is_collection else "put it in quotes"
            self._problem(key.line, key.column, "a key must be a string", hint)
        elif name == "<<":
            hint = "write the keys out, or give the whole value an anchor (`&name`) and repeat it (`*name`)"
            self._problem(key.line, key.column, "merge keys (`<<`) are not part of YAML 1.2", hint)
        elif name in parent.entries:
            first = parent.entries[name][0].line
            self._problem(key.line, key.column, f"the key {quoted(name)} is already in line {first}", "remove one")
        else:
            parent.entries[name] = (key, node)
            parent.value[name] = node.value

    def _scalar(self, event: yaml.ScalarEvent, line: int, column: int) -> object:
        text = event.value
        if event.tag is None:
            return text if event.style else _resolve(text)
        if event.tag in ("!", _CORE + "str"):
            return text
        wanted = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
        value = _resolve(text)
        kinds = wanted.get(event.tag.removeprefix(_CORE)) if event.tag.startswith(_CORE) else None
        if kinds is None or type(value) not in kinds:
            self._refuse_tag(line, column)
        return value

    def _refuse_tag(self, line: int, column: int) -> None:
        hint = 'put a text that begins with `!` in quotes, such as "!CN"'
        self._problem(line, column, "a tag (`!`) that plain YAML doesn't know, or that doesn't fit the value", hint)

    def _count(self, growth: int, node: Node) -> None:
        self._size += growth
        if self._size > MAX_NODES:
            message = f"more than {MAX_NODES:,} values, counting what aliases repeat"
            raise self._fatal(node.line, node.column, message, "repeat less with `*`")

    def _problem(self, line: int, column: int, message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.file, line, column, (), message, hint))

    def _fatal(self, line: int, column: int, message: str, hint: str = "") -> ConfigRejected:
        return ConfigRejected([*self.problems, Problem(self.file, line, column, (), message, hint)])


def _resolve(text: str) -> object:
    """A plain scalar by the core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text[-1].isalpha() else text)
    return text
