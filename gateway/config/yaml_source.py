"""The bytes of a YAML 1.2 file -> its tree of values, or what is wrong with the text: encoding, syntax, size.

Mistakes of one place are collected in the source; a text that is no YAML ends the reading.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any

import yaml

from gateway.config.problems import ConfigRejected, Problem
from gateway.config.watch import MAX_BYTES
from gateway.config.yaml_tree import Builder, Source

__all__ = ["parse_yaml"]

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NEW_LINE = re.compile(r"\r\n|\r|\n")
# Section 5.1, without the line breaks of YAML 1.1 (NEL, LS, PS): the parser counts these as lines, editors don't.
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_OTHER_ENCODINGS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_AS_UTF_8 = "save the file as UTF-8"


def parse_yaml(data: bytes, file: str) -> Source:
    """The one mapping that the bytes hold; raises ConfigRejected where there is none to be had."""
    builder = Builder(file)
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
    return Source(file, root.value, tuple(builder.problems), root)


def _events(text: str) -> Iterator[yaml.Event]:
    return iter(yaml.parse(text, Loader=_PARSER))


def _decode(data: bytes, file: str) -> str:
    """The text of the file; raises ConfigRejected for another encoding, a control character, too many bytes."""
    if len(data) > MAX_BYTES:
        raise ConfigRejected([Problem(file, 0, 0, (), f"the file is larger than {MAX_BYTES // 1024**2} MiB")])
    for mark, name in _OTHER_ENCODINGS.items():
        if data.startswith(mark):
            raise ConfigRejected([Problem(file, 1, 1, (), f"the file is in {name}", _AS_UTF_8)])
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line, column = _end_of(before)
        message = f"byte 0x{data[error.start]:02X} is no UTF-8 (another encoding, such as Latin-1?)"
        raise ConfigRejected([Problem(file, line, column, (), message, _AS_UTF_8)]) from None
    if bad := _NOT_PRINTABLE.search(text):
        line, column = _end_of(text[: bad.start()])
        hint = f"{_AS_UTF_8} (is it UTF-16?)" if bad[0] == "\0" else "remove it"
        message = f"the character U+{ord(bad[0]):04X} is not allowed"
        raise ConfigRejected([Problem(file, line, column, (), message, hint)])
    return text


def _end_of(text: str) -> tuple[int, int]:
    """Line and column of what follows the text."""
    lines = _NEW_LINE.split(text)
    return len(lines), len(lines[-1]) + 1


_BEGINNINGS = {
    "\t": ("a tab where only spaces may be", "indent with spaces"),
    "@": ("a text that begins with `@` must be in quotes", 'write it as "@EEA"'),
    "`": ("a text that begins with a backtick must be in quotes", "put it in quotes"),
    "%": ("a text that begins with `%` must be in quotes", "put it in quotes"),
    "*": ("a text that begins with `*` must be in quotes", 'write everywhere as "*"'),
    "!": ("a text that begins with `!` must be in quotes", 'write an exclusion as "!CN"'),
    "&": ("a text that begins with `&` must be in quotes", "put it in quotes"),
    '"': ("a quote that is never closed, or not well closed", 'close it with `"`'),
    "'": ("a quote that is never closed, or not well closed", "close it with `'`"),
    ":": ("a `:` where no key can be", "put a text that holds `: ` in quotes, and check the indentation"),
}


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    """What the parser stumbled over, by the character there. Its own words may quote the file, and so a secret."""
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
    started = f" (what is not complete begins at line {opened.line + 1})" if opened is not None else ""
    message = f"not valid YAML{started}"
    return Problem(file, line, column, (), message, "check the indentation, brackets and commas here and just above")
