"""Texts that tests compare with files, and how the files are written."""

import os
from pathlib import Path


def expected_text(path: Path, found: str) -> str:
    """Return the text of the file, empty if there is none. With `WRITE=1` in the environment, write what was found first."""
    if os.environ.get("WRITE"):
        path.write_text(found, "utf-8")
    return path.read_text("utf-8") if path.exists() else ""
