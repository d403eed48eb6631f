"""The adapters in the pages are typed as strictly as those of the project, because readers copy them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.doc_pages import ROOT, blocks_of


@pytest.mark.slow("runs ruff and mypy")
def test_example_passes_the_linters_of_the_project(tmp_path: Path) -> None:
    blocks = [
        block
        for name in ("adapters", "compatible-vendors")
        for block in blocks_of(ROOT / "docs" / "extend" / f"{name}.md")
    ]
    files = [block for block in blocks if block.language == "python" and block.title]
    names = [str(block.title) for block in files]
    assert names == ["parrot.py", "parrot_simulator.py", "coconut.py"]
    for block in files:
        (tmp_path / str(block.title)).write_text(block.text, "utf-8")
    config = ["--config", str(ROOT / "pyproject.toml")]
    tools = (
        ["ruff", "check", "--ignore", "I001", *config],  # which imports are first-party depends on the directory
        ["ruff", "format", "--check", *config],
        ["mypy", "--strict", "--config-file", "", "--cache-dir", "cache"],
    )
    for tool in tools:
        done = subprocess.run([sys.executable, "-m", *tool, *names], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
