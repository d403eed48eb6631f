"""Find phrases that plain technical English avoids: in pages, docstrings, comments, messages and names of tests.

The list is the project's own rule of language (CONTRIBUTING.md, "Language"). A pattern stands here only if almost every match is
wrong; what a pattern cannot know is left to review.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit.doc_pages import ROOT, blocks_of

__all__ = ["Phrase", "phrases_of"]

# Each rule states what to write instead.
PATTERNS: dict[str, re.Pattern[str]] = {
    '"is not a Y", not "is no Y"': re.compile(
        r"(?<!there )(?<!There )\b(?:is|are|was|were) (?:no(?! (?:longer|more|less|later|earlier|fewer)\b)|none)\b"
    ),
    'the subject, such as "a client", "no request" or "the operator"': re.compile(
        r"\b(?:[Nn]obody|[Ss]omebody|[Ww]hoever|[Ww]homever)\b"
    ),
    '"log", "return", "report", "send" or "state"': re.compile(
        r"\b(?:[Tt]ells?|[Tt]old|[Tt]elling|[Hh]ears?|[Hh]eard|[Ss]ays?|[Ss]aid|[Ss]aying)\b"
    ),
    '"fix"': re.compile(r"\b[Mm]end(?:s|ed|ing)?\b"),
    '"estimate", "compute" or "count"': re.compile(r"\b[Rr]eckon(?:s|ed|ing)?\b"),
    '"healthy" or "unavailable"': re.compile(
        r"\b(?:[Uu]nwell|(?:is|are) well)\b(?! (?:formed|known|within|below|above))"
    ),
    '"next to", "with" or "as well as"': re.compile(r"\b[Bb]esides?\b"),
    '"after" or "later than"; only a server is behind a proxy': re.compile(
        r"\b[Bb]ehind\b(?! (?:(?:a|an|the|your|its|our|another|one|several|such) )?(?:[\w-]+ ){0,2}"
        r"(?:proxy|proxies|balancer|CDN|NAT|firewall|gateway|edge|nginx|Envoy|HAProxy|Cloudflare|VPN)\b)"
    ),
    '"usually"': re.compile(r"\b[Mm]ostly\b"),
    '"the previous X"': re.compile(r"\bthe one before\b"),
    '"of a X that"': re.compile(r"\bof one (?:that|who|which)\b"),
    'the subject first: "The fields that …", not "What …" or "Who …"': re.compile(
        r"(?:^|(?<=[.:] ))(?:What(?!ever)|Who|Whom|Whose|Whichever|Whatever)\b(?![^.\n]*\?)"
    ),
}
_ON_PAGES: dict[str, re.Pattern[str]] = {
    '"immediately" or "at the same time"': re.compile(r"\b[Aa]t once\b"),
    '"does not have"': re.compile(r"\b(?:[Ll]acks|[Ll]acking)\b"),
}
"""Further rules for pages, whose readers see no code."""
_WHETHER = re.compile(r"^Whether\b")
_CODE = re.compile(r"`[^`\n]*`|\]\([^)]*\)|<!--.*?-->|\"[^\"\n]*\"")
_NAME = re.compile(
    r"(?:^|_)(?:nobody|somebody|whoever|tells?|told|hears?|heard|says?|said|mends?|mended|reckon\w*|unwell|beside|behind)(?:_|$)"
)
_FOR_NAMES: dict[str, str] = {
    "nobody": '"no_client", "no_request" or "nothing"',
    "somebody": '"a_client" or "a_request"',
    "whoever": '"the_client"',
    "tell": '"report", "return" or "send"',
    "told": '"reported", "returned" or "sent"',
    "hear": '"receive" or "read"',
    "say": '"state", "return" or "log"',
    "said": '"stated", "returned" or "logged"',
    "mend": '"fix"',
    "reckon": '"estimate", "compute" or "count"',
    "unwell": '"unavailable" or "unhealthy"',
    "beside": '"next_to" or "with"',
    "behind": '"after" or "following"',
}
"""The words to write in place of a word in a test's name, by the beginning of that word."""
# A file without any of these words has no match, and most tests have none: they are not parsed. The texts of another module may be
# joined from parts, so that each is parsed.
_ANY = re.compile(
    r"\b(?:(?:is|are|was|were) (?:no|none)|(?:is|are) well|[Uu]nwell|[Nn]obody|[Ss]omebody|[Ww]hoever|[Ww]homever|[Tt]ells?|[Tt]old|[Tt]elling"
    r"|[Hh]ears?|[Hh]eard|[Ss]ays?|[Ss]aid|[Ss]aying|[Mm]end(?:s|ed|ing)?|[Rr]eckon\w*|[Bb]esides?|[Bb]ehind|[Mm]ostly|the one before"
    r"|of one (?:that|who|which)|What|Who|Whom|Whose|Whichever|Whatever|Whether)\b"
    r"|def test_\w*(?:nobody|somebody|whoever|tell|told|hear|say|said|mend|reckon|unwell|beside|behind)"
)
_HASH = re.compile("#+")
_WORDS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,}){3}")


@dataclass(frozen=True, slots=True)
class Phrase:
    """One match: its place, its text, and what to write instead."""

    path: Path
    line: int
    text: str
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: write {self.rule}"


def phrases_of(path: Path) -> Iterator[Phrase]:
    """Yield the phrases of a Markdown page, a Python module, or a file of words."""
    if path.suffix == ".md":
        yield from _in_page(path)
    elif path.suffix == ".toml":
        lines = enumerate(path.read_text("utf-8").splitlines(), 1)
        yield from (it for number, line in lines if _WORDS.search(line) for it in _matches(path, number, line))
    else:
        yield from _in_module(path)


def _in_page(path: Path) -> Iterator[Phrase]:
    lines = path.read_text("utf-8").splitlines()
    # The pages `api-…` are docstrings, for readers who see code.
    rules = PATTERNS if path.name.startswith("api-") else PATTERNS | _ON_PAGES
    for block in blocks_of(path):
        end = block.line + len(block.text.splitlines()) + 1
        lines[block.line - 1 : end] = [""] * len(lines[block.line - 1 : end])
    for number, line in enumerate(lines, 1):
        yield from _matches(path, number, line.lstrip("#>-*| "), rules)


def _in_module(path: Path) -> Iterator[Phrase]:
    source = path.read_text("utf-8")
    is_test = path.is_relative_to(ROOT / "tests")
    if is_test and not _ANY.search(source):
        return
    nodes = [*ast.walk(ast.parse(source))]
    docstrings: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of_definition(path, node, docstrings)
    for node in nodes:
        # A text of at least four words in a row is for people; in tests it is usually data.
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        if is_text and not is_test and _WORDS.search(node.value):  # type: ignore[attr-defined]
            yield from _matches(path, node.lineno, node.value)  # type: ignore[attr-defined]
    if not any(_may_be_wrong(line) for line in source.splitlines()):
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from _matches(path, token.start[0], token.string.lstrip("#: "))


def _may_be_wrong(line: str) -> bool:
    """Return whether a comment of this line would break a rule. Only the tokens show which "#" begins it, and are costly."""
    return any(any(_matches(Path(), 0, line[found.start() :].lstrip("#: "))) for found in _HASH.finditer(line))


def _of_definition(
    path: Path, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, docstrings: set[int]
) -> Iterator[Phrase]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
        found = _NAME.search(node.name)
        if found is not None:
            word = found[0].strip("_")
            instead = next(words for start, words in _FOR_NAMES.items() if word.startswith(start))
            yield Phrase(path, node.lineno, node.name, f"{instead} in the name, not {word!r}")
    text = ast.get_docstring(node)
    if text is None:
        return
    expression = node.body[0]
    assert isinstance(expression, ast.Expr)
    docstrings.add(id(expression.value))
    first = expression.lineno
    is_predicate = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
        isinstance(node.returns, ast.Name) and node.returns.id == "bool"
    )
    if _WHETHER.search(text) and not is_predicate:
        rule = '"Return whether …" or the subject; only the docstring of a predicate begins with "Whether"'
        yield Phrase(path, first, text.splitlines()[0], rule)
    for offset, line in enumerate(text.splitlines()):
        yield from _matches(path, first + offset, line)


def _matches(path: Path, number: int, line: str, patterns: dict[str, re.Pattern[str]] = PATTERNS) -> Iterator[Phrase]:
    plain = _CODE.sub("`", line)
    for rule, pattern in patterns.items():
        for found in pattern.finditer(plain):
            yield Phrase(path, number, plain[max(0, found.start() - 20) : found.end() + 20], rule)
