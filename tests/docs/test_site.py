"""The documentation site builds without a warning, shows all code blocks, and loads nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.doc_pages import ROOT

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
