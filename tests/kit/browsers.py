"""Debian's Chromium through Playwright, for tests and for the pictures of the documentation."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["LIMIT_MS", "chromium", "chromium_program", "serious_problems", "watched_pages"]

_AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LIMIT_MS = 180_000.0
"""The most that a start of the browser or a wait of a page takes on a busy machine."""


def chromium_program() -> str:
    """Return the program of Chromium, or skip the test. The one without an own surface computes half as much."""
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):
        if (program := shutil.which(name)) is not None:
            return program
    pytest.skip("no Chromium is installed here (Debian: apt-get install chromium-headless-shell)")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium without a window. Skips the test if Playwright or Chromium is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install-sdks")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium_program(), args=["--no-sandbox"], timeout=LIMIT_MS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched_pages(
    browser: Any, url: str, height_px: int, *, allowed: tuple[str, ...] = (), with_error_status: bool = False
) -> Iterator[Callable[..., Any]]:
    """Yield a function that opens a page below the URL, with options of its context.

    At the end it fails if a page reported an error, opened a dialog or asked for anything that does not begin with the
    URL or with one of `allowed`. The browser reports each answer with an error status too: `with_error_status` allows
    them.
    """
    problems: list[str] = []
    contexts = []

    def begin(target: str = "", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": height_px}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LIMIT_MS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.on("request", lambda one: one.url.startswith((url, *allowed)) or problems.append(one.url))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(url + target)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert [one for one in problems if not (with_error_status and "responded with a status of" in one)] == []


def serious_problems(page: Any) -> list[tuple[str, str, list[str]]]:
    """Return the serious and critical problems that axe, which the page has, finds."""
    return [
        (one["id"], one["help"], [node["html"][:200] for node in one["nodes"]][:3])
        for one in page.evaluate("rules => axe.run(document, {runOnly: rules})", _AXE_RULES)["violations"]
        if one["impact"] in ("serious", "critical")
    ]
