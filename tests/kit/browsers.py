"""Debian's Chromium through Playwright, for tests and for the pictures of the documentation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["LIMIT_MS", "chromium"]

LIMIT_MS = 180_000.0
"""The most that a start of the browser or a wait of a page takes on a busy machine."""


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a window. Skips the test if Playwright or Chromium is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install-sdks")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium is installed here (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=LIMIT_MS)
        try:
            yield browser
        finally:
            browser.close()
