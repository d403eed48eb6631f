"""The generated files: pages of the documentation and schemas for editors."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import generate
from scripts.generate import FILES, ROOT


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_generated_file_is_current(path: Path) -> None:
    if path.read_text("utf-8") != FILES[path]():
        pytest.fail(f"{path.relative_to(ROOT)} is not current: run make generate")


def test_generate_writes_missing_and_outdated_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, outdated, current = tmp_path / "new" / "one.md", tmp_path / "two.md", tmp_path / "three.md"
    outdated.write_text("before", "utf-8")
    current.write_text("now", "utf-8")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "FILES", {path: lambda: "now" for path in (missing, outdated, current)})
    monkeypatch.setattr(generate, "MARKED", {})
    generate.main()
    assert [path.read_text("utf-8") for path in (missing, outdated, current)] == ["now"] * 3
    assert capsys.readouterr().out.splitlines() == [f"wrote {Path('new', 'one.md')}", "wrote two.md"]
