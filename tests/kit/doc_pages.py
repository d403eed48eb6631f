"""Read the documentation pages and their fenced blocks. Tests run or compile every block, by its language:

- `sh`: run with `sh -eu`, page by page in one directory, with the commands of `stand_in_commands` and a demo on the
  page's port.
- `python`: run, the blocks of a page one after another in one process.
- `text` after one of these: its output, in full lines. `…` matches anything; alone on a line it matches any lines.
- `yaml`: a part of a config, compiled inside `config/gateway.yaml`, where it replaces the same keys.
- anything with `title="NAME"`: a file of that name, which a later block uses. A page can continue with the files of
  another
  page: `<!-- goes on in the directory of PAGE -->`.
- `toml`, `json`: must parse.

A comment in the line before a block has options of its test, because the site does not show a block with unknown
attributes:

- `<!-- test: exit=1 -->`: the commands must end with this status.
- `<!-- test: serves=on -->`: the last command serves until the page ends, and the page's ports belong to it from there
  on.
- `<!-- test: needs=NAME -->` before `python` or `js`: the block needs a package that the fast suite does not have.
  `make ci` runs each of these blocks alone.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

__all__ = [
    "PAGES",
    "ROOT",
    "TRANSLATED",
    "Block",
    "blocks_of",
    "docs_table",
    "earlier_files_of",
    "name_of",
    "needy_blocks_of",
    "pattern_of",
    "table_of",
]

ROOT = Path(__file__).parents[2]
TRANSLATED = [ROOT / "README.zh-Hans.md", *sorted(ROOT.glob("docs/zh-Hans/*.md"))]
"""The translated pages. Their blocks are those of their originals, which are run."""
PAGES = sorted(
    {ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md")} - set(TRANSLATED)
)
_GOES_ON = re.compile(r"^<!-- goes on in the directory of (\S+) -->$", re.MULTILINE)
_TEST = re.compile(r"^<!-- test: (.+) -->$")
_FENCE = re.compile(r"^(`{3,}|~{3,})(.*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its position, language, attributes and text."""

    page: Path
    line: int
    language: str
    text: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str | None:
        """Return the name of the file that the block is, if it is one."""
        return self.options.get("title")

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    """Return the page's name relative to the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    """Return the fenced blocks in order."""
    lines = iter(enumerate(page.read_text("utf-8").splitlines(), 1))
    before = ""
    for number, line in lines:
        if not (opening := _FENCE.match(line)):
            before = line
            continue
        language, *words = shlex.split(opening[2]) or [""]
        if test := _TEST.match(before):
            words += shlex.split(test[1])
        before = ""
        text: list[str] = []
        for _, inner in lines:
            if inner.startswith(opening[1]):
                break
            text.append(inner)
        else:
            raise AssertionError(f"{name_of(page)}:{number}: the block has no end")
        options = dict(word.split("=", 1) for word in words)
        yield Block(page, number, language, "".join(f"{one}\n" for one in text), options)


def earlier_files_of(page: Path) -> Iterator[Block]:
    """Return the files of the page that this one continues."""
    if (found := _GOES_ON.search(page.read_text("utf-8"))) is not None:
        yield from (block for block in blocks_of(page.parent / found[1]) if block.title is not None)


def needy_blocks_of(page: Path) -> Iterator[tuple[Block, Block | None]]:
    """Return the blocks that need packages outside the fast suite, each with the expected output after it."""
    blocks = [*blocks_of(page), None]
    for block, following in pairwise(blocks):
        if block is not None and "needs" in block.options:
            yield block, following if following is not None and following.language == "text" else None


def pattern_of(text: str) -> re.Pattern[str]:
    """Return a pattern for an expected output: these lines, with `…` for anything."""
    lines = []
    for line in text.splitlines():
        if line == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(".*?".join(map(re.escape, line.split("…"))) + r"$\n?")
    return re.compile("^" + "".join(lines), re.MULTILINE)


def docs_table(header: str) -> list[list[str]]:
    """Return the rows of the one table in docs/ whose first line begins with `header`, on whichever page it stands."""
    pages = [page for page in PAGES if f"\n{header}" in page.read_text("utf-8")]
    assert len(pages) == 1, f"{header!r} must be the header of one table, but is on {[name_of(page) for page in pages]}"
    return table_of(pages[0], header)


def table_of(page: Path, header: str) -> list[list[str]]:
    """Return the rows of the table whose first line begins with `header`, as cells, without the header."""
    lines = page.read_text("utf-8").splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(header)), None)
    assert start is not None, f"{name_of(page)} has no table {header!r}"
    rows: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
