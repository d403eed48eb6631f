"""Every link of a page leads to an existing file of the checkout and an existing heading in it, and the site builds without
a warning, shows all code blocks, and loads nothing from another host.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.doc_pages import PAGES, ROOT, TRANSLATED, blocks_of, name_of

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_OUTSIDE = ("https://keepachangelog.com/", "https://semver.org/")


def _prose(page: Path) -> str:
    text = page.read_text("utf-8")
    for block in blocks_of(page):
        text = text.replace(block.text, "", 1)
    return text


def _anchors(page: Path) -> set[str]:
    """Return the anchor names that a forge gives to headings."""
    headings = _HEADING.findall(_prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES + TRANSLATED, ids=name_of)
def test_links_lead_to_existing_files_and_headings(page: Path) -> None:
    for link in _LINK.findall(_prose(page)):
        if link.startswith("https://"):
            assert link.startswith(_OUTSIDE), f"{name_of(page)}: {link} cannot be checked"
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link} leads nowhere"
        # A page of the site can only link to pages of the site, because it is read without a checkout.
        inside = ROOT / "docs" if page.is_relative_to(ROOT / "docs") else ROOT
        assert target.is_relative_to(inside), f"{name_of(page)}: {link} leaves {inside.name}/"
        if anchor:
            assert anchor in _anchors(target), f"{name_of(page)}: there is no heading for {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    pending = [ROOT / "README.md"]
    while pending:
        page = pending.pop()
        if page in seen:
            continue
        seen.add(page)
        for link in _LINK.findall(_prose(page)):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.is_dir():
                pending.extend(target.glob("*.md"))
            elif target.suffix == ".md":
                pending.append(target)
    assert set(PAGES) - {ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"} <= seen


def test_decisions_have_ascending_numbers() -> None:
    texts = [page.read_text("utf-8") for page in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    numbers = [[int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)] for text in texts]
    assert numbers == [sorted(of_page) for of_page in numbers]
    flat = [number for of_page in numbers for number in of_page]
    assert len(set(flat)) == len(flat) == sum(text.count("\n## ") for text in texts)


# An element of a page that makes a browser ask a host; a plain link does not.
_LOADED = re.compile(r'<(?:script|img|iframe|source)[^>]*\ssrc="(https?:)?//|<link[^>]*\shref="(https?:)?//')


@pytest.mark.slow("builds the whole site")
def test_site_builds_strictly_and_is_self_contained(tmp_path: Path) -> None:
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) > 100
    unread = [page.name for page in pages if "```" in page.read_text("utf-8")]
    assert not unread, f"a code block of these pages is shown as text: {unread}"
    loading = [page.name for page in pages if _LOADED.search(page.read_text("utf-8"))]
    assert not loading
