"""Configs with the problems that follow, each written below the place that it points at, as a compiler shows them.

    version: 2
    #        ^ version: must be 1; this is version 1 of the format; write `version: 1`

`^` is below the column; an error at the first column has `#<`. A document of a file replaces sections of the config
`SOUND`: `# sound` in a section stands for the sound entries, and `# without: cell` removes sections. Of a config with
errors, only these are noted.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent

from gateway.config.problems import Problem, dotted
from tests.kit.config_cases import SOUND, problems_of, sections

_NOTE = re.compile(r"#(?:<|\s*\^) ")
_SECTION = re.compile(r"([a-z_]+):")
_WITHOUT = "# without: "


def documents(path: Path) -> Iterator[str]:
    """Yield each document with its notes."""
    return (text.strip("\n") + "\n" for text in path.read_text("utf-8").split("\n---\n"))


def annotated(document: str) -> str:
    """Return the document with the notes of the problems that it has now, in place of those that it had."""
    own = own_lines(document)
    text, number_of = _completed(own)
    return with_notes(own, errors_of(text) or problems_of(text), number_of)


def own_lines(document: str) -> list[str]:
    """Return the lines of a document without its notes."""
    return [line for line in document.splitlines() if not _NOTE.match(line)]


def with_notes(own: list[str], problems: Iterable[Problem], number_of: Sequence[int]) -> str:
    """Return the lines with each problem below its place. `number_of`: the number of each line of the compiled text."""
    notes: dict[int, list[tuple[int, str]]] = {}
    for problem in problems:
        hint = f"; {problem.hint}" if problem.hint else ""
        mark = "warning: " if problem.severity == "warning" else ""
        note = f"{mark}{dotted(problem.path)}: {problem.message}{hint}"
        notes.setdefault(number_of[problem.line - 1], []).append((problem.column, note))
    assert -1 not in notes, f"problems outside of the document: {notes[-1]}"
    lines = [[line, *(_below(*note) for note in notes.get(number, []))] for number, line in enumerate(own)]
    return "\n".join(line for group in lines for line in group) + "\n"


def errors_of(text: str) -> list[Problem]:
    """Return the errors of a whole config."""
    return [problem for problem in problems_of(text) if problem.severity == "error"]


def completed(document: str) -> str:
    """Return the whole config of a document."""
    return _completed(document.splitlines())[0]


def _below(column: int, note: str) -> str:
    return f"#< {note}" if column == 1 else f"#{' ' * (column - 2)}^ {note}"


def _completed(own: list[str]) -> tuple[str, list[int]]:
    """Return the whole config, and for each of its lines the number of the line of the document (-1: a sound one)."""
    replaced = {match[1] for line in own if (match := _SECTION.match(line))}
    for line in own:
        if line.startswith(_WITHOUT):
            replaced |= {*line.removeprefix(_WITHOUT).split(", ")}
    lines = sections(**dict.fromkeys(replaced & SOUND.keys(), "")).splitlines()
    numbers, section = [-1] * len(lines), ""
    for number, line in enumerate(own):
        section = match[1] if (match := _SECTION.match(line)) else section
        new = dedent(SOUND[section]).rstrip().splitlines()[1:] if line.strip() == "# sound" else [line]
        lines += new
        numbers += [number if len(new) == 1 else -1] * len(new)
    return "\n".join(lines) + "\n", numbers
