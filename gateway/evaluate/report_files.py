"""The three forms of a report, written into the directory of its run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.evaluate.store import StoreError

__all__ = ["write_report"]


def write_report(out: Path, report: Mapping[str, Any], html: str, markdown: str) -> None:
    """For programs, as a page, and for a pull request; raises StoreError.

    What candidates wrote is in all of them, and of a shadow what people did: as `run.db`, they are their owner's alone.
    """
    try:
        _write(out / "report.json", json.dumps(report, ensure_ascii=False, indent=1))
        _write(out / "report.html", html)
        _write(out / "report.md", markdown)
    except OSError as error:
        why = f"the report can't be written to {out}: {error.strerror}"
        raise StoreError(f"{why}; every answer is kept, and the same command asks nothing again") from None


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
