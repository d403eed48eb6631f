"""State at the top of a translated page that its original has changed since. A hook of the documentation site.

A translated page names its original and the digest of the text that was translated. `python -m scripts.translations`
notes the present digests, after a translator has read the changes. `make generate` writes the sentence into the
translated README, which is read without the site.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.zh-Hans.md"
OUTDATED = "> 原文在翻译之后有改动，以[英文页]({original})为准。\n\n"
_HEAD = re.compile(r'\A---\noriginal: (\S+)\ndigest: "([0-9a-f]*)"\n---\n\n')
_SENTENCE = re.compile("^" + re.escape(OUTDATED).replace(re.escape("{original}"), "[^)]+"), re.MULTILINE)


def translated_pages() -> Iterator[Path]:
    """Yield the translated pages."""
    yield README
    yield from sorted((ROOT / "docs" / "zh-Hans").glob("*.md"))


def original_of(page: Path) -> tuple[Path, bool]:
    """Return the original of a translated page, and whether it has changed since. Raises ValueError."""
    head = _HEAD.match(page.read_text("utf-8"))
    if head is None:
        raise ValueError(f"{page}: a translated page begins with its `original` and the `digest`")
    original = ROOT / head[1]
    return original, _digest_of(original) != head[2]


def _digest_of(original: Path) -> str:
    return hashlib.sha256(original.read_bytes()).hexdigest()[:16]


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """Put the sentence above an outdated page. A hook of MkDocs."""
    if "original" not in page.meta:
        return markdown
    original, is_outdated = original_of(Path(page.file.abs_src_path))
    link = f"../{original.relative_to(ROOT / 'docs')}"
    return OUTDATED.format(original=link) + markdown if is_outdated else markdown


def readme() -> str:
    """Return the translated README, with the sentence if it is outdated."""
    text = _SENTENCE.sub("", README.read_text("utf-8"))
    original, is_outdated = original_of(README)
    end = re.match(_HEAD, text)
    if not is_outdated or end is None:
        return text
    return text[: end.end()] + OUTDATED.format(original=original.name) + text[end.end() :]


def main() -> None:
    """Note the digests of the present originals."""
    for page in translated_pages():
        original, _ = original_of(page)
        head = f'---\noriginal: {original.relative_to(ROOT)}\ndigest: "{_digest_of(original)}"\n---\n\n'
        page.write_text(_HEAD.sub(head, page.read_text("utf-8")), "utf-8")
    README.write_text(readme(), "utf-8")


if __name__ == "__main__":
    main()
