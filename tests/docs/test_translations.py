"""The Chinese pages have the commands of their originals, and state by themselves that an original has changed."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import translations
from scripts.translations import OUTDATED, on_page_markdown, original_of, readme, translated_pages
from tests.kit.doc_pages import ROOT, TRANSLATED, blocks_of, name_of

CONSOLE = ROOT / "gateway" / "console" / "locale" / "zh-Hans.po"
_MOST_CHARACTERS = 8_000
_SEVERAL_MEANINGS = {"key", "site", "attempt", "decision"}
"""Terms with another meaning too: a key of the keyboard, a website, an attempt to sign in, the decision of a route."""


@pytest.mark.parametrize("page", TRANSLATED, ids=name_of)
def test_translated_page_has_blocks_of_its_original_and_is_linked_there(page: Path) -> None:
    original, _ = original_of(page)
    known = {(block.language, block.text, str(block.options)) for block in blocks_of(original)}
    own = [block for block in blocks_of(page) if (block.language, block.text, str(block.options)) not in known]
    assert [str(block) for block in own] == []
    assert f"[简体中文]({'../' * (len(original.relative_to(ROOT).parts) - 2)}" in original.read_text("utf-8")


def test_messages_of_the_chinese_page_are_those_of_the_gateway() -> None:
    source = "".join(path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    words = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", source)).replace(
        "a … is written", "a secret is written"
    )
    page = (ROOT / "docs" / "zh-Hans" / "messages.md").read_text("utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) == 10
    assert [it for it in messages if any(part.strip(" ,") not in words for part in it.split("…"))] == []


def test_translated_pages_are_short() -> None:
    prose = [re.sub(r"```.*?```|\s", "", page.read_text("utf-8"), flags=re.DOTALL) for page in translated_pages()]
    assert sum(map(len, prose)) <= _MOST_CHARACTERS


def test_the_console_uses_the_chinese_terms_of_the_glossary() -> None:
    section = (ROOT / "docs" / "glossary.md").read_text("utf-8").partition("## Chinese terms")[2]
    rows = re.findall(r"^\| ([a-z, ]+?)(?: \(.*\))? \| (\S+?)(?:（.*）)? \|$", section, re.MULTILINE)
    terms = {en: zh for both in rows for en, zh in zip(both[0].split(", "), both[1].split("，"), strict=True)}
    assert len(terms) > 20
    other = []
    texts = re.findall(r'^msgid "(.+)"\nmsgstr "(.+)"$', CONSOLE.read_text("utf-8"), re.MULTILINE)
    for english, chinese in texts:
        spoken = re.sub(r"\{\w+\}|gateway [a-z]+ --[a-z]+", "", english)
        words = [word.lower() for word in re.findall(r"\b[A-Za-z][a-z]+\b", spoken)]
        for term in terms.keys() - _SEVERAL_MEANINGS:
            if not {term, f"{term}s", f"{term[:-1]}ies"}.isdisjoint(words) and terms[term] not in chinese:
                other.append(f"{english!r} has {chinese!r} without {terms[term]!r}")
    assert other == []


def test_an_outdated_page_states_it_at_its_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs" / "zh-Hans").mkdir(parents=True)
    monkeypatch.setattr(translations, "ROOT", tmp_path)
    monkeypatch.setattr(translations, "README", tmp_path / "README.zh-Hans.md")
    for folder, original in ((tmp_path, "README.md"), (tmp_path / "docs" / "zh-Hans", "docs/call.md")):
        (tmp_path / original).write_text("# One", "utf-8")
        name = "README.zh-Hans.md" if folder == tmp_path else "call.md"
        (folder / name).write_text(f'---\noriginal: {original}\ndigest: ""\n---\n\n# 一', "utf-8")
    translations.main()
    path = tmp_path / "docs" / "zh-Hans" / "call.md"
    page = SimpleNamespace(meta={"original": "docs/call.md"}, file=SimpleNamespace(abs_src_path=str(path)))
    assert on_page_markdown("# 一", page=page) == "# 一"
    assert readme().endswith("---\n\n# 一")
    for original in ("README.md", "docs/call.md"):
        (tmp_path / original).write_text("# Two", "utf-8")
    assert on_page_markdown("# 一", page=page) == OUTDATED.format(original="../call.md") + "# 一"
    marked = readme()
    assert marked.endswith(OUTDATED.format(original="README.md") + "# 一")
    (tmp_path / "README.zh-Hans.md").write_text(marked, "utf-8")
    assert readme() == marked
    translations.main()
    assert readme().endswith("---\n\n# 一")
