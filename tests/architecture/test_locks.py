"""The locks: nothing in them runs by itself, and a change of them is shown."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

from scripts import lock_diff
from tests.kit.doc_pages import ROOT

# Tools of the tests that begin at the start of Python: one counts coverage, one is of every older environment.
KNOWN = {"coverage": "a1_coverage.pth", "setuptools": "distutils-precedence.pth"}


def named(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_package_of_the_locks_runs_at_each_start_of_python() -> None:
    locked = {named(it) for lock in (ROOT / "locks").glob("*.lock") for it in lock_diff.pins_of(lock.read_text())}
    assert {"fastapi", "asyncpg", "uv", "pytest"} <= locked
    records = {named(it.name): it.read_text("RECORD") or "" for it in distributions() if named(it.name) in locked}
    found = {(name, file) for name, text in records.items() for file in re.findall(r"(?m)^(.*\.pth),", text)}
    assert found <= set(KNOWN.items()), "this code runs at each start of Python: find another package"
    production = {named(it) for it in lock_diff.pins_of((ROOT / "locks/image.lock").read_text())}
    assert not production & {*KNOWN}


@pytest.mark.parametrize(
    "file", ["scripts/bootstrap.sh", "Dockerfile", "deploy/ci/assistant-gateway.yml", "docs/operate/get.md"]
)
def test_locked_packages_are_installed_from_wheels_only(file: str) -> None:
    """A source distribution in a lock fails the installation, because its code would run there."""
    lines = [
        it for it in (ROOT / file).read_text("utf-8").splitlines() if re.search(r"install\b.*--require-hashes", it)
    ]
    assert lines
    assert [line for line in lines if "--only-binary=:all:" not in line and "--only-binary :all:" not in line] == []


def wheel(folder: Path, version: str, files: dict[str, str]) -> str:
    """Write a wheel, and return its lines in a lock."""
    info = f"it-{version}.dist-info"
    path = folder / f"it-{version}-py3-none-any.whl"
    with ZipFile(path, "w") as written:
        files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: it\nVersion: {version}\n"}
        files |= {
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
        for name, text in files.items():
            written.writestr(name, text)
    return f"it=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.mark.slow("fetches two wheels with pip")
def test_change_of_a_lock_shows_what_it_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    (root / "locks").mkdir(parents=True)
    lock = root / "locks/runtime.lock"
    lock.write_text(wheel(tmp_path, "1.0", {"it/__init__.py": ""}))
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    opens = "import socket\ntry: socket.getaddrinfo('example.com', 80)\nexcept OSError: pass\n"
    more = {"it/__init__.py": opens, "it/fast.so": "", "it.pth": "import it\n"}
    more["it-1.1.dist-info/entry_points.txt"] = "[console_scripts]\nit = it:main\n"
    lock.write_text(wheel(tmp_path, "1.1", more))
    monkeypatch.setattr(lock_diff, "ROOT", root)
    monkeypatch.setattr(sys, "argv", ["lock_diff"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert lock_diff.main() == 1
    shown = capsys.readouterr().out
    for line in (
        "it 1.0 -> 1.1", "+ native code: it/fast.so", "+ entry point: it = it:main", "+ runs at each start: it.pth",
        "+ at import: socket.getaddrinfo", "refused: a `.pth`",
    ):  # fmt: skip
        assert line in shown, shown
    (tmp_path / "it-1.1-py3-none-any.whl").unlink()
    assert lock_diff.main() == 1
    assert "no wheel for this platform" in capsys.readouterr().out
    shutil.rmtree(root)
