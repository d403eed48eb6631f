"""The three forms of a report, written into the directory of its run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.evaluate.store import StoreError

__all__ = ["write_report"]


def write_report(out: Path, report: Mapping[str, Any], html: str, markdown: str) -> None:
    """For programs, as a page, and for a pull request; raises StoreError."""
    try:
        (out / "report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), "utf-8")
        (out / "report.html").write_text(html, "utf-8")
        (out / "report.md").write_text(markdown, "utf-8")
    except OSError as error:
        why = f"the report can't be written to {out}: {error.strerror}"
        raise StoreError(f"{why}; every answer is kept, and the same command asks nothing again") from None
