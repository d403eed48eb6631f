"""`make release`: what it refuses, what it changes, and what it makes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import venv
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

from scripts import release
from scripts.release import STATED, ReleaseError, make_dist, make_release, released_changelog, stated_version

ROOT = Path(__file__).parents[2]
# A later day would end facts that this checkout has.
NOW = datetime(2026, 4, 5, 6, tzinfo=UTC)
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.com")


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(["git", *AUTHOR, *words], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the files that state the version."""
    for path in ("CHANGELOG.md", *(path for path, _ in STATED)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n- New.\n\n## [0.1.0]\n\n- Old.\n", "utf-8"
    )
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_entries_move_below_the_new_version() -> None:
    text = "head\n\n## [Unreleased]\n\n- New.\n\n## [0.1.0] - 2020-01-01\n\n- Old.\n"
    assert released_changelog(text, "0.2.0", "2026-04-05") == (
        "head\n\n## [Unreleased]\n\n## [0.2.0] - 2026-04-05\n\n- New.\n\n## [0.1.0] - 2020-01-01\n\n- Old.\n"
    )


@pytest.mark.parametrize("text", ["## [0.1.0]\n\n- Old.\n", "## [Unreleased]\n\nSoon.\n\n## [0.1.0]\n\n- Old.\n"])
def test_nothing_to_release_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match="has no entry"):
        released_changelog(text, "0.2.0", "2026-04-05")


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", "name the version"),
        ("v9.0.0", "name the version"),
        ("9.0", "name the version"),
        ("0.0.9", "not newer"),
        (stated_version(ROOT), "not newer"),
    ],
)
def test_wrong_version_is_refused(checkout: Path, version: str, reason: str) -> None:
    with pytest.raises(ReleaseError, match=reason):
        make_release(checkout, version, NOW)


def test_changed_tree_is_refused_and_named(checkout: Path) -> None:
    (checkout / "new.txt").touch()
    with pytest.raises(ReleaseError, match=r"new\.txt"):
        make_release(checkout, "9.0.0", NOW)


def test_existing_tag_is_refused(checkout: Path) -> None:
    git(checkout, "tag", "v9.0.0")
    with pytest.raises(ReleaseError, match=r"tag v9\.0\.0 exists"):
        make_release(checkout, "9.0.0", NOW)


def test_failed_build_leaves_the_checkout_as_it_was(checkout: Path) -> None:
    """This checkout has no sources, so the build fails."""
    with pytest.raises(ReleaseError, match="build"):
        make_release(checkout, "9.0.0", NOW)
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "--format=%s") == "first"


def test_failed_dist_leaves_the_checkout_as_it_was(checkout: Path) -> None:
    with pytest.raises(ReleaseError, match="build"):
        make_dist(checkout, NOW)
    assert git(checkout, "status", "--porcelain") == ""


def test_files_of_a_commit_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build takes seconds. The version is seen that it would read."""
    git(tmp_path, "clone", "--quiet", "--depth", "1", ROOT.as_uri(), "clone")
    clone, version = tmp_path / "clone", stated_version(ROOT)
    commit = git(clone, "rev-parse", "--short=12", "HEAD")
    made = f"{version}+g{commit}"
    stated: list[str] = []

    def build(root: Path, *_: object) -> None:
        (root / "dist").mkdir(exist_ok=True)
        stated.append(stated_version(root))

    monkeypatch.setattr(release, "_build", build)
    assert make_dist(clone, NOW).startswith(f"{made}:\n")
    assert git(clone, "status", "--porcelain") == ""
    (clone / "notes.txt").touch()
    assert make_dist(clone, NOW).startswith(f"{made}.changed:\n")
    assert git(clone, "status", "--porcelain") == "?? notes.txt"
    (clone / "notes.txt").unlink()
    git(clone, "tag", f"v{version}")
    assert make_dist(clone, NOW).startswith(f"{version}:\n")
    assert stated == [made, f"{made}.changed", version]
    assert [str(Version(one)) for one in stated] == stated, "as a build writes them"


@pytest.mark.slow("builds a release and makes an environment")
def test_release_is_made_installed_into_a_clean_environment_and_answers(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    git(tmp_path, "clone", "--quiet", "--depth", "1", ROOT.as_uri(), "clone")
    clone, dist = tmp_path / "clone", tmp_path / "clone/dist"
    git(clone, "config", "user.name", "a")
    git(clone, "config", "user.email", "a@example.com")
    log = clone / "CHANGELOG.md"
    head, heading, released = log.read_text("utf-8").partition("## [Unreleased]\n")
    log.write_text(f"{head}{heading}\n- Something to release, also just after a release.\n{released}", "utf-8")
    git(clone, "commit", "--quiet", "--all", "--message", "Change something")
    make_release(clone, "9.0.0", NOW)
    names = sorted(path.name for path in dist.iterdir())
    assert names == [
        "SHA256SUMS",
        "assistant_gateway-9.0.0-py3-none-any.whl",
        "assistant_gateway-9.0.0.cdx.json",
        "assistant_gateway-9.0.0.tar.gz",
        "requirements.txt",
    ]
    for line in (dist / "SHA256SUMS").read_text("utf-8").splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((dist / name).read_bytes()).hexdigest() == digest
    sbom = json.loads((dist / names[2]).read_text("utf-8"))
    assert sbom["metadata"]["component"]["version"] == "9.0.0"
    assert {"fastapi", "httpx", "tenacity", "asyncpg"} <= {part["name"] for part in sbom["components"]}
    assert git(clone, "log", "-1", "--format=%s") == "Release 9.0.0"
    assert git(clone, "tag", "--points-at", "HEAD") == "v9.0.0"
    assert git(clone, "status", "--porcelain") == ""
    assert "## [9.0.0] - 2026-04-05" in log.read_text("utf-8")

    venv.create(tmp_path / "clean", with_pip=True)
    workflow = yaml.safe_load((ROOT / "deploy/ci/assistant-gateway.yml").read_text("utf-8"))
    (install,) = (step["run"] for step in workflow["jobs"]["plan"]["steps"] if step.get("name") == "Install")
    (dist / names[3]).unlink()  # the sdist: not all files have to be there
    environ = {
        **os.environ,
        "PIP_NO_COMPILE": "1",
        "PATH": f"{tmp_path}/clean/bin:{os.environ['PATH']}",
        "DIST": str(dist),
    }
    subprocess.run(["bash", "-e", "-c", install], check=True, cwd=tmp_path, env=environ, capture_output=True)
    shown = subprocess.run(
        [str(tmp_path / "clean/bin/gateway"), "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert shown.stdout == "gateway 9.0.0\n"
    command = [str(tmp_path / "clean/bin/gateway"), "demo", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as demo:
        assert demo.stdout is not None
        try:
            shown_lines = list(takewhile(lambda line: "Ctrl-C" not in line, demo.stdout))
        finally:
            demo.terminate()
    assert any("China" in line and "你好" in line for line in shown_lines)
