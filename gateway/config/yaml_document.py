"""Parse YAML 1.2 into values with positions. The size and the depth are limited."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from gateway.config.problems import ConfigRejected, KeyPath, Problem, quoted
from gateway.config.source_text import MAX_BYTES

MAX_NODES = 300_000

MAX_DEPTH = 64

_CORE = "tag:yaml.org,2002:"

# YAML 1.2.2, section 10.3.2 (core schema).
_NULL = re.compile(r"null|Null|NULL|~|")

_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")

_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NEW_LINE = re.compile(r"\r\n|\r|\n")
# Section 5.1, without the line breaks of YAML 1.1 (NEL, LS, PS). The parser counts them as line breaks, editors do not.
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_OTHER_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
GAP = "# GAP: "
"""Begins a comment that a converted file has in place of a key whose value its source did not have."""
_GAP_LINE = re.compile(rf"^( +){GAP}(\S+): ?(.*)", re.MULTILINE)
# Elsewhere a key that is missing is an error anyway, or its absence allows nothing.
_WITH_OPEN_GAPS = ("clients", "models")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_AS_UTF_8 = "save the file as UTF-8"
_BEGINNINGS = {
    "\t": ("a tab where only spaces are allowed", "indent with spaces"),
    "@": ("a text that begins with `@` must be in quotes", 'write it as "@EEA"'),
    "`": ("a text that begins with a backtick must be in quotes", "put it in quotes"),
    "%": ("a text that begins with `%` must be in quotes", "put it in quotes"),
    "*": ("a text that begins with `*` must be in quotes", 'write everywhere as "*"'),
    "!": ("a text that begins with `!` must be in quotes", 'write an exclusion as "!CN"'),
    "&": ("a text that begins with `&` must be in quotes", "put it in quotes"),
    '"': ("a quote that is never closed, or closed in the wrong place", 'close it with `"`'),
    "'": ("a quote that is never closed, or closed in the wrong place", "close it with `'`"),
    ":": ("a `:` where a key is not allowed", "put a text with `: ` in quotes, and check the indentation"),
}


@dataclass(slots=True)
class Node:
    """A value and its position, the number of values in its tree with every alias expanded, and its height."""

    line: int
    column: int
    value: object = field(repr=False)
    items: list[Node] | None = field(default=None, repr=False)
    entries: dict[str, tuple[Node, Node]] | None = field(default=None, repr=False)
    size: int = 1
    height: int = 0

    @property
    def is_collection(self) -> bool:
        """Whether it is a list or a mapping."""
        return self.items is not None or self.entries is not None


@dataclass(frozen=True, slots=True)
class Source:
    """The values of one file, their positions, and the errors after which parsing could continue.

    `gaps` has an error for each gap that was not filled, where without its key the file would allow more.
    """

    file: str
    values: dict[str, object] = field(repr=False)  # a key may be written among them
    problems: tuple[Problem, ...]
    root: Node
    gaps: tuple[Problem, ...] = ()

    def position(self, path: KeyPath, *, key: bool = False) -> tuple[int, int]:
        """Return the line and column of the value at `path`, or of the last part of the path that exists.

        For a collection, and for a scalar with `key`, it is the position of the key.
        """
        node, at = self.root, self.root
        for index, part in enumerate(path):
            label, child = _child(node, part)
            if child is None:
                return at.line, at.column
            wants_key = child.is_collection or (key and index == len(path) - 1)
            node, at = child, label if label is not None and wants_key else child
        return at.line, at.column

    def has(self, path: KeyPath) -> bool:
        """Return whether there is a value at `path`."""
        node: Node | None = self.root
        for part in path:
            node = _child(node, part)[1] if node is not None else None
        return node is not None


def _child(node: Node, part: str | int) -> tuple[Node | None, Node | None]:
    """Return the nodes of the key and the value of one part of a path. A list item has no key."""
    if isinstance(part, int):
        return None, node.items[part] if node.items is not None and part < len(node.items) else None
    return (node.entries or {}).get(part, (None, None))


@dataclass(slots=True)
class _Frame:
    """A collection that is not complete yet."""

    node: Node
    anchor: str | None
    key: Node | None = None


@dataclass(slots=True)
class Builder:
    """Build values with positions from the events of the parser, and enforce the limits."""

    file: str
    merges: bool = False
    problems: list[Problem] = field(default_factory=list)
    root: Node | None = None
    _open: list[_Frame] = field(default_factory=list)
    _anchors: dict[str, Node] = field(default_factory=dict)
    _size: int = 0

    def feed(self, event: yaml.Event) -> None:
        """Process one event. Raises ConfigRejected if a limit is exceeded, or the document cannot be used."""
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        match event:
            case yaml.DocumentStartEvent() if self.root is not None:
                hint = "a config is one document; remove `---`"
                raise self._fatal(line, column, "a second document begins here", hint)
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
            raise self._fatal(line, column, "an alias inside the value that it refers to", "write it out")
        if target is None:
            hint = 'define it with `&` first, or put the text in quotes (everywhere is "*")'
            raise self._fatal(line, column, "an alias (`*`) of an anchor that is not defined before it", hint)
        if len(self._open) + target.height > MAX_DEPTH:
            raise self._fatal(line, column, f"with this alias, more than {MAX_DEPTH} levels deep")
        node = Node(line, column, target.value, target.items, target.entries, target.size, target.height)
        self._complete(node, node.size)

    def _complete(self, node: Node, growth: int) -> None:
        """Add a complete value to its collection. `growth` is the part of its size that was not counted yet."""
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
        elif name == "<<" and self.merges:
            self._merge(parent, node)
        elif name == "<<":
            hint = "write the keys out, or give the whole value an anchor (`&name`) and repeat it (`*name`)"
            self._problem(key.line, key.column, "merge keys (`<<`) are not part of YAML 1.2", hint)
        elif name in parent.entries and parent.entries[name][0].value is not None:
            first = parent.entries[name][0].line
            self._problem(key.line, key.column, f"the key {quoted(name)} is already in line {first}", "remove one")
        else:
            parent.entries[name] = (key, node)
            parent.value[name] = node.value

    def _merge(self, parent: Node, node: Node) -> None:
        """Add the keys of a merge key (YAML 1.1) that the mapping lacks. Later keys of the mapping may replace them."""
        if parent.entries is None or not isinstance(parent.value, dict):
            return
        for one in node.items if node.items is not None else [node]:
            if one.entries is None:
                self._problem(one.line, one.column, "a merge key (`<<`) needs a mapping, or a list of mappings")
            for name, (_, value) in (one.entries or {}).items():
                if name not in parent.entries:
                    parent.entries[name] = (Node(node.line, node.column, None), value)
                    parent.value[name] = value.value

    def _scalar(self, event: yaml.ScalarEvent, line: int, column: int) -> object:
        text = event.value
        if event.tag is None:
            return text if event.style else _resolve(text)
        if event.tag in ("!", _CORE + "str"):
            return text
        types_by_tag = {"int": (int,), "float": (int, float), "bool": (bool,), "null": (type(None),)}
        value = _resolve(text)
        kinds = types_by_tag.get(event.tag.removeprefix(_CORE)) if event.tag.startswith(_CORE) else None
        if kinds is None or type(value) not in kinds:
            self._refuse_tag(line, column)
        return value

    def _refuse_tag(self, line: int, column: int) -> None:
        hint = 'put a text that begins with `!` in quotes, such as "!CN"'
        self._problem(line, column, "a tag (`!`) that YAML 1.2 does not define, or that does not fit the value", hint)

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
    """Return the value of a plain scalar in the core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text[-1].isalpha() else text)
    return text


def parse_yaml(data: bytes, file: str, *, merges: bool = False) -> Source:
    """Parse a YAML document whose root is a mapping, also one with `merges` (`<<`, YAML 1.1). Raises ConfigRejected."""
    builder = Builder(file, merges)
    text = _decode(data, file)
    try:
        for event in _events(text):
            builder.feed(event)
    except yaml.MarkedYAMLError as error:
        raise ConfigRejected([*builder.problems, _syntax_problem(error, text, file)]) from None
    root = builder.root
    if root is None or root.value is None:
        hint = "`gateway init` writes one to start from"
        raise ConfigRejected([*builder.problems, Problem(file, 1, 1, (), "the file is empty", hint)])
    if not isinstance(root.value, dict):
        hint = "it starts with `version: 1`"
        problem = Problem(file, root.line, root.column, (), "the file must be a mapping of keys to values", hint)
        raise ConfigRejected([*builder.problems, problem])
    return Source(file, root.value, tuple(builder.problems), root, tuple(_open_gaps(text, root, file)))


def _open_gaps(text: str, root: Node, file: str) -> Iterator[Problem]:
    """Yield an error for each gap that was not filled, where without its key the file would allow more."""
    if GAP not in text:
        return
    sections = [(key.line, name) for name, (key, _) in (root.entries or {}).items()]
    for match in _GAP_LINE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        section = max((one for one in sections if one[0] < line), default=(0, ""))[1]
        if section in _WITH_OPEN_GAPS:
            message = f"the value of `{match[2]}` is still missing: {match[3]}"
            hint = "write the key and its value in place of the comment, or remove the comment if none is needed"
            yield Problem(file, line, len(match[1]) + 1, (section,), message, hint)


def scalar(value: object) -> str:
    """Return a value as one word of a YAML file, in quotes where YAML would read a text as something else."""
    is_plain = isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return str(value) if is_plain else json.dumps(value)


def _events(text: str) -> Iterator[yaml.Event]:
    return iter(yaml.parse(text, Loader=_PARSER))


def _decode(data: bytes, file: str) -> str:
    """Return the text of the file. Raises ConfigRejected for another code, control characters or a large file."""
    if len(data) > MAX_BYTES:
        raise ConfigRejected([Problem(file, 0, 0, (), f"the file is larger than {MAX_BYTES // 1024**2} MiB")])
    for mark, name in _OTHER_ENCODINGS.items():
        if data.startswith(mark):
            raise ConfigRejected([Problem(file, 1, 1, (), f"the file is in {name}", _AS_UTF_8)])
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = _end_of(data[: error.start].decode())
        message = f"byte 0x{data[error.start]:02X} is not UTF-8 (another encoding, such as Latin-1?)"
        raise ConfigRejected([Problem(file, line, column, (), message, _AS_UTF_8)]) from None
    if bad := _NOT_PRINTABLE.search(text):
        line, column = _end_of(text[: bad.start()])
        hint = f"{_AS_UTF_8} (is it UTF-16?)" if bad[0] == "\0" else "remove it"
        message = f"the character U+{ord(bad[0]):04X} is not allowed"
        raise ConfigRejected([Problem(file, line, column, (), message, hint)])
    return text


def _end_of(text: str) -> tuple[int, int]:
    """Return the line and column after the text."""
    lines = _NEW_LINE.split(text)
    return len(lines), len(lines[-1]) + 1


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """Return the problem of a syntax error, without the parser's message, which may quote a secret of the file."""
    lines = _NEW_LINE.split(text)
    for mark in (error.context_mark, error.problem_mark):
        if mark is None or mark.line >= len(lines):
            continue
        here = lines[mark.line][mark.column : mark.column + 1]
        starts_the_token = mark is error.problem_mark or here not in (":", "@", "`", "%", "\t")
        if here in _BEGINNINGS and starts_the_token:
            message, hint = _BEGINNINGS[here]
            return Problem(file, mark.line + 1, mark.column + 1, (), f"not valid YAML: {message}", hint)
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    opened = error.context_mark
    started = f" (the incomplete part begins at line {opened.line + 1})" if opened is not None else ""
    message = f"not valid YAML{started}"
    return Problem(file, line, column, (), message, "check the indentation, brackets and commas here and just above")
