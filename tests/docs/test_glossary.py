"""Every term of the glossary names the code that defines it, and is listed once."""

from __future__ import annotations

import importlib
import re
from collections import Counter

import pytest

from tests.kit.doc_pages import ROOT

PAGE = ROOT / "docs" / "glossary.md"
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `([\w.]+)` \|$", PAGE.read_text("utf-8"), re.MULTILINE)


def test_terms_are_unique() -> None:
    assert len(ROWS) >= 40
    assert [term for term, count in Counter(term for term, _ in ROWS).items() if count > 1] == []


@pytest.mark.parametrize(("term", "definition"), ROWS)
def test_term_names_existing_code(term: str, definition: str) -> None:
    try:
        importlib.import_module(definition)
    except ModuleNotFoundError:
        module, _, name = definition.rpartition(".")
        assert hasattr(importlib.import_module(module), name), f"{term}: there is no {definition}"
